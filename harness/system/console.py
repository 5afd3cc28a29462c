"""Lines for people on stderr; stdout is kept for the result of a command."""

from __future__ import annotations

import sys


def log(text: str) -> None:
    """Print one line of progress to stderr."""
    print(text, file=sys.stderr, flush=True)

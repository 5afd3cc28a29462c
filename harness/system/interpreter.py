"""Whether this Python keeps everything that a bench needs of it."""

from __future__ import annotations

import sys

from harness.types import HarnessError


def check() -> None:
    """Raises HarnessError if docstrings are stripped: Ray edits some of its own when it is imported."""
    if sys.flags.optimize > 1:
        raise HarnessError(
            "Python strips docstrings here (PYTHONOPTIMIZE=2 or -OO), and Ray cannot be imported without them; unset "
            "PYTHONOPTIMIZE or set it to 1."
        )

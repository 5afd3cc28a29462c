"""Check that the Python interpreter can run a bench."""

from __future__ import annotations

import sys

from harness.types import HarnessError


def check() -> None:
    """Raise HarnessError if docstrings are stripped: Ray edits docstrings when it is imported."""
    if sys.flags.optimize > 1:
        raise HarnessError(
            "Python strips docstrings here (PYTHONOPTIMIZE=2 or -OO), and Ray cannot be imported without them; unset "
            "PYTHONOPTIMIZE or set it to 1."
        )

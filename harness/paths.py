"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from harness.types import HarnessError


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with its leading `~` or `~user` replaced by the folder of that user.

    Raises HarnessError if the system knows no such user, or HOME is not set and it does not know who runs this.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        first = Path(path).parts[0]
        why = "HOME is not set" if first == "~" else f"this machine has no user {first[1:]}"
        raise HarnessError(f"{path} cannot be located, because {why}; give the full path.") from error

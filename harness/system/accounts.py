"""The account of this process: containers and clusters may have neither HOME nor an entry for the user."""

from __future__ import annotations

import os
from pathlib import Path


def ensure_home() -> None:
    """Set HOME to / if the user's home folder is unknown: Ray and MLflow look it up as they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"

"""Folders on this machine's own disk for what nobody needs afterwards; those that killed processes left are removed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX, ALIVE = "harness-", "alive.lock"
YOUNG = 60.0  # seconds before a folder may be taken for left behind: it may not be locked yet


@contextlib.contextmanager
def folder(kind: str) -> Iterator[Path]:
    """One of this process, named after its kind, for as long as the context lasts. A lock in it, which the system
    lets go when the process ends in whatever way, says that somebody needs it."""
    sweep()
    made = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{kind}-", ignore_cleanup_errors=True)
    with made as name, FileLock(Path(name, ALIVE)):
        yield Path(name)


def sweep() -> None:
    """Remove what processes left that did not live to do it themselves."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*/{ALIVE}"):
        with contextlib.suppress(OSError, Timeout):  # another user's, or another's who sweeps too, or still needed
            if time.time() - left.stat().st_mtime > YOUNG:
                with FileLock(left, timeout=0):
                    shutil.rmtree(left.parent, ignore_errors=True)

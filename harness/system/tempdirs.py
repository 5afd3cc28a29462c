"""Folders on this machine's own disk for what nobody needs afterwards; those that killed processes left are removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from harness.types import HarnessError

PREFIX, ALIVE = "harness-", "alive.lock"
YOUNG = 60.0  # seconds before a folder may be taken for left behind: it may not be locked yet
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # where a path may be short although TMPDIR's is long
RANDOM = 8  # characters that `tempfile` adds to a name


@contextlib.contextmanager
def folder(kind: str, longest: int | None = None) -> Iterator[Path]:
    """One of this process, named after its kind, for as long as the context lasts; nobody else may look into it. A lock
    in it, which the system lets go when the process ends in whatever way, says that somebody needs it.

    `longest`: bytes that its path may have; the folder is made elsewhere if that of TMPDIR is too long.
    """
    above = root() if longest is None else short_root(longest - added(kind))
    sweep(above)
    made = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{kind}-", dir=above, ignore_cleanup_errors=True)
    try:
        with made as name, FileLock(Path(name, ALIVE)):
            yield Path(name)
    finally:
        _gone(Path(made.name))


def added(kind: str) -> int:
    """Bytes by which the path of a folder of this kind is longer than that of the folder above."""
    return len(f"/{PREFIX}{kind}-") + RANDOM


def _gone(path: Path) -> None:
    """Remove what a process that was just ending has written again."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)


def root() -> Path:
    """TMPDIR, or where Python puts temporary files if that is not usable. Raises HarnessError if nothing is."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise HarnessError("No folder for temporary files can be written; name one with TMPDIR.") from error


def short_root(longest: int) -> Path:
    """The first usable folder whose path has at most so many bytes: RAY_TMPDIR, TMPDIR, or one of `SHORT`. Raises
    HarnessError if there is none."""
    for path in (os.environ.get("RAY_TMPDIR"), root(), os.environ.get("XDG_RUNTIME_DIR"), *SHORT):
        if path and (found := Path(path).absolute()) and unfit(found, longest) == "":
            return found
    raise HarnessError(
        f"Ray's sockets need a folder that can be written and whose path has at most {longest} bytes, and there is "
        f"none; name one with RAY_TMPDIR. {root()} has {len(os.fsencode(root()))}."
    )


def unfit(path: Path, longest: int) -> str:
    """Why a folder cannot hold Ray's sockets, in words; "" if it can."""
    if (length := len(os.fsencode(path.absolute()))) > longest:
        return f"its path has {length} bytes, and Ray's sockets allow {longest}"
    return "" if writable(path) else "it is no folder that can be written"


def writable(path: Path) -> bool:
    """Whether files can be made in a folder; the one that is made to see has no name where the system knows such."""
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def sweep(above: Path | None = None) -> None:
    """Remove what processes of this user left in a folder (None: in `root`) that did not live to do it themselves."""
    for left in (above or root()).glob(f"{PREFIX}*-*/{ALIVE}"):
        with contextlib.suppress(OSError, Timeout):  # another's who sweeps too, or still needed
            if _own(left.parent) and _own(left, stat.S_ISREG) and time.time() - left.stat().st_mtime > YOUNG:
                with FileLock(left, timeout=0):
                    shutil.rmtree(left.parent, ignore_errors=True)


def _own(path: Path, kind: Callable[[int], bool] = stat.S_ISDIR) -> bool:
    """Whether this is a folder, or a file, of this user's: on a shared machine others may put links there."""
    found = path.lstat()
    return found.st_uid == os.geteuid() and kind(found.st_mode)

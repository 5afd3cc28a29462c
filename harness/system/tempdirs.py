"""Temporary folders on local disk; leftovers of killed processes are swept."""

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
YOUNG = 60.0  # seconds before a folder can count as left behind: it may not be locked yet
SHORT = ("/tmp", "/var/tmp", "/dev/shm")  # short paths, in case that of TMPDIR is too long
RANDOM = 8  # characters that `tempfile` adds to a name


@contextlib.contextmanager
def folder(kind: str, longest: int | None = None) -> Iterator[Path]:
    """A private folder of this process, named after its kind, for the duration of the context. A lock file in it marks
    it as in use; the system releases the lock however the process ends.

    `longest`: max bytes of its path; if TMPDIR's is too long, the folder is created elsewhere.
    """
    above = root() if longest is None else short_root(longest - added(kind))
    sweep(above)
    temporary = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{kind}-", dir=above, ignore_cleanup_errors=True)
    try:
        with temporary as name, FileLock(Path(name, ALIVE)):
            yield Path(name)
    finally:
        _remove(Path(temporary.name))


def of_user(kind: str) -> Path:
    """The folder of this kind that all processes of this user share, created if missing.

    Its path is predictable, so another user could have made it, with links to this user's files in it. Raises
    HarnessError if it is not a folder of this user that only this user can write to.
    """
    path = root() / f"{PREFIX}{kind}-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise HarnessError(f"{path} is not a private folder of this user. Remove it, or set TMPDIR to another one.")
    return path


def added(kind: str) -> int:
    """Bytes that a folder of this kind adds to the path of its parent."""
    return len(f"/{PREFIX}{kind}-") + RANDOM


def _remove(path: Path) -> None:
    """Remove a folder, retrying while an ending process still writes to it."""
    for _ in range(20):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.1)


def root() -> Path:
    """TMPDIR, or Python's default for temporary files. Raises HarnessError if none is usable."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise HarnessError("No folder for temporary files is writable; set TMPDIR.") from error


def short_root(longest: int) -> Path:
    """The first usable folder whose path has up to `longest` bytes: RAY_TMPDIR, TMPDIR, XDG_RUNTIME_DIR or one of
    `SHORT`. Raises HarnessError if there is none."""
    for path in (os.environ.get("RAY_TMPDIR"), root(), os.environ.get("XDG_RUNTIME_DIR"), *SHORT):
        if path and (candidate := Path(path).absolute()) and unfit(candidate, longest) == "":
            return candidate
    raise HarnessError(
        f"Ray's sockets need a writable folder whose path has at most {longest} bytes, but none was found; set "
        f"RAY_TMPDIR to one. The path {root()} has {len(os.fsencode(root()))} bytes."
    )


def unfit(path: Path, longest: int) -> str:
    """The reason why a folder cannot hold Ray's sockets; "" if it can."""
    if (length := len(os.fsencode(path.absolute()))) > longest:
        return f"its path has {length} bytes, and Ray's sockets allow {longest}"
    return "" if writable(path) else "it is not a writable folder"


def writable(path: Path) -> bool:
    """Whether files can be created in a folder. The test file is unnamed if the system supports that."""
    try:
        with tempfile.TemporaryFile(dir=path):
            return True
    except OSError:
        return False


def sweep(above: Path | None = None) -> None:
    """Remove folders that killed processes of this user left in `above` (default: `root`)."""
    for lock in (above or root()).glob(f"{PREFIX}*-*/{ALIVE}"):
        with contextlib.suppress(OSError, Timeout):  # swept by another process, or still in use
            if _is_ours(lock.parent) and _is_ours(lock, stat.S_ISREG) and time.time() - lock.stat().st_mtime > YOUNG:
                with FileLock(lock, timeout=0):
                    shutil.rmtree(lock.parent, ignore_errors=True)


def _is_ours(path: Path, kind: Callable[[int], bool] = stat.S_ISDIR) -> bool:
    """Whether a folder, or file, belongs to this user: on a shared machine others may put links there."""
    status = path.lstat()
    return status.st_uid == os.geteuid() and kind(status.st_mode)

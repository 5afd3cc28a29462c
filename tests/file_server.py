"""A web server on the loopback that can misbehave, and the archives that tests let it serve."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import cast


class Server(ThreadingHTTPServer):
    """Serves `bodies` by path. `asked` keeps (path, Range). `breaks`: path -> bytes sent before the line is cut.
    `versions`: path -> headers that name the version, which If-Range is held against unless `lies`. `moods`: path ->
    what is done in place of an answer. `over` is set at the end, for those who stall till then."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.breaks: dict[str, list[int]] = {}
        self.asked: list[tuple[str, str]] = []
        self.moods: dict[str, Callable[[Handler], None]] = {}
        self.over = threading.Event()
        self.versions: dict[str, dict[str, str]] = {}
        self.knows_ranges, self.lies = True, False

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, wanted = cast(Server, self.server), self.headers.get("Range", "")
        server.asked.append((self.path, wanted))
        if self.path in server.moods:
            return server.moods[self.path](self)
        body = server.bodies.get(self.path)
        if body is None:
            return self.send_error(404)
        version = server.versions.get(self.path, {})
        holds = server.lies or self.headers.get("If-Range", "") in ("", *version.values())
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.knows_ranges and holds else 0
        if start >= len(body):
            return self.head(416, Content_Range=f"bytes */{len(body)}", Content_Length="0")
        kind = "text/html" if self.path.endswith("/") else "application/octet-stream"
        piece = {"Content_Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        length = str(len(body) - start)
        self.head(206 if start else 200, Content_Length=length, Content_Type=kind, **piece, **version)
        cuts = server.breaks.get(self.path)
        self.wfile.write(body[start : start + cuts.pop(0)] if cuts else body[start:])

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers until the block ends."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.over.set()
        server.shutdown()


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def left(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if not file.name.endswith(".lock"))


def make_tar(members: dict[str, bytes], *links: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, body in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(info)
    return buffer.getvalue()


def make_zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return buffer.getvalue()

"""Segments of the ledger: one append-only file per process, written and read.

A line is ``{"kind": ..., "seq": ..., "time": ..., <fields>, "crc": "<8 hex>"}``; the checksum covers the text before
its own key, `seq` counts the lines of the file. Changed and lost lines are both detected.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from harness.system import failpoints, files
from harness.types import HarnessError, Json

DURABLE = {
    "launched",
    "started",
    "opened",
    "ended",
    "voided",
    "decided",
    "finished",
}  # synced to disk before the bench continues
EPOCH = b'{"kind":"epoch",'
CHUNK = 2**22  # bytes read at a time
GAP = 2**14  # bytes between two lines that are read together
NEAR = 1000  # lines that are read together
_CLOSING = b',"crc":"%08x"}'
TAIL = len(_CLOSING % 0)
_FAR = 64  # leading bytes of a line that contain its number


def segment_files(home: Path) -> list[Path]:
    """Return the segments of a home, oldest first. Raises HarnessError if its ledger cannot be listed, which
    `Path.glob` would hide."""
    folder = home / "ledger"
    with _readable(folder):
        return sorted(path for path in folder.iterdir() if path.suffix == ".jsonl") if folder.is_dir() else []


def tail(path: Path, offset: int | None) -> Iterator[bytes]:
    """Yield the whole lines of a segment from an offset on; none if it is None. Raises HarnessError if the file cannot
    be read."""
    if offset is None:
        return
    with _readable(path), path.open("rb") as file:
        file.seek(offset)
        yield from filter(whole, (line.rstrip(b"\n") for line in file))


class Segment:
    """The writer of one process's file, opened on the first event.

    Its name begins with the UTC time, or with a time after every existing name: the newest launch of a home stays the
    newest when the clock goes back.
    """

    def __init__(self, home: Path) -> None:
        folder = home / "ledger"
        self.run = f"{files.next_stamp(folder)}-{uuid.uuid4().hex[:8]}"
        self.path = folder / f"{self.run}.jsonl"
        self._file = None
        self._seq = self._size = 0
        self.last = FileOffset(self.path, 0, 0)  # place of the last event

    def append(self, kind: str, **fields: Any) -> Json:
        """Write one event and return it. Durable kinds are synced to disk before this returns.

        Raises HarnessError if the disk refuses the event; the file then ends with the last whole line.
        """
        event = {"kind": kind, "seq": self._seq, "time": round(time.time(), 3), **fields}
        try:
            self._write(sealed(event) + b"\n", kind in DURABLE)
        except OSError as error:
            raise files.unwritable(f"The ledger {self.path}", error) from error
        self._seq += 1
        return event

    def _write(self, line: bytes, durable: bool) -> None:
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab", buffering=0)
            files.sync_folder(self.path.parent)
        if failpoints.due("append"):
            self._file.write(line[: len(line) // 2])
            failpoints.die()
        try:
            left = memoryview(line)
            while left:  # a disk that fills up accepts a part and refuses the rest
                left = left[self._file.write(left) :]
            if durable:
                os.fsync(self._file.fileno())  # a quota may be found exceeded only here
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.truncate(self._size)
            raise
        self.last = FileOffset(self.path, self._size, len(line) - 1)
        self._size += len(line)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class Damage:
    """A line that cannot be read. `lost`: number of events missing before the line, which is whole itself."""

    file: str
    line: int
    torn: bool = False  # the unfinished last line of a killed process: expected, harmless
    lost: int = 0

    def __str__(self) -> str:
        fault = "torn last line (its process was killed in mid-write)" if self.torn else "damaged line"
        fault = f"{self.lost} event(s) before this line are missing" if self.lost else fault
        return f"{self.file}:{self.line}: {fault}"


class FileOffset(NamedTuple):
    """The position of a line on disk."""

    path: Path
    offset: int
    length: int

    def line(self) -> bytes:
        """Read the line, without its newline."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            os.lseek(handle, self.offset, os.SEEK_SET)
            return os.read(handle, self.length)
        finally:
            os.close(handle)

    def event(self) -> Json:
        """Read the event. Raises HarnessError if the line has changed since it was located."""
        event = parse(self.line())
        if event is None:
            raise changed(self.path)
        return event


def lines_at(path: Path, places: Sequence[tuple[int, int]]) -> list[bytes]:
    """Read the lines of a file at several (offset, length), near ones together.

    Raises HarnessError if a line has changed since it was located.
    """
    found = [b""] * len(places)
    order = sorted(range(len(places)), key=places.__getitem__)
    with path.open("rb", buffering=0) as file:
        start, block = 0, b""
        for at, place in enumerate(order):
            offset, length = places[place]
            if offset + length > start + len(block):
                end = offset + length
                for later in order[at + 1 : at + NEAR]:
                    after, more = places[later]
                    if after - end > GAP or after + more - offset > CHUNK:
                        break
                    end = max(end, after + more)
                start, block = offset, os.pread(file.fileno(), end - offset, offset)
            line = block[offset - start : offset - start + length]
            if not whole(line):
                raise changed(path)
            found[place] = line
    return found


def changed(path: Path) -> HarnessError:
    return HarnessError(f"{path} changed while it was read; rerun the command.")


def sealed(event: Json) -> bytes:
    """Return an event as a line with its checksum, without a newline."""
    body = json.dumps(event, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return body + _CLOSING % zlib.crc32(body)


def whole(line: bytes) -> bool:
    """Whether a line (without its newline) matches its checksum."""
    return line[-TAIL:] == _CLOSING % zlib.crc32(line[:-TAIL])


def parse(line: bytes) -> Json | None:
    """Return the event of a line, or None if the line does not match its checksum."""
    try:
        return json.loads(line[:-TAIL] + b"}") if whole(line) else None
    except ValueError:
        return None


class SegmentReader:
    """The reader of one segment. `lines` continues where the last call stopped: segments only grow."""

    def __init__(self, path: Path) -> None:
        self.path, self.run = path, path.stem
        self.offset = 0  # bytes of whole lines read so far
        self.checksum = 0  # CRC-32 of these bytes
        self._count = self._expected = 0

    def size(self) -> int:
        """Bytes of the file. Raises HarnessError if it cannot be read."""
        with _readable(self.path):
            return self.path.stat().st_size

    @property
    def state(self) -> tuple[int, int, int, int]:
        """Bytes read and their CRC-32, the lines read, and the number of the next event."""
        return self.offset, self.checksum, self._count, self._expected

    def resume(self, state: tuple[int, int, int, int]) -> bool:
        """Continue from the `state` of another reader; False if the bytes that it read are no longer the same.

        Raises HarnessError if the file cannot be read.
        """
        left, checksum, block = state[0], 0, memoryview(bytearray(min(CHUNK, max(state[0], 1))))
        with _readable(self.path), self.path.open("rb", buffering=0) as file:
            while left and (size := file.readinto(block[: min(left, len(block))])):
                checksum, left = zlib.crc32(block[:size], checksum), left - size
        if left or checksum != state[1]:
            return False
        self.offset, self.checksum, self._count, self._expected = state
        return True

    def lines(self) -> Iterator[tuple[bytes, FileOffset] | Damage]:
        """Yield new whole lines with their positions, without epoch events, and damages in between.

        A last line without a newline is yielded if it is whole; otherwise it is torn and read again next time.
        Raises HarnessError if the file cannot be read.
        """
        with _readable(self.path), self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == self.offset:  # a network file system answers `stat` from a cache
                return
            file.seek(self.offset)
            rest = b""
            while block := file.read(CHUNK):
                block = rest + block
                end = block.rfind(b"\n") + 1
                rest = block[end:]
                yield from self._taken(block[:end])
        if rest and whole(rest):
            checksum = zlib.crc32(rest, self.checksum)
            yield from self._taken(rest + b"\n")
            self.offset, self.checksum = self.offset - 1, checksum
        elif rest:
            yield Damage(self.path.name, self._count + 1, torn=True)

    def _taken(self, block: bytes) -> Iterator[tuple[bytes, FileOffset] | Damage]:
        """Yield the lines of a block of whole lines; skipped epoch events are only counted."""
        lines = block.split(b"\n")[:-1]
        ends = list(accumulate(map(len, lines)))  # without the newlines
        wanted = [i for i, line in enumerate(lines) if not line.startswith(EPOCH)]
        before, ahead = self._count, self._expected  # at the start of this block
        for i in wanted:
            line = lines[i]
            if not line:  # not written by us
                before, ahead = before - 1, ahead - 1
            elif not whole(line):
                yield Damage(self.path.name, before + i + 1)
            else:
                expected = ahead + i
                if line.find(b'"seq":%d,' % expected, 0, _FAR) < 0 and (seq := _seq(line)) != expected:
                    yield Damage(self.path.name, before + i + 1, lost=abs(seq - expected))
                    ahead += seq - expected
                yield line, FileOffset(self.path, self.offset + ends[i] - len(line) + i, len(line))
        self._count, self._expected = before + len(lines), ahead + len(lines)
        self.offset += len(block)
        self.checksum = zlib.crc32(block, self.checksum)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of the disk into a HarnessError."""
    try:
        yield
    except OSError as error:
        raise HarnessError(f"The ledger {path} cannot be read: {error.strerror}.") from error


def _seq(line: bytes) -> int:
    """Return the sequence number of a whole line."""
    at = line.index(b'"seq":') + 6
    return int(line[at : line.index(b",", at)])

"""Index of a segment: its trials in columns and its other events, in ``cache/ledger/<segment>.index``.

Without indexes, opening a large ledger parses every start and end of a trial; with them, it computes one checksum per
segment. An index holds for the beginning of a segment with the recorded size and CRC-32; the rest is read from the
segment. It is disposable: an index that is missing, damaged or of another version is ignored and rewritten.

The file: CRC-32 of the rest in eight hex digits, a line of JSON that describes it, and the columns as raw bytes.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any

from harness.record import lines
from harness.record.entries import FACTS, WORDS
from harness.record.segments import Damage, FileOffset, SegmentReader, parse
from harness.system import failpoints, files
from harness.types import Json

FORMAT = 1  # increase if `lines`, `RowsBuilder` or the file change what an index contains
LEAST = 2**20  # bytes of a segment that are worth an index
STALE = 8  # an index is rewritten if it lacks more than this fraction of its segment, and more than `LEAST` bytes
TYPES = FACTS | dict.fromkeys(WORDS, "i")
CHANGING = ("started", "ended", "voided", "epoch")  # events that change the state of a trial


@dataclass
class SegmentRows:
    """What the beginning of a segment records, without epoch events.

    ``ids``, ``columns``: the trials that it started once, then ended at most once and did not touch otherwise, by the
    place of their start. ``rest``: offset and text of all other lines. ``state``: of the reader behind them.
    """

    ids: list[str] = field(default_factory=list)
    columns: dict[str, array[Any]] = field(default_factory=lambda: {name: array(code) for name, code in TYPES.items()})
    words: list[str] = field(default_factory=lambda: [""])
    rest: list[tuple[int, bytes]] = field(default_factory=list)
    damages: list[tuple[int, int]] = field(default_factory=list)  # line and number of lost events before it
    state: tuple[int, int, int, int] = (0, 0, 0, 0)

    def parts(self) -> Iterator[tuple[int, int, tuple[int, bytes] | None]]:
        """Yield each other line behind the range of the rows before it, and None behind the last rows."""
        at = 0
        for line in self.rest:
            stop = bisect_left(self.columns["start_at"], line[0], at)
            yield at, stop, line
            at = stop
        yield at, len(self.ids), None


class RowsBuilder:
    """Collect the rows of a segment, line by line."""

    def __init__(self) -> None:
        self.rows = SegmentRows()
        self._codes = {"": 0}
        self._row: dict[str, int | None] = {}  # None: all lines of this trial are in `rest`
        self._moved: list[FileOffset] = []  # lines of such trials that were columns before

    def add(self, line: bytes, place: FileOffset) -> None:
        """Take the next line."""
        if start := lines.start(line):
            if start.trial in self._row:
                self._keep(line, place, start.trial)
            else:
                self._start(start, place)
        elif end := lines.end(line):
            row = self._row.get(end.trial)
            if row is None or self.rows.columns["end_at"][row] >= 0:
                self._keep(line, place, end.trial)
            else:
                self._end(row, end, place)
        else:
            event = parse(line) or {}
            self._keep(line, place, event.get("id") if event.get("kind") in CHANGING else None)

    def _start(self, start: lines.Start, place: FileOffset) -> None:
        self._row[start.trial] = len(self.rows.ids)
        self.rows.ids.append(start.trial)
        values = {"number": start.number, "time": start.time, "start_at": place.offset, "start_length": place.length}
        values |= {"study": self._code(start.study), "role": self._code(start.role), "end_at": -1}
        for name, column in self.rows.columns.items():
            column.append(values.get(name, 0))

    def _end(self, row: int, end: lines.End, place: FileOffset) -> None:
        values = {"ended": end.time, "best": end.best, "seconds": end.seconds, "trained": end.epochs}
        values |= {"status": self._code(end.status), "reason": self._code(end.reason)}
        for name, value in (values | {"end_at": place.offset, "end_length": place.length}).items():
            self.rows.columns[name][row] = value

    def _keep(self, line: bytes, place: FileOffset, trial: str | None) -> None:
        """Keep a line as it is, with all lines of the trial that it changes."""
        self.rows.rest.append((place.offset, line))
        if trial is not None and (row := self._row.get(trial)) is not None:
            self._row[trial] = None
            for what in ("start", "end"):
                at, length = (self.rows.columns[f"{what}_{name}"][row] for name in ("at", "length"))
                self._moved += [FileOffset(place.path, at, length)] if at >= 0 else []

    def _code(self, word: str) -> int:
        if (code := self._codes.get(word)) is None:
            code = self._codes[word] = len(self.rows.words)
            self.rows.words.append(word)
        return code

    def finish(self, damages: list[Damage], state: tuple[int, int, int, int]) -> SegmentRows:
        """Return the rows."""
        rows = self.rows
        if self._moved:
            kept = [self._row[trial] is not None for trial in rows.ids]
            rows.ids = list(compress(rows.ids, kept))
            rows.columns = {name: array(c.typecode, compress(c, kept)) for name, c in rows.columns.items()}
            rows.rest += [(place.offset, place.line()) for place in self._moved]
        rows.rest.sort()
        rows.damages, rows.state = [(damage.line, damage.lost) for damage in damages if not damage.torn], state
        return rows


def read(home: Path, reader: SegmentReader) -> SegmentRows | None:
    """Return the rows of a new reader's segment and move the reader behind them; None for a small segment.

    They are taken from the index or else from the segment, and then the index is written if possible.
    Raises HarnessError if the segment cannot be read.
    """
    path = home / "cache" / "ledger" / f"{reader.run}.index"
    size = reader.size()
    if size < LEAST:
        return None
    if (rows := load(path, reader, size)) is not None:
        return rows
    builder, damages = RowsBuilder(), []
    for line in reader.lines():
        if isinstance(line, Damage):
            damages.append(line)
        else:
            builder.add(*line)
    rows = builder.finish(damages, reader.state)
    with contextlib.suppress(OSError):
        save(path, reader.run, rows)
    return rows


def load(path: Path, reader: SegmentReader, size: int) -> SegmentRows | None:
    """Return the rows of an index and move `reader` behind them; None unless the index is intact, of this version, of
    nearly all of the `size` bytes of the segment, and these are unchanged."""
    try:
        data = path.read_bytes()
        if int(data[:8], 16) != zlib.crc32(memoryview(data)[8:]):
            return None
        file = io.BytesIO(data)
        file.seek(8)
        about = json.loads(file.readline())
        if not _origin(reader.run).items() <= about.items() or size - about["state"][0] > max(LEAST, size // STALE):
            return None
        rows = SegmentRows(words=about["words"], state=tuple(about["state"]))
        rows.damages = [(line, lost) for line, lost in about["damages"]]
        for column in rows.columns.values():
            column.frombytes(file.read(about["trials"] * column.itemsize))
        rows.ids = file.read(about["ids"]).decode().split()
        rows.rest = [(offset, file.read(length)) for offset, length in about["rest"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return rows if reader.resume(rows.state) else None


def save(path: Path, run: str, rows: SegmentRows) -> None:
    """Write an index atomically. Raises OSError if that is not possible."""
    ids = "\n".join(rows.ids).encode()
    about = _origin(run) | {"trials": len(rows.ids), "ids": len(ids), "words": rows.words, "damages": rows.damages}
    about |= {"rest": [(offset, len(line)) for offset, line in rows.rest], "state": rows.state}
    parts = [json.dumps(about).encode() + b"\n", *rows.columns.values(), ids, *(line for _, line in rows.rest)]
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    with files.atomic(path) as temporary, temporary.open("wb") as file:
        file.write(b"%08x" % checksum)
        for part in parts:
            file.write(part)
            failpoints.reach("index")


def _origin(run: str) -> Json:
    """Return the facts of an index that must be those of its reader."""
    types = " ".join(f"{name}:{code}{array(code).itemsize}" for name, code in TYPES.items())
    return {"format": FORMAT, "segment": run, "order": sys.byteorder, "types": types}

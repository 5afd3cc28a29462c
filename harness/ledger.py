"""The truth: append-only events on disk, one segment a process, one JSON event a line.

A line is ``{"kind": ..., "seq": ..., "time": ..., <fields>, "crc": "<8 hex>"}``; the checksum covers the text before
its own key. The ledger is the union of the segments of `ledger/`: merging two homes is copying files. A torn last
line costs that line alone; a damaged line inside is reported by file and number and never taken for "nothing was
done".
"""

from __future__ import annotations

import json
import os
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.types import HarnessError, Trial, TrialResult

SCHEMA = 1
DURABLE = {
    "launched",
    "started",
    "opened",
    "ended",
    "decided",
    "finished",
}  # synced to the disk before anything goes on
_MARK = ',"crc":"'


class Segment:
    """The writing end: one process, one file. Opened on the first event."""

    def __init__(self, home: Path) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.run = f"{stamp}-{uuid.uuid4().hex[:8]}"
        self.path = home / "ledger" / f"{self.run}.jsonl"
        self._file = None
        self._seq = 0

    def append(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Write one event; on return it is on the disk if its kind is a durable one. Returns the event.

        Raises HarnessError if the disk refuses it.
        """
        event = {"kind": kind, "seq": self._seq, "time": round(time.time(), 3), **fields}
        body = json.dumps(event, separators=(",", ":"), allow_nan=False)[:-1]
        line = f'{body}{_MARK}{zlib.crc32(body.encode()):08x}"}}\n'
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            self._file.write(line.encode())
            if kind in DURABLE:
                os.fsync(self._file.fileno())
        except OSError as error:
            raise HarnessError(f"The ledger {self.path} cannot be written: {error.strerror}.") from error
        self._seq += 1
        return event

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass(frozen=True)
class Damage:
    """A line that could not be read back."""

    file: str
    line: int
    torn: bool  # the unfinished last line of a killed process: expected, harmless

    def __str__(self) -> str:
        what = "torn last line (its process was killed in mid-write)" if self.torn else "damaged line"
        return f"{self.file}:{self.line}: {what}"


def parse(line: bytes) -> dict[str, Any] | None:
    """The event of a line, or None if the line is not what was written."""
    body, mark, tail = line.rpartition(_MARK.encode())
    if not mark or len(tail) != 10 or tail[8:] != b'"}':
        return None
    try:
        if zlib.crc32(body) != int(tail[:8], 16):
            return None
        return json.loads(body + b"}")
    except ValueError:
        return None


def read(path: Path, skip: frozenset[str] = frozenset()) -> Iterator[dict[str, Any] | Damage]:
    """Events of one segment in order, and damages where they stand. Kinds in `skip` are passed over unread."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    tail = lines.pop()  # empty if the last line is whole
    prefixes = tuple(f'{{"kind":"{kind}",'.encode() for kind in skip)
    for number, line in enumerate(lines, 1):
        if not line or (prefixes and line.startswith(prefixes)):
            continue
        yield parse(line) or Damage(path.name, number, torn=False)
    if tail:
        yield parse(tail) or Damage(path.name, len(lines) + 1, torn=True)


@dataclass
class Entry:
    """What the ledger knows of one trial."""

    trial: Trial
    run: str  # the segment that ended it, or else started it last
    number: int  # its place in the cell's search, or its seed's place in the confirmation
    result: TrialResult | None = None  # None: started, not ended
    starts: int = 0
    time: float = 0.0  # of its last start
    ended: float = 0.0  # of its end
    epochs: int = 0  # seen so far, from epoch events (only if they were read)


@dataclass
class Ledger:
    """The union of all segments, read once.

    ``trials``: by id. ``studies``: study id -> search number -> trial id. ``winners``: study id -> decided event,
    the newest. ``launches``: run -> launch event. ``opened``: trial id -> how often its test was handed out.
    """

    trials: dict[str, Entry] = field(default_factory=dict)
    studies: dict[str, dict[int, str]] = field(default_factory=dict)
    winners: dict[str, dict[str, Any]] = field(default_factory=dict)
    launches: dict[str, dict[str, Any]] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)

    @classmethod
    def open(cls, home: Path, *, epochs: bool = False) -> Ledger:
        """Read every segment of a home. `epochs` also reads the per-epoch events (for `status`).

        Raises HarnessError for a segment that a newer harness wrote.
        """
        ledger = cls()
        skip = frozenset() if epochs else frozenset({"epoch"})
        for path in sorted((home / "ledger").glob("*.jsonl")):
            for event in read(path, skip):
                if isinstance(event, Damage):
                    ledger.damages.append(event)
                else:
                    ledger.take(path.stem, event)
        return ledger

    def take(self, run: str, event: dict[str, Any]) -> None:
        """Account for one event; events of unknown kind are passed over, so that older readers go on."""
        kind = event["kind"]
        if kind == "launched":
            if event["schema"] > SCHEMA:
                raise HarnessError(
                    f"ledger/{run}.jsonl was written by a newer harness (ledger schema {event['schema']}, "
                    f"this one reads up to {SCHEMA}); update harness."
                )
            self.launches[run] = event
        elif kind == "started":
            entry = self.trials.get(event["id"])
            if entry is None:
                entry = self.trials[event["id"]] = Entry(Trial.from_json(event["trial"]), run, event["number"])
            entry.starts += 1
            entry.epochs = 0
            if entry.result is None:
                entry.run, entry.time = run, event["time"]
            if entry.trial.role == "search":
                self.studies.setdefault(event["study"], {})[event["number"]] = event["id"]
        elif kind == "opened":
            self.opened[event["id"]] = self.opened.get(event["id"], 0) + 1
        elif kind == "epoch":
            if entry := self.trials.get(event["id"]):
                entry.epochs = event["epoch"] + 1
        elif kind == "ended":
            entry = self.trials.get(event["id"])
            if entry is not None:
                entry.result, entry.run, entry.ended = TrialResult(**event["result"]), run, event["time"]
        elif kind == "decided":
            self.winners[event["study"]] = event
        elif kind == "finished":
            self.finished[run] = event

    def places(self, trial_id: str) -> list[tuple[str, int]]:
        """(study, number) pairs under which a trial was searched."""
        return [(s, n) for s, known in self.studies.items() for n, i in known.items() if i == trial_id]

    def result(self, trial_id: str) -> TrialResult | None:
        """The result of a trial that ended, else None."""
        entry = self.trials.get(trial_id)
        return entry.result if entry else None

    def history(self, study: str, trials: int) -> dict[int, tuple[str, TrialResult | None]]:
        """Search number -> (trial id, its result or None) of a study's first `trials` numbers, as far as started."""
        known = self.studies.get(study, {})
        return {n: (i, self.result(i)) for n, i in sorted(known.items()) if n < trials}

    def affordable(self, study: str, trials: int, seconds: float | None) -> int:
        """How many trials a search of at most `trials` holds: up to the first number before which its trials have spent
        the seconds. By number, so that it is the same search on any number of slots; a trial counts once."""
        if seconds is None:
            return trials
        spent, counted, known = 0.0, set(), self.history(study, trials)
        for number in range(trials):
            if number and spent >= seconds:
                return number
            if number not in known:
                return trials
            trial_id, result = known[number]
            if result is not None and trial_id not in counted:
                counted.add(trial_id)
                spent += result.info.get("seconds", 0.0)
        return trials

    def planned(self, described: dict[str, Any]) -> int:
        """Search trials of a study as a launch event describes it."""
        return self.affordable(described["study"], described["trials"], described.get("cell_seconds"))

    def winner(self, study: str, trials: int) -> Trial | None:
        """The best finished trial (first of equals) of a study's first `trials`; None while they are not all ended,
        or if none is `done`. So a longer search can always be cut back to a shorter one."""
        history = self.history(study, trials)
        if sum(result is not None for _, result in history.values()) < trials:
            return None
        done = [(r.best, -n, i) for n, (i, r) in history.items() if r is not None and r.status == "done"]
        return self.trials[max(done)[2]].trial if done else None


def started(segment: Segment, trial: Trial, study: str, number: int) -> dict[str, Any]:
    return segment.append("started", id=trial.id, study=study, number=number, trial=trial.to_json())


def opened(segment: Segment, trial: Trial) -> dict[str, Any]:
    """The test is handed to a confirming trial: an event of its own, so that a second opening cannot be hidden."""
    return segment.append("opened", id=trial.id)


def ended(segment: Segment, trial_id: str, result: TrialResult) -> dict[str, Any]:
    return segment.append("ended", id=trial_id, result=asdict(result))

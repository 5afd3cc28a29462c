"""The ledger: append-only events on disk, one segment per process, one JSON event per line (see `segments`).

The ledger is the union of the segments in `ledger/`, so homes are merged by copying files. A torn last line loses only
that line. A damaged line elsewhere is reported by file and number and never mistaken for work that was not done.

Opening a ledger checks every line but parses few: regular expressions take the fields that planning needs from the
starts and ends of trials, and the rest is read from disk on demand (benchmarks/results/ledger.md).
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from sys import intern
from typing import Any, cast

from harness.record import ensembles
from harness.record.launches import SCHEMA, LaunchRecord, StudyRecord
from harness.record.segments import Damage, FileOffset, Segment, SegmentReader, parse
from harness.types import HarnessError, Json, Role, Status, Trial, TrialResult

_STARTED = re.compile(
    rb'\{"kind":"started","seq":\d+,"time":([\d.]+),"id":"(\w+)","study":"(\w*)","number":(\d+),'
    rb'"trial":\{"cell":\{[^{}]*\},"role":"(\w+)",'
)
_ENDED = re.compile(
    rb'\{"kind":"ended","seq":\d+,"time":([\d.]+),"id":"(\w+)","result":'
    rb'\{"status":"(\w+)","reason":("(?:[^"\\]|\\.)*"),"best":(-?[\d.]+(?:[eE][-+]?\d+)?),'
    rb'"best_epoch":-?\d+,"curve":\[([^\]]*)\],'
)
_EPOCH = re.compile(rb'\{"kind":"epoch","seq":\d+,"time":[\d.]+,"id":"(\w+)","epoch":(\d+),')


class RecordedResult(TrialResult):
    """A result on disk. Status, reason and best are in memory; the other fields are read on first use."""

    def __init__(self, status: Status, reason: str, best: float, place: FileOffset) -> None:
        self.status, self.reason, self.best, self._place = status, reason, best, place

    def _read(self, name: str) -> Any:
        if "_rest" not in self.__dict__:
            self._rest = _result(self._place.event())
        return getattr(self._rest, name)


for _field in fields(TrialResult):
    if _field.name not in ("status", "reason", "best"):
        setattr(RecordedResult, _field.name, property(lambda self, name=_field.name: self._read(name)))


def _result(event: Json) -> TrialResult:
    """Return the result of an `ended` event; missing or null fields get their defaults."""
    return TrialResult(**{name: value for name, value in event["result"].items() if value is not None})


def _number(line: bytes, key: bytes, start: int) -> float | None:
    """Return the number that follows `key` (with quotes and colon) after `start`, or None."""
    at = line.find(key, start)
    if at < 1 or line[at - 1] not in b"{,":
        return None
    at += len(key)
    try:
        return float(line[at : line.find(b",", at)].rstrip(b"}"))
    except ValueError:
        return None


@dataclass(slots=True)
class TrialEntry:
    """The state of one trial."""

    source: Trial | FileOffset
    run: str  # segment that ended the trial, otherwise the last one that started it
    role: Role
    study: str
    number: int  # position in the search of its cell, or of its seed in the confirmation
    more: list[tuple[str, int]] | None = None  # further (study, number) pairs
    outcome: TrialResult | FileOffset | None = None
    status: Status | None = None  # None: started, not ended
    reason: str = ""
    best: float = 0.0
    seconds: float = 0.0  # spent training, validating and ranking (finished trials)
    trained: int = 0  # epochs (finished trials)
    starts: int = 0
    time: float = 0.0  # of the last start, by the clock of its machine
    ended: float = 0.0  # time of the end
    epochs: int = 0  # finished so far (only if epoch events were read)

    @property
    def trial(self) -> Trial:
        if isinstance(self.source, Trial):
            return self.source
        return Trial.from_json(self.source.event()["trial"])

    @property
    def result(self) -> TrialResult | None:
        """Return the result, or None if the trial has not ended."""
        if self.status is None or not isinstance(self.outcome, FileOffset):
            return self.outcome if isinstance(self.outcome, TrialResult) else None
        return RecordedResult(self.status, self.reason, self.best, self.outcome)

    def end(self, outcome: TrialResult) -> None:
        """Record the end of the trial."""
        self.outcome, self.status, self.reason, self.best = outcome, outcome.status, outcome.reason, outcome.best
        self.seconds = outcome.info.get("seconds", 0.0)
        self.trained = int(outcome.info.get("epochs", len(outcome.curve)))

    def end_at(self, place: FileOffset, line: bytes, start: re.Match[bytes]) -> None:
        """Record the end from an `ended` line whose beginning is `start`; the rest stays on disk."""
        _, _, status, reason, best, curve = start.groups()
        self.outcome, self.best = place, float(best)
        self.status = cast("Status", intern(status.decode()))
        self.reason = json.loads(reason) if len(reason) > 2 else ""
        info = line.rfind(b',"info":{')
        seconds, epochs = _number(line, b'"seconds":', info), _number(line, b'"epochs":', info)
        self.seconds = seconds or 0.0
        self.trained = curve.count(b",") + bool(curve) if epochs is None else int(epochs)


@dataclass
class Ledger:
    """The union of all segments.

    ``trials``: by id. ``studies``: study id -> search number -> trial id. ``winners``: study id -> newest `decided`
    event. ``launches``: run -> record. ``opened``: trial id -> number of times its test was opened.
    """

    trials: dict[str, TrialEntry] = field(default_factory=dict)
    studies: dict[str, dict[int, str]] = field(default_factory=dict)
    winners: dict[str, Json] = field(default_factory=dict)
    launches: dict[str, LaunchRecord] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    finished: dict[str, Json] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    home: Path | None = None
    foreign: int = 0  # lines of other processes read by `refresh`
    _sources: dict[str, SegmentReader] = field(default_factory=dict, repr=False)
    _facts: dict[str, dict[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)  # cached results, by study

    @classmethod
    def open(cls, home: Path, *, epochs: bool = False) -> Ledger:
        """Read every segment of a home. `epochs`: also read epoch events (for `status`).

        Raises HarnessError if a segment was written by a newer version or cannot be read.
        """
        ledger = cls(home=home)
        with _no_collection():
            ledger.damages = list(ledger._new("", epochs))
        return ledger

    def refresh(self, mine: str) -> None:
        """Read new lines of other processes; `mine` is the segment of this process, whose events are already here."""
        self.damages += [damage for damage in self._new(mine, False) if not damage.torn]

    def _new(self, mine: str, epochs: bool) -> Iterator[Damage]:
        """Read all new lines and yield the damages."""
        assert self.home is not None
        for path in sorted((self.home / "ledger").glob("*.jsonl")):
            run = path.stem
            if run == mine:
                continue
            source = self._sources.setdefault(run, SegmentReader(path))
            for line in source.lines(epochs):
                if isinstance(line, Damage):
                    yield line
                    continue
                self.foreign += bool(mine)
                if not self._take_line(run, *line):
                    self.take(run, cast("Json", parse(line[0])))

    def _take_line(self, run: str, line: bytes, place: FileOffset) -> bool:
        """Record a frequent event without parsing the whole line; False if it is of another kind."""
        if match := _STARTED.match(line):
            time, trial_id, name, number, role = match.groups()
            study = intern(name.decode())
            new = TrialEntry(place, run, cast("Role", intern(role.decode())), study, int(number), time=float(time))
            self._started(trial_id.decode(), new)
        elif match := _ENDED.match(line):
            if entry := self._ended(match[2].decode(), run, float(match[1])):
                entry.end_at(place, line, match)
        elif (match := _EPOCH.match(line)) and (entry := self.trials.get(match[1].decode())):
            entry.epochs = int(match[2]) + 1
        return match is not None

    def take(self, run: str, event: Json) -> None:
        """Record one event. Unknown kinds are ignored, so that older versions can read newer ledgers."""
        kind = event["kind"]
        if kind == "launched":
            if event["schema"] > SCHEMA:
                raise HarnessError(
                    f"ledger/{run}.jsonl was written by a newer harness (ledger schema {event['schema']}, "
                    f"this one reads up to {SCHEMA}); update harness."
                )
            self.launches[run] = LaunchRecord.from_json(event)
        elif kind == "started":
            trial = Trial.from_json(event["trial"])
            new = TrialEntry(trial, run, trial.role, event["study"], event["number"], time=event["time"])
            self._started(event["id"], new)
        elif kind == "opened":
            self.opened[event["id"]] = self.opened.get(event["id"], 0) + 1
        elif kind == "epoch":
            if entry := self.trials.get(event["id"]):
                entry.epochs = event["epoch"] + 1
        elif kind == "ended":
            if entry := self._ended(event["id"], run, event["time"]):
                entry.end(_result(event))
        elif kind == "voided":
            self._facts.clear()
            if entry := self.trials.get(event["id"]):
                entry.outcome = entry.status = None
        elif kind == "decided":
            self.winners[event["study"]] = event
        elif kind == "finished":
            self.finished[run] = event

    def _started(self, trial_id: str, new: TrialEntry) -> None:
        entry = self.trials.setdefault(trial_id, new)
        entry.starts += 1
        entry.epochs = 0
        if entry.status is None:
            entry.run, entry.time = new.run, new.time
        if entry.role != "search":
            return
        self._facts.pop(new.study, None)
        self.studies.setdefault(new.study, {})[new.number] = trial_id
        place = (new.study, new.number)
        if place != (entry.study, entry.number) and place not in (entry.more or []):
            entry.more = [*(entry.more or []), place]

    def _ended(self, trial_id: str, run: str, time: float) -> TrialEntry | None:
        """Note when a trial ended and return its entry, or None if its start is unknown."""
        if entry := self.trials.get(trial_id):
            entry.run, entry.ended = run, time
            if self._facts:
                for study, _ in [(entry.study, entry.number), *(entry.more or [])]:
                    self._facts.pop(study, None)
        return entry

    def _fact(self, study: str, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """Return a cached fact about a study; the cache is cleared when one of its trials starts or ends."""
        facts = self._facts.setdefault(study, {})
        if key not in facts:
            facts[key] = compute()
        return facts[key]

    @property
    def newest(self) -> str | None:
        """Name of the newest launch; names stay ordered when a clock goes back."""
        return max(self.launches, default=None)

    def extent(self) -> dict[str, int]:
        """Return the bytes read of each segment; for a segment of this process, its size."""
        read = {run: source.offset for run, source in self._sources.items()}
        mine = self.launches.keys() - read.keys()
        assert self.home is not None
        return read | {run: (self.home / "ledger" / f"{run}.jsonl").stat().st_size for run in sorted(mine)}

    def places(self, trial_id: str) -> list[tuple[str, int]]:
        """Return the (study, number) pairs under which a trial was searched."""
        entry = self.trials[trial_id]
        return [(entry.study, entry.number), *(entry.more or [])] if entry.role == "search" else []

    def result(self, trial_id: str) -> TrialResult | None:
        """Return the result of a trial, or None if it has not ended."""
        entry = self.trials.get(trial_id)
        return entry.result if entry else None

    def history(self, study: str, trials: int) -> dict[int, tuple[str, TrialResult | None]]:
        """Search number -> (trial id, result or None) of the started trials among a study's first `trials` numbers."""
        return {number: (i, entry.result) for number, i, entry in self.searched(study, trials)}

    def searched(self, study: str, trials: int) -> list[tuple[int, str, TrialEntry]]:
        """Number, trial id and entry of the started trials among a study's first `trials` numbers, by number."""
        numbers = self.studies.get(study, {})
        return [(number, i, self.trials[i]) for number, i in sorted(numbers.items()) if number < trials]

    def affordable(self, study: str, trials: int, seconds: float | None) -> int:
        """Return the number of trials of a search that stops once its trials have spent `seconds` (None: `trials`).

        Seconds are added up by search number, so the result does not depend on the number of slots; a trial that
        stands under several numbers counts once.
        """
        if seconds is None:
            return trials
        spent, counted, numbers = 0.0, set(), self.studies.get(study, {})
        for number in range(trials):
            if number and spent >= seconds:
                return number
            if number not in numbers:
                return trials
            if numbers[number] not in counted:
                counted.add(numbers[number])
                spent += self.seconds(numbers[number])
        return trials

    def seconds(self, trial_id: str) -> float:
        """Seconds a finished trial spent training, validating and ranking (0 while running)."""
        entry = self.trials.get(trial_id)
        return entry.seconds if entry and entry.status is not None else 0.0

    def planned(self, study: StudyRecord) -> int:
        """Search trials of a recorded study: fewer than it planned once the cell's seconds are spent."""
        return self.affordable(study.id, study.trials, study.cell_seconds)

    def confirmations(self, study: StudyRecord) -> list[str]:
        """Ids of the planned confirmations of a recorded study's winner; empty while it is undecided."""
        if study.parts:
            return [trial.id for trial in self.combined(study)]
        if study.confirm is not None:
            return list(study.confirm)
        return self.confirming(study.id, self.planned(study), study.seeds)

    def by_seed(self, study: StudyRecord) -> list[list[str]]:
        """`confirmations` by seed: one trial each or, with folds, one a fold, earliest first."""
        ids, folds = self.confirmations(study), max(study.folds, 1)
        return [ids[at : at + folds] for at in range(0, len(ids), folds)]

    def combined(self, study: StudyRecord) -> list[Trial]:
        """Trials of a recorded ensemble; empty until all confirmations of its parts are done."""
        ids = {part.cell.adapter: self.confirmations(part) for part in study.parts}
        entries = [self.trials.get(i) for part in ids.values() for i in part]
        if not all(ids.values()) or any(entry is None or entry.status != "done" for entry in entries):
            return []

        def combine() -> list[Trial]:
            parts = {name: [self.trials[i].trial for i in part] for name, part in ids.items()}
            return ensembles.trials(study.cell, parts, study.version)

        return self._fact(study.id, ("combined", *(i for part in ids.values() for i in part)), combine)

    def ended(self, study: str, trials: int) -> int:
        """Return how many of a study's first `trials` numbers have ended."""
        return self._fact(study, ("ended", trials), lambda: self._ended_of(study, trials))

    def _ended_of(self, study: str, trials: int) -> int:
        numbers = self.studies.get(study, {})
        return sum(n < trials and self.trials[i].status is not None for n, i in numbers.items())

    def winner(self, study: str, trials: int) -> Trial | None:
        """Return the best finished trial (the first of equals) of a study's first `trials` numbers.

        None until all of them have ended, or if none is `done`. A longer search can thus be cut to a shorter one.
        """
        return self._fact(study, ("winner", trials), lambda: self._winner(study, trials))

    def confirming(self, study: str, trials: int, seeds: int) -> list[str]:
        """Return the ids of the winner with seeds 1, 2, ..., each on every fold; empty without a winner."""
        winner = self.winner(study, trials)
        make = lambda: [trial.id for trial in winner.confirmations(seeds)] if winner else []  # noqa: E731
        return self._fact(study, ("confirming", trials, seeds), make)

    def _winner(self, study: str, trials: int) -> Trial | None:
        if self.ended(study, trials) < trials:
            return None
        entries = ((n, self.trials[i]) for n, i in self.studies.get(study, {}).items() if n < trials)
        done = [(entry.best, -n, entry) for n, entry in entries if entry.status == "done"]
        return max(done, key=lambda candidate: candidate[:2])[2].trial if done else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Switch garbage collection off while many objects are created of which none is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def started(segment: Segment, trial: Trial, study: str, number: int) -> Json:
    """Record the start of a trial."""
    return segment.append("started", id=trial.id, study=study, number=number, trial=trial.to_json())


def opened(segment: Segment, trial: Trial) -> Json:
    """Record that a confirming trial gets the test: a separate event, so that a second opening cannot be hidden."""
    return segment.append("opened", id=trial.id)


def ended(segment: Segment, trial_id: str, result: TrialResult) -> Json:
    """Record the end of a trial."""
    return segment.append("ended", id=trial_id, result=asdict(result))


def voided(segment: Segment, trial_id: str, reason: str) -> Json:
    """Record that a result no longer counts because its artifacts are lost; the trial will be rerun."""
    return segment.append("voided", id=trial_id, reason=reason)

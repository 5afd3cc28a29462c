"""The truth: append-only events on disk, one segment a process, one JSON event a line (`harness.record.segments`).

The ledger is the union of the segments of `ledger/`: merging two homes is copying files. A torn last line costs that
line alone; a damaged line inside is reported by file and number and never taken for "nothing was done".

Opening it checks every line but parses none of the many: of a trial's start and end only what planning asks for is
taken, and the rest is read from its place on disk when it is asked for.
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

from harness.record.launches import SCHEMA, LaunchRecord, StudyRecord
from harness.record.segments import Damage, FileOffset, Segment, SegmentReader, parse
from harness.types import HarnessError, Role, Status, Trial, TrialResult

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
    """A result on disk: status, reason and best are known, the rest is read when it is asked for."""

    def __init__(self, status: Status, reason: str, best: float, place: FileOffset) -> None:
        self.status, self.reason, self.best, self._place = status, reason, best, place

    def _read(self, name: str) -> Any:
        if "_rest" not in self.__dict__:
            self._rest = _result(self._place.event())
        return getattr(self._rest, name)


for _field in fields(TrialResult):
    if _field.name not in ("status", "reason", "best"):
        setattr(RecordedResult, _field.name, property(lambda self, name=_field.name: self._read(name)))


def _result(event: dict[str, Any]) -> TrialResult:
    """The result of an `ended` event; what it lacks, or holds as null, has its default."""
    return TrialResult(**{name: value for name, value in event["result"].items() if value is not None})


def _number(line: bytes, key: bytes, start: int) -> float | None:
    """The number under a key, with its quotes and colon, behind `start`; None if there is none."""
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
    """What the ledger knows of one trial."""

    source: Trial | FileOffset
    run: str  # the segment that ended it, or else started it last
    role: Role
    study: str
    number: int  # its place in the cell's search, or its seed's place in the confirmation
    more: list[tuple[str, int]] | None = None  # further (study, number) pairs
    outcome: TrialResult | FileOffset | None = None
    status: Status | None = None  # None: started, not ended
    reason: str = ""
    best: float = 0.0
    seconds: float = 0.0  # that it trained, validated and ranked, by its end
    trained: int = 0  # epochs, by its end
    starts: int = 0
    time: float = 0.0  # of its last start, by its machine's clock
    ended: float = 0.0  # of its end
    epochs: int = 0  # seen so far, from epoch events (only if they were read)

    @property
    def trial(self) -> Trial:
        if isinstance(self.source, Trial):
            return self.source
        return Trial.from_json(self.source.event()["trial"])

    @property
    def result(self) -> TrialResult | None:
        """None: started, not ended."""
        if self.status is None or not isinstance(self.outcome, FileOffset):
            return self.outcome if isinstance(self.outcome, TrialResult) else None
        return RecordedResult(self.status, self.reason, self.best, self.outcome)

    def end(self, outcome: TrialResult) -> None:
        self.outcome, self.status, self.reason, self.best = outcome, outcome.status, outcome.reason, outcome.best
        self.seconds = outcome.info.get("seconds", 0.0)
        self.trained = int(outcome.info.get("epochs", len(outcome.curve)))

    def end_at(self, place: FileOffset, line: bytes, found: re.Match[bytes]) -> None:
        """The same from an `ended` line, of which `found` is the beginning; the rest stays on disk."""
        _, _, status, reason, best, curve = found.groups()
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

    ``trials``: by id. ``studies``: study id -> search number -> trial id. ``winners``: study id -> decided event,
    the newest. ``launches``: run -> its record. ``opened``: trial id -> how often its test was handed out.
    """

    trials: dict[str, TrialEntry] = field(default_factory=dict)
    studies: dict[str, dict[int, str]] = field(default_factory=dict)
    winners: dict[str, dict[str, Any]] = field(default_factory=dict)
    launches: dict[str, LaunchRecord] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    finished: dict[str, dict[str, Any]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    home: Path | None = None
    foreign: int = 0  # lines that `refresh` has taken so far
    _sources: dict[str, SegmentReader] = field(default_factory=dict, repr=False)
    _facts: dict[str, dict[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)  # found so far, by study

    @classmethod
    def open(cls, home: Path, *, epochs: bool = False) -> Ledger:
        """Read every segment of a home. `epochs` also reads the per-epoch events (for `status`).

        Raises HarnessError for a segment that a newer harness wrote or that cannot be read.
        """
        ledger = cls(home=home)
        with _no_collection():
            ledger.damages = list(ledger._new("", epochs))
        return ledger

    def refresh(self, own: str) -> None:
        """Take what other processes have written since; `own` is the segment whose events were taken as they came."""
        self.damages += [damage for damage in self._new(own, False) if not damage.torn]

    def _new(self, own: str, epochs: bool) -> Iterator[Damage]:
        """Take every line that was not taken yet; gives what is damaged."""
        assert self.home is not None
        for path in sorted((self.home / "ledger").glob("*.jsonl")):
            run = path.stem
            if run == own:
                continue
            source = self._sources.setdefault(run, SegmentReader(path))
            for found in source.lines(epochs):
                if isinstance(found, Damage):
                    yield found
                    continue
                self.foreign += bool(own)
                if not self._take_line(run, *found):
                    self.take(run, cast("dict[str, Any]", parse(found[0])))

    def _take_line(self, run: str, line: bytes, place: FileOffset) -> bool:
        """Account for the usual events without parsing them whole. False if it is none of these."""
        if match := _STARTED.match(line):
            time, trial_id, name, number, role = match.groups()
            study = intern(name.decode())
            given = TrialEntry(place, run, cast("Role", intern(role.decode())), study, int(number), time=float(time))
            self._started(trial_id.decode(), given)
        elif match := _ENDED.match(line):
            if entry := self._ended(match[2].decode(), run, float(match[1])):
                entry.end_at(place, line, match)
        elif (match := _EPOCH.match(line)) and (entry := self.trials.get(match[1].decode())):
            entry.epochs = int(match[2]) + 1
        return match is not None

    def take(self, run: str, event: dict[str, Any]) -> None:
        """Account for one event; events of unknown kind are passed over, so that older readers go on."""
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
            given = TrialEntry(trial, run, trial.role, event["study"], event["number"], time=event["time"])
            self._started(event["id"], given)
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

    def _started(self, trial_id: str, given: TrialEntry) -> None:
        entry = self.trials.setdefault(trial_id, given)
        entry.starts += 1
        entry.epochs = 0
        if entry.status is None:
            entry.run, entry.time = given.run, given.time
        if entry.role != "search":
            return
        self._facts.pop(given.study, None)
        self.studies.setdefault(given.study, {})[given.number] = trial_id
        place = (given.study, given.number)
        if place != (entry.study, entry.number) and place not in (entry.more or []):
            entry.more = [*(entry.more or []), place]

    def _ended(self, trial_id: str, run: str, time: float) -> TrialEntry | None:
        """The entry of a trial that ended, its place in time noted; None if its start is not known."""
        if entry := self.trials.get(trial_id):
            entry.run, entry.ended = run, time
            if self._facts:
                for study, _ in [(entry.study, entry.number), *(entry.more or [])]:
                    self._facts.pop(study, None)
        return entry

    def _fact(self, study: str, key: tuple[Any, ...], find: Callable[[], Any]) -> Any:
        """What is known of a study, found once until one of its trials starts or ends."""
        known = self._facts.setdefault(study, {})
        if key not in known:
            known[key] = find()
        return known[key]

    @property
    def newest(self) -> str | None:
        """The name of the newest launch; names keep their order when a clock goes back."""
        return max(self.launches, default=None)

    def extent(self) -> dict[str, int]:
        """How many bytes of each segment are accounted for; of one that this process wrote, all there are."""
        read = {run: source.offset for run, source in self._sources.items()}
        own = self.launches.keys() - read.keys()
        assert self.home is not None
        return read | {run: (self.home / "ledger" / f"{run}.jsonl").stat().st_size for run in sorted(own)}

    def places(self, trial_id: str) -> list[tuple[str, int]]:
        """(study, number) pairs under which a trial was searched."""
        entry = self.trials[trial_id]
        return [(entry.study, entry.number), *(entry.more or [])] if entry.role == "search" else []

    def result(self, trial_id: str) -> TrialResult | None:
        """The result of a trial that ended, else None."""
        entry = self.trials.get(trial_id)
        return entry.result if entry else None

    def history(self, study: str, trials: int) -> dict[int, tuple[str, TrialResult | None]]:
        """Search number -> (trial id, its result or None) of a study's first `trials` numbers, as far as started."""
        return {number: (i, entry.result) for number, i, entry in self.searched(study, trials)}

    def searched(self, study: str, trials: int) -> list[tuple[int, str, TrialEntry]]:
        """Search number, trial id and entry of a study's first `trials` numbers, as far as started, in their order."""
        known = self.studies.get(study, {})
        return [(number, i, self.trials[i]) for number, i in sorted(known.items()) if number < trials]

    def affordable(self, study: str, trials: int, seconds: float | None) -> int:
        """How many trials a search of at most `trials` holds: up to the first number before which its trials have spent
        the seconds. By number, so that it is the same search on any number of slots; a trial counts once."""
        if seconds is None:
            return trials
        spent, counted, known = 0.0, set(), self.studies.get(study, {})
        for number in range(trials):
            if number and spent >= seconds:
                return number
            if number not in known:
                return trials
            if known[number] not in counted:
                counted.add(known[number])
                spent += self.seconds(known[number])
        return trials

    def seconds(self, trial_id: str) -> float:
        """What a trial that ended trained, validated and ranked, in seconds; 0 before its end."""
        entry = self.trials.get(trial_id)
        return entry.seconds if entry and entry.status is not None else 0.0

    def planned(self, study: StudyRecord) -> int:
        """Search trials of a recorded study: fewer than it planned once the cell's seconds are spent."""
        return self.affordable(study.id, study.trials, study.cell_seconds)

    def confirmations(self, study: StudyRecord) -> list[str]:
        """Ids of the planned confirmations of a recorded study's winner; empty while it is undecided."""
        if study.confirm is not None:
            return list(study.confirm)
        return self.confirming(study.id, self.planned(study), study.seeds)

    def ended(self, study: str, trials: int) -> int:
        """How many of a study's first `trials` numbers have ended."""
        return self._fact(study, ("ended", trials), lambda: self._ended_of(study, trials))

    def _ended_of(self, study: str, trials: int) -> int:
        known = self.studies.get(study, {})
        return sum(n < trials and self.trials[i].status is not None for n, i in known.items())

    def winner(self, study: str, trials: int) -> Trial | None:
        """The best finished trial (first of equals) of a study's first `trials`; None while they are not all ended,
        or if none is `done`. So a longer search can always be cut back to a shorter one."""
        return self._fact(study, ("winner", trials), lambda: self._winner(study, trials))

    def confirming(self, study: str, trials: int, seeds: int) -> list[str]:
        """Ids of the winner's runs with the seeds 1, 2, ...; none while there is no winner."""
        winner = self.winner(study, trials)
        make = lambda: [winner.confirmation(1 + k).id for k in range(seeds)] if winner else []  # noqa: E731
        return self._fact(study, ("confirming", trials, seeds), make)

    def _winner(self, study: str, trials: int) -> Trial | None:
        if self.ended(study, trials) < trials:
            return None
        entries = ((n, self.trials[i]) for n, i in self.studies.get(study, {}).items() if n < trials)
        done = [(entry.best, -n, entry) for n, entry in entries if entry.status == "done"]
        return max(done, key=lambda found: found[:2])[2].trial if done else None


@contextmanager
def _no_collection() -> Iterator[None]:
    """Many objects are made of which none is garbage: without this, Python looks through them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def started(segment: Segment, trial: Trial, study: str, number: int) -> dict[str, Any]:
    return segment.append("started", id=trial.id, study=study, number=number, trial=trial.to_json())


def opened(segment: Segment, trial: Trial) -> dict[str, Any]:
    """The test is handed to a confirming trial: an event of its own, so that a second opening cannot be hidden."""
    return segment.append("opened", id=trial.id)


def ended(segment: Segment, trial_id: str, result: TrialResult) -> dict[str, Any]:
    return segment.append("ended", id=trial_id, result=asdict(result))


def voided(segment: Segment, trial_id: str, reason: str) -> dict[str, Any]:
    """A trial's result no longer counts, because what it left is lost; the trial is run again."""
    return segment.append("voided", id=trial_id, reason=reason)

"""The ledger: append-only events on disk, one segment per process, one JSON event per line (see `segments`).

The ledger is the union of the segments in `ledger/`, so homes are merged by copying files. A torn last line loses only
that line. A damaged line elsewhere is reported by file and number and never mistaken for work that was not done.

Opening a ledger checks every line but parses few: `lines` takes the fields that planning needs from the starts and ends
of trials, and the rest is read from disk on demand. Of large segments, `segment_index` keeps these fields
(benchmarks/results/ledger.md).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.record import ensembles, lines, segment_index
from harness.record.entries import TrialEntry, Trials
from harness.record.launches import SCHEMA, LaunchRecord, StudyRecord
from harness.record.segment_index import SegmentRows
from harness.record.segments import Damage, FileOffset, SegmentReader, parse, segment_files, tail
from harness.types import HarnessError, Json, Status, Trial, TrialResult

if TYPE_CHECKING:
    import numpy as np


@dataclass
class Ledger:
    """The union of all segments.

    ``trials``: id -> entry. ``studies``: study id -> search number -> trial id: the last one that started, unless an
    earlier one was done. ``decisions``: study id -> its `decided` events, oldest first. ``launches``: run -> record.
    ``opened``: trial id -> number of times its test was opened. ``over``: run -> its `finished` or `stopped` event; a
    killed run has none.
    """

    trials: Trials = field(default_factory=Trials)
    studies: dict[str, dict[int, str]] = field(default_factory=dict)
    decisions: dict[str, list[Json]] = field(default_factory=dict)
    launches: dict[str, LaunchRecord] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    over: dict[str, Json] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    home: Path | None = None
    foreign: int = 0  # lines of other processes read by `refresh`
    _sources: dict[str, SegmentReader] = field(default_factory=dict, repr=False)
    _spare: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict, repr=False)  # further ends of done trials
    _facts: dict[str, dict[tuple[Any, ...], Any]] = field(default_factory=dict, repr=False)  # cached results, by study

    @classmethod
    def open(cls, home: Path) -> Ledger:
        """Read every segment of a home, without epoch events.

        Raises HarnessError if a segment was written by a newer version or cannot be read.
        """
        ledger = cls(Trials(home / "ledger"), home=home)
        with _no_collection():
            ledger.damages = list(ledger._new(""))
        return ledger

    def read_epochs(self, run: str) -> None:
        """Count the epochs of a launch's trials that have not ended. Raises HarnessError if it cannot be read."""
        flying = self.entries(run, None)
        places = [self.trials.place("start", self.trials.rows[trial_id]) for trial_id in flying]
        for line in tail(self._path(run), min((p.offset if p.path.stem == run else 0 for p in places), default=None)):
            if (epoch := lines.epoch(line)) and epoch[0] in flying:
                self._epoch(*epoch)
            elif (start := lines.start(line)) and start.trial in flying:
                self._epoch(start.trial, -1)

    def entries(self, run: str, status: Status | None) -> dict[str, TrialEntry]:
        """Trials of a status (None: not ended) that a launch ended, or else started last."""
        trials, by, wanted = self.trials, self.trials.code(run), self.trials.code(status or "")
        columns = zip(trials.rows, trials.run, trials.status, strict=True)
        return {i: trials[i] for i, launch, found in columns if launch == by and found == wanted}

    def times(self, run: str) -> list[float]:
        """Times of a launch's first event, of the starts and ends of its trials and of its last events, in the order of
        its segment. Raises HarnessError if that cannot be read."""
        path, code, trials = self._path(run), self.trials.code(run), self.trials
        starts = [row for row, by in enumerate(trials.start_run) if by == code and trials.starts[row] == 1]
        ends = [row for row, by in enumerate(trials.end_run) if by == code and trials.status[row]]
        known = [(trials.start_at[row], trials.time[row]) for row in starts]
        known = sorted([*known, *((trials.end_at[row], trials.ended[row]) for row in ends)])
        first, last = next(tail(path, 0), b""), tail(path, known[-1][0] if known else 0)
        return [*lines.times([first]), *(time for _, time in known), *lines.times(last)]

    def refresh(self, mine: str) -> None:
        """Read new lines of other processes; `mine` is the segment of this process, whose events are already here."""
        self.damages += [damage for damage in self._new(mine) if not damage.torn]

    def _new(self, mine: str) -> Iterator[Damage]:
        """Read all new lines and yield the damages."""
        assert self.home is not None
        for path in segment_files(self.home):
            run = path.stem
            if run == mine:
                continue
            source = self._sources.get(run) or SegmentReader(path)
            if run not in self._sources and not mine:
                yield from self._take_rows(run, segment_index.read(self.home, source))
            self._sources[run] = source
            for line in source.lines():
                if isinstance(line, Damage):
                    yield line
                else:
                    self.foreign += bool(mine)
                    self._take_line(run, *line)

    def _take_rows(self, run: str, rows: SegmentRows | None) -> Iterator[Damage]:
        """Record the beginning of a segment and yield its damages."""
        if rows is None:
            return
        path, words = self._path(run), list(map(self.trials.code, rows.words))
        for at, stop, other in rows.parts():
            self._take_trials(run, rows, range(at, stop), words)
            if other is not None:
                offset, line = other
                self._take_line(run, line, FileOffset(path, offset, len(line)))
        yield from (Damage(path.name, line, lost=lost) for line, lost in rows.damages)

    def _take_trials(self, run: str, rows: SegmentRows, which: range, words: list[int]) -> None:
        """Record trials of a segment; `words`: the codes of the words of its columns."""
        ids, path = rows.ids[which.start : which.stop], self._path(run)
        columns = {name: column[which.start : which.stop] for name, column in rows.columns.items()}
        if self.trials.rows.keys().isdisjoint(ids):
            self.trials.extend(run, ids, columns, words)
            search = self.trials.code("search")
            places = (columns[name] for name in ("study", "number", "role", "start_at"))
            for trial_id, study, number, role, offset in zip(ids, *places, strict=True):
                if words[role] == search:
                    numbers = self.studies.setdefault(rows.words[study], {})
                    if number not in numbers or not self.trials.done_before(numbers[number], run, offset):
                        numbers[number] = trial_id
            return
        for at, trial_id in enumerate(ids):  # another segment has some of them too
            one = {name: column[at] for name, column in columns.items()}
            name, role = rows.words[one["study"]], rows.words[one["role"]]
            self._start(
                run, lines.Start(trial_id, name, one["number"], role, one["time"]), self._at(path, one, "start")
            )
            if one["end_at"] >= 0:
                status, reason = rows.words[one["status"]], rows.words[one["reason"]]
                facts = (status, reason, one["best"], one["seconds"], one["trained"])
                self._end(run, lines.End(trial_id, one["ended"], *facts), self._at(path, one, "end"))

    @staticmethod
    def _at(path: Path, row: Json, what: str) -> FileOffset:
        return FileOffset(path, row[f"{what}_at"], row[f"{what}_length"])

    def _path(self, run: str) -> Path:
        assert self.home is not None
        return self.home / "ledger" / f"{run}.jsonl"

    def _take_line(self, run: str, line: bytes, place: FileOffset) -> None:
        """Record the event of a line; lines of frequent events are not parsed as a whole."""
        if start := lines.start(line):
            self._start(run, start, place)
        elif end := lines.end(line):
            self._end(run, end, place)
        elif epoch := lines.epoch(line):
            self._epoch(*epoch)
        else:
            self.take(run, cast("Json", parse(line)), at=place.offset)

    def take(self, run: str, event: Json, place: FileOffset | None = None, at: int | None = None) -> None:
        """Record one event. Unknown kinds are ignored, so that older versions can read newer ledgers.

        place: where it is on disk; trials and results are then read from there on demand and take no memory.
        at: the offset in its segment of an event that is kept in memory; None for one that just happened.
        """
        kind = event["kind"]
        if kind == "launched":
            if event["schema"] > SCHEMA:
                raise HarnessError(
                    f"ledger/{run}.jsonl was written by a newer harness (ledger schema {event['schema']}, "
                    f"this one reads up to {SCHEMA}); update harness."
                )
            self.launches[run] = LaunchRecord.from_json(event)
        elif kind == "started":
            role = event["trial"]["role"]
            start = lines.Start(event["id"], event["study"], event["number"], role, event["time"])
            self._start(run, start, place or Trial.from_json(event["trial"]), at)
        elif kind == "opened":
            self.opened[event["id"]] = self.opened.get(event["id"], 0) + 1
        elif kind == "epoch":
            self._epoch(event["id"], event["epoch"])
        elif kind == "ended" and place is not None:
            self._end(run, lines.end_of(event), place)
        elif kind == "ended":
            outcome = lines.result_of(event)
            self._ended(run, event["id"], outcome.status, event["time"], lambda row: self.trials.finish(row, outcome))
        elif kind == "voided":
            self._facts.clear()
            self._void(event["id"], event.get("of"))
        elif kind == "decided":
            self.decisions.setdefault(event["study"], []).append(event)
            self._facts.pop(event["study"], None)
        elif kind in ("finished", "stopped"):
            self.over[run] = event

    def _epoch(self, trial_id: str, epoch: int) -> None:
        if (row := self.trials.rows.get(trial_id)) is not None:
            self.trials.epochs[row] = epoch + 1

    def _start(self, run: str, start: lines.Start, source: Trial | FileOffset, at: int | None = None) -> None:
        row = self.trials.rows.get(start.trial)
        if row is None:
            row = self.trials.add(start, run, source)
        self.trials.begin(row, run, start.time)
        if self.trials[start.trial].role != "search":
            return
        self._facts.pop(start.study, None)
        numbers, offset = self.studies.setdefault(start.study, {}), at if isinstance(source, Trial) else source.offset
        if start.number not in numbers or not self.trials.done_before(numbers[start.number], run, offset):
            numbers[start.number] = start.trial
        place = (start.study, start.number)
        if place not in self.trials.places(row):
            self.trials.more.setdefault(row, []).append(place)

    def _end(self, run: str, end: lines.End, place: FileOffset) -> None:
        self._ended(run, end.trial, end.status, end.time, lambda row: self.trials.finish_at(row, run, end, place))

    def _ended(self, run: str, trial_id: str, status: str, time: float, finish: Callable[[int], None]) -> None:
        """Record when, where and how a trial ended, unless its start is unknown.

        The first `done` counts until it is voided: homes that are merged may both have run the trial.
        """
        row, done = self.trials.rows.get(trial_id), self.trials.code("done")
        if row is not None and self.trials.status[row] != done:
            self.trials.run[row], self.trials.ended[row] = self.trials.code(run), time
            finish(row)
            for study, _ in self.trials.places(row) if self._facts else ():
                self._facts.pop(study, None)
        elif row is not None and status == "done":
            self._spare.setdefault(trial_id, []).append((run, trial_id, status, time, finish))

    def _void(self, trial_id: str, run: str | None) -> None:
        """Withdraw the result of segment `run`, or the one that counts; another one takes its place."""
        row = self.trials.rows.get(trial_id)
        spare = [end for end in self._spare.pop(trial_id, ()) if end[0] != run]
        if row is not None and run in (None, self.trials.words[self.trials.run[row]]):
            self.trials.void(row)
        for end in spare:
            self._ended(*end)

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
        return read | {run: self._path(run).stat().st_size for run in sorted(mine)}

    def places(self, trial_id: str) -> list[tuple[str, int]]:
        """Return the (study, number) pairs under which a trial was searched."""
        return self.trials.places(self.trials.rows[trial_id]) if self.trials[trial_id].role == "search" else []

    def result(self, trial_id: str) -> TrialResult | None:
        """Return the result of a trial, or None if it has not ended."""
        entry = self.trials.get(trial_id)
        return entry.result if entry else None

    def history(self, study: str, trials: int) -> dict[int, tuple[str, TrialResult | None]]:
        """Search number -> (trial id, result or None) of the started trials among a study's first `trials` numbers."""
        return {number: (i, entry.result) for number, i, entry in self.searched(study, trials)}

    def searched(self, study: str, trials: int) -> list[tuple[int, str, TrialEntry]]:
        """Number, trial id and entry of the started trials among a study's first `trials` numbers, by number."""
        return [(number, i, self.trials[i]) for number, i in self.search_ids(study, trials)]

    def search_ids(self, study: str, trials: int) -> list[tuple[int, str]]:
        """Number and trial id of the started trials among a study's first `trials` numbers, by number."""
        numbers = self.studies.get(study, {})
        return [(number, numbers[number]) for number in sorted(numbers) if number < trials]

    def search_rows(self, study: str, trials: int) -> np.ndarray:
        """Rows in `trials` of the started trials among a study's first `trials` numbers, by number."""
        import numpy as np

        rows = self.trials.rows
        found = lambda: np.array([rows[i] for _, i in self.search_ids(study, trials)], np.int64)  # noqa: E731
        return self._fact(study, ("rows", trials), found)

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
        row = self.trials.rows.get(trial_id)
        return self.trials.seconds[row] if row is not None and self.trials.status[row] else 0.0

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
        return int((self.trials.column("status", self.search_rows(study, trials)) != 0).sum())

    def winner(self, study: str, trials: int) -> Trial | None:
        """Return the best finished trial (the first of equals) of a study's first `trials` numbers.

        None until all of them have ended, or if none is `done`. A longer search can thus be cut to a shorter one. The
        winner that a launch decided stands, although a merged home may have finished what was pruned there.
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
        rows = self.search_rows(study, trials)
        done = rows[self.trials.column("status", rows) == self.trials.code("done")]
        if not len(done):
            return None
        named = {event["winner"]: None for event in self.decisions.get(study, ()) if event["trials"] == trials}
        decided = [self.trials.rows[i] for i in named if self.trials.rows.get(i, -1) in done]
        tested = [row for row in decided if self._is_tested(row)] if len(decided) > 1 else []
        best = int(done[self.trials.column("best", done).argmax()])
        return self.trials.entry((tested or decided or [best])[0]).trial

    def _is_tested(self, row: int) -> bool:
        """Whether the configuration of a search trial is confirmed with the first seed."""
        found = [self.trials.get(trial.id) for trial in self.trials.entry(row).trial.confirmations(1)]
        return all(entry is not None and entry.status == "done" for entry in found)


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

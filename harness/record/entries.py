"""The trials of a ledger, in columns: a hundred thousand of them take 25 MB. An entry is a view of one row."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from harness.record import lines, segments
from harness.record.segments import FileOffset
from harness.types import Role, Status, Trial, TrialResult

if TYPE_CHECKING:  # commands that only list names do not pay for its import
    import numpy as np

# Typecodes of `array`. Columns of words hold codes: positions in `Trials.words`, where 0 is "".
FACTS = {  # of a trial that one segment started and ended
    **{"number": "q", "trained": "q"},
    **dict.fromkeys(("time", "ended", "best", "seconds"), "d"),
    **dict.fromkeys(("start_at", "start_length", "end_at", "end_length"), "q"),  # bytes; end_at is -1 if not on disk
}
WORDS = ("role", "study", "status", "reason")
RUNS = ("run", "start_run", "end_run")
COUNTS = ("starts", "epochs")


class RecordedResult(TrialResult):
    """A result on disk. Status, reason and best are in memory; the other fields are read on first use."""

    def __init__(self, status: Status, reason: str, best: float, place: FileOffset) -> None:
        self.status, self.reason, self.best, self._place = status, reason, best, place

    def _read(self, name: str) -> Any:
        if "_rest" not in self.__dict__:
            self._rest = lines.result_of(self._place.event())
        return getattr(self._rest, name)


for _field in fields(TrialResult):
    if _field.name not in ("status", "reason", "best"):
        setattr(RecordedResult, _field.name, property(lambda self, name=_field.name: self._read(name)))


class TrialEntry:
    """The present state of one trial: a view, so it follows later events."""

    __slots__ = ("_of", "_row")

    def __init__(self, of: Trials, row: int) -> None:
        self._of, self._row = of, row

    @property
    def run(self) -> str:
        """Segment that ended the trial, otherwise the last one that started it."""
        return self._of.words[self._of.run[self._row]]

    @property
    def role(self) -> Role:
        return cast("Role", self._of.words[self._of.role[self._row]])

    @property
    def study(self) -> str:
        return self._of.words[self._of.study[self._row]]

    @property
    def number(self) -> int:
        """Position in the search of its cell, or of its seed in the confirmation."""
        return self._of.number[self._row]

    @property
    def more(self) -> list[tuple[str, int]]:
        """Further (study, number) pairs."""
        return self._of.more.get(self._row, [])

    @property
    def status(self) -> Status | None:
        """None: started, not ended."""
        return cast("Status", self._of.words[self._of.status[self._row]]) or None

    @property
    def reason(self) -> str:
        return self._of.words[self._of.reason[self._row]]

    @property
    def best(self) -> float:
        return self._of.best[self._row]

    @property
    def seconds(self) -> float:
        """Seconds spent training, validating and ranking (finished trials)."""
        return self._of.seconds[self._row]

    @property
    def trained(self) -> int:
        """Number of epochs (finished trials)."""
        return self._of.trained[self._row]

    @property
    def starts(self) -> int:
        return self._of.starts[self._row]

    @property
    def time(self) -> float:
        """Time of the last start, by the clock of its machine."""
        return self._of.time[self._row]

    @property
    def ended(self) -> float:
        """Time of the end."""
        return self._of.ended[self._row]

    @property
    def epochs(self) -> int:
        """Epochs finished so far (only if epoch events were read)."""
        return self._of.epochs[self._row]

    @property
    def start(self) -> Trial | FileOffset:
        """The trial, or the place of its start on disk."""
        return self._of.sources.get(self._row) or self._of.place("start", self._row)

    @property
    def end(self) -> TrialResult | FileOffset | None:
        """The result, or the place of the trial's end on disk; None if the trial has not ended."""
        if self._of.status[self._row] == 0:
            return None
        return self._of.results.get(self._row) or self._of.place("end", self._row)

    @property
    def trial(self) -> Trial:
        start = self.start
        return start if isinstance(start, Trial) else Trial.from_json(start.event()["trial"])

    @property
    def result(self) -> TrialResult | None:
        """The result, or None if the trial has not ended."""
        end, status = self.end, self.status
        if end is None or status is None or isinstance(end, TrialResult):
            return cast("TrialResult | None", end)
        return RecordedResult(status, self.reason, self.best, end)


class Trials(Mapping[str, TrialEntry]):
    """Trial id -> entry, in the order of the first starts.

    ``rows``: trial id -> position in the columns; ``folder``: of the segments, for the places of events on disk.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.rows: dict[str, int] = {}
        self.words, self._codes = [""], {"": 0}
        self.more: dict[int, list[tuple[str, int]]] = {}
        self.sources: dict[int, Trial] = {}  # of trials whose start is not on disk
        self.results: dict[int, TrialResult] = {}  # of trials whose end is not on disk
        self.run, self.start_run, self.end_run, self.role, self.study, self.status, self.reason = (
            array("i") for _ in (*RUNS, *WORDS)
        )
        self.number, self.trained, self.starts, self.epochs = (array("q") for _ in range(4))
        self.start_at, self.start_length, self.end_at, self.end_length = (array("q") for _ in range(4))
        self.time, self.ended, self.best, self.seconds = (array("d") for _ in range(4))

    def __getitem__(self, trial_id: str) -> TrialEntry:
        return TrialEntry(self, self.rows[trial_id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __contains__(self, trial_id: object) -> bool:
        return trial_id in self.rows

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} trials)"

    def entry(self, row: int) -> TrialEntry:
        return TrialEntry(self, row)

    def code(self, word: str) -> int:
        """Return the code of a word."""
        if (code := self._codes.get(word)) is None:
            code = self._codes[word] = len(self.words)
            self.words.append(word)
        return code

    def column(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Return the values of a column in `rows`, as a copy."""
        import numpy as np

        return np.asarray(getattr(self, name))[rows]  # the view must not outlive this: a viewed array cannot grow

    def place(self, what: str, row: int) -> FileOffset:
        """Return the place on disk of a trial's `start` or `end`."""
        assert self.folder is not None
        run = self.words[getattr(self, f"{what}_run")[row]]
        offset, length = getattr(self, f"{what}_at")[row], getattr(self, f"{what}_length")[row]
        return FileOffset(self.folder / f"{run}.jsonl", offset, length)

    def lines(self, what: Literal["start", "end"], rows: np.ndarray) -> list[bytes | None]:
        """Return the lines of the starts or ends on disk of the trials in `rows`; None for those not on disk.

        Raises HarnessError if a line has changed since the ledger was opened.
        """
        import numpy as np

        found: list[bytes | None] = [None] * len(rows)
        offsets, lengths, runs = (self.column(f"{what}_{name}", rows) for name in ("at", "length", "run"))
        on_disk = lengths > 0
        if what == "end":
            on_disk &= (self.column("status", rows) > 0) & (offsets >= 0)
        for run in np.unique(runs[on_disk]):
            assert self.folder is not None
            chosen = np.flatnonzero(on_disk & (runs == run))
            places = list(zip(offsets[chosen].tolist(), lengths[chosen].tolist(), strict=True))
            lines_of = segments.lines_at(self.folder / f"{self.words[run]}.jsonl", places)
            for at, line in zip(chosen.tolist(), lines_of, strict=True):
                found[at] = line
        return found

    def add(self, start: lines.Start, run: str, source: Trial | FileOffset) -> int:
        """Append a trial at its first start in segment `run` and return its row."""
        row = self.rows[start.trial] = len(self.rows)
        for name in (*FACTS, *COUNTS, *RUNS, *WORDS):
            getattr(self, name).append(0)
        self.number[row], self.end_at[row] = start.number, -1
        self.study[row], self.role[row], self.start_run[row] = map(self.code, (start.study, start.role, run))
        if isinstance(source, Trial):
            self.sources[row] = source
        else:
            self.start_at[row], self.start_length[row] = source.offset, source.length
        return row

    def extend(self, run: str, ids: Iterable[str], columns: Mapping[str, array[Any]], words: list[int]) -> None:
        """Append trials that segment `run` started once and no other did. `words`: the codes of the columns' codes."""
        first = len(self.rows)
        self.rows.update(zip(ids, range(first, first + len(columns["number"])), strict=True))
        more = len(self.rows) - first
        for name in FACTS:
            getattr(self, name).extend(columns[name])
        for name in WORDS:
            getattr(self, name).extend(map(words.__getitem__, columns[name]))
        for name in RUNS:
            getattr(self, name).extend(array("i", [self.code(run)]) * more)
        self.starts.extend(array("q", [1]) * more)
        self.epochs.extend(array("q", [0]) * more)

    def begin(self, row: int, run: str, time: float) -> None:
        """Count a start; while the trial has not ended, it belongs to the segment of its last start."""
        self.starts[row] += 1
        self.epochs[row] = 0
        if self.status[row] == 0:
            self.run[row], self.time[row] = self.code(run), time

    def finish(self, row: int, outcome: TrialResult) -> None:
        """Record an end of which the whole result is in memory."""
        self.results[row], self.end_at[row] = outcome, -1
        self.status[row], self.reason[row] = self.code(outcome.status), self.code(outcome.reason)
        self.best[row], self.seconds[row] = outcome.best, outcome.info.get("seconds", 0.0)
        self.trained[row] = int(outcome.info.get("epochs", len(outcome.curve)))

    def finish_at(self, row: int, run: str, end: lines.End, place: FileOffset) -> None:
        """Record an end on disk."""
        self.status[row], self.reason[row], self.end_run[row] = map(self.code, (end.status, end.reason, run))
        self.best[row], self.seconds[row], self.trained[row] = end.best, end.seconds, end.epochs
        self.end_at[row], self.end_length[row] = place.offset, place.length
        self.results.pop(row, None)

    def done_before(self, trial_id: str, run: str, offset: int | None) -> bool:
        """Whether a trial was done when another one started at `offset` of segment `run` (None: just now).

        It then keeps its number of a search: homes that are merged may have trained the number as different trials.
        """
        row = self.rows[trial_id]
        if self.status[row] != self.code("done"):
            return False
        return offset is None or self.end_run[row] != self.code(run) or self.end_at[row] < offset

    def void(self, row: int) -> None:
        """Withdraw the end of a trial."""
        self.status[row], self.end_at[row] = 0, -1
        self.results.pop(row, None)

    def places(self, row: int) -> list[tuple[str, int]]:
        """Return the (study, number) pairs under which a trial was started."""
        return [(self.words[self.study[row]], self.number[row]), *self.more.get(row, ())]

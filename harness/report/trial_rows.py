"""The started trials of a table as rows: `Results.trials`, read from the ledger on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np
import polars as pl
from polars.io.plugins import register_io_source

from harness.record import lines
from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.report.tables._frames import KEY, TRIALS
from harness.types import Cell, Json

ENCODE = json.JSONEncoder(sort_keys=True).encode
RUNNING = lines.Course(-1, b"[]", b"{}")
BATCH = 20_000  # trials whose columns are read at a time


def lazy(ledger: Ledger, studies: Mapping[Cell, StudyRecord]) -> pl.LazyFrame:
    """Return `Results.trials`, read in batches and only in the requested columns.

    So columns that the ledger has in memory need no read of trials from disk.
    """

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        for trials in _started(ledger, studies):
            frame = _kept(trials, columns or list(TRIALS), predicate)
            yield frame if rows is None else frame.head(rows)
            rows = None if rows is None else max(rows - frame.height, 0)

    return register_io_source(read, schema=TRIALS)


@dataclass
class _StartedTrials:
    """Rows of `Results.trials`. What is not in memory is read from disk once, on first use.

    ``group``: position of each trial's study in ``studies``.
    """

    ledger: Ledger
    studies: list[tuple[Cell, StudyRecord]]
    group: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def add(self, cell: Cell, study: StudyRecord) -> None:
        """Append a study's started trials: search trials by number, then confirmations by position."""
        searched = self.ledger.search_ids(study.id, self.ledger.planned(study))
        confirming = enumerate(self.ledger.confirmations(study))
        confirmed = [(place, i) for place, i in confirming if i in self.ledger.trials]
        self.group += [len(self.studies)] * (len(searched) + len(confirmed))
        self.studies.append((cell, study))
        self.roles += ["search"] * len(searched) + ["confirm"] * len(confirmed)
        for number, trial_id in (*searched, *confirmed):
            self.numbers.append(number)
            self.ids.append(trial_id)

    def kept(self, mask: Sequence[bool]) -> _StartedTrials:
        """Return the trials for which `mask` is true."""
        group, numbers = (list(compress(values, mask)) for values in (self.group, self.numbers))
        roles, ids = (list(compress(values, mask)) for values in (self.roles, self.ids))
        return _StartedTrials(self.ledger, self.studies, group, roles, numbers, ids)

    @cached_property
    def rows(self) -> np.ndarray:
        return np.array([self.ledger.trials.rows[i] for i in self.ids], np.int64)

    def column(self, name: str) -> np.ndarray:
        """Return a column that is in memory, by its name in the ledger."""
        return self.ledger.trials.column(name, self.rows)

    @cached_property
    def ended(self) -> np.ndarray:
        return self.column("status") > 0

    @cached_property
    def scored(self) -> np.ndarray:
        """True for ended trials that have not failed."""
        return self.ended & (self.column("status") != self.ledger.trials.code("failed"))

    def words(self, name: str, absent: str = "") -> pl.Series:
        """Return a column of words, "" until the trial has ended; `absent` instead of ""."""
        codes = self.column(name) if name == "run" else np.where(self.ended, self.column(name), 0)
        return pl.Series([absent, *self.ledger.trials.words[1:]]).gather(codes)

    @cached_property
    def configurations(self) -> list[tuple[int, bytes]]:
        """Seed and parameters, as JSON."""
        trials = self.ledger.trials
        memory = map(trials.sources.get, self.rows.tolist())
        return [
            (trial.seed, json.dumps(trial.params).encode()) if trial else lines.configuration(line or b"")
            for trial, line in zip(memory, trials.lines("start", self.rows), strict=True)
        ]

    @cached_property
    def courses(self) -> list[lines.Course]:
        """Best epoch, curve and info; empty before a trial has ended."""
        trials = self.ledger.trials
        memory = map(trials.results.get, self.rows.tolist())
        return [
            lines.course(line) if line else lines.Course.of(result) if result else RUNNING
            for result, line in zip(memory, trials.lines("end", self.rows), strict=True)
        ]

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """Return some columns."""
        values = {name: self._by_study(name) if name in BY_STUDY else COLUMNS[name](self) for name in columns}
        return pl.DataFrame(values, schema={name: TRIALS[name] for name in columns})

    def _by_study(self, name: str) -> pl.Series:
        return pl.Series(name, map(BY_STUDY[name], self.studies), dtype=pl.String).gather(self.group)


def _started(ledger: Ledger, studies: Mapping[Cell, StudyRecord]) -> Iterator[_StartedTrials]:
    """Yield the started trials of studies, in order, in batches of whole studies."""
    trials = _StartedTrials(ledger, [])
    for cell, study in studies.items():
        trials.add(cell, study)
        if len(trials.ids) >= BATCH:
            yield trials
            trials = _StartedTrials(ledger, [])
    yield trials


def _kept(trials: _StartedTrials, columns: Sequence[str], predicate: pl.Expr | None) -> pl.DataFrame:
    """Return the trials that fulfil `predicate`.

    A predicate over columns in memory is applied first, so that only the trials that fulfil it are read from disk.
    """
    if predicate is None:
        return trials.frame(columns)
    names = predicate.meta.root_names()
    if not ON_DISK.isdisjoint(names):
        wanted = list(dict.fromkeys([*columns, *names]))
        return trials.frame(wanted).filter(predicate).select(columns)
    mask = trials.frame(names).select(predicate.alias("kept"))["kept"]
    mask = mask if len(mask) == len(trials.ids) else mask.new_from_index(0, len(trials.ids))  # a constant predicate
    return trials.kept(mask.to_list()).frame(columns)


def _where(known: np.ndarray, values: Any) -> pl.Series:
    """Return the values where they are known, and null elsewhere."""
    return pl.select(pl.when(pl.Series(known)).then(pl.Series(values))).to_series()


def _texts(values: Iterable[bytes]) -> pl.Series:
    return pl.Series(list(values), dtype=pl.Binary).cast(pl.String)


def _parsed(texts: Iterable[bytes]) -> list[Json]:
    return json.loads(b"[%s]" % b",".join(texts))


def _seconds(trials: _StartedTrials) -> pl.Series:
    """Return the seconds of ended trials; null for those that did not record them, which are 0 in memory."""
    seconds = trials.column("seconds")
    if (seconds[trials.ended] != 0).all():
        return _where(trials.ended, seconds)
    return pl.Series(
        [info.get("seconds") for info in _parsed(course.info for course in trials.courses)], dtype=pl.Float64
    )


BY_STUDY: dict[str, Callable[[tuple[Cell, StudyRecord]], str]] = {
    "study": lambda study: study[1].id,
    **{name: lambda study, name=name: getattr(study[0], name) for name in KEY},
}
COLUMNS: dict[str, Callable[[_StartedTrials], Any]] = {
    "trial": lambda trials: trials.ids,
    "role": lambda trials: trials.roles,
    "number": lambda trials: trials.numbers,
    "seed": lambda trials: [seed for seed, _ in trials.configurations],
    "status": lambda trials: trials.words("status", "running"),
    "reason": lambda trials: trials.words("reason"),
    "best": lambda trials: _where(trials.scored, trials.column("best")),
    "best_epoch": lambda trials: _where(trials.scored, [course.best_epoch for course in trials.courses]),
    "curve": lambda trials: _texts(course.curve for course in trials.courses).str.json_decode(TRIALS["curve"]),
    "epochs": lambda trials: np.where(trials.ended, trials.column("trained"), trials.column("epochs")),
    "seconds": lambda trials: _seconds(trials),
    "params": lambda trials: list(map(ENCODE, _parsed(params for _, params in trials.configurations))),
    "info": lambda trials: list(map(ENCODE, _parsed(course.info for course in trials.courses))),
    "started": lambda trials: _where(trials.column("time") != 0, trials.column("time")),
    "ended": lambda trials: _where(trials.ended & (trials.column("ended") != 0), trials.column("ended")),
    "run": lambda trials: trials.words("run"),
}
ON_DISK = {"seed", "best_epoch", "curve", "seconds", "params", "info"}

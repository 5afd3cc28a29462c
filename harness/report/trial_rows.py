"""The started trials of a table as rows: `Results.trials`, read from the ledger on demand."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger, TrialEntry
from harness.report.tables._frames import KEY, TRIALS
from harness.types import Cell, Json, Trial, TrialResult


def lazy(ledger: Ledger, studies: Mapping[Cell, StudyRecord]) -> pl.LazyFrame:
    """Return `Results.trials`, read study by study and only in the requested columns.

    So columns that the ledger has in memory need no read of trials from disk.
    """

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        for cell, study in studies.items():
            frame = _trials_of(ledger, cell, study, columns or list(TRIALS), predicate)
            yield frame if rows is None else frame.head(rows)
            rows = None if rows is None else max(rows - frame.height, 0)

    return register_io_source(read, schema=TRIALS)


class _StartedTrial:
    """A row of `Results.trials`. What is not in memory is read from disk once, on first use."""

    def __init__(self, role: str, number: int, trial_id: str, entry: TrialEntry) -> None:
        self.role, self.number, self.trial_id, self.entry = role, number, trial_id, entry

    @cached_property
    def described(self) -> Json:
        """The trial as JSON: `seed` and `params`, which are wanted of every trial, without building a `Trial`."""
        source = self.entry.source
        return source.to_json() if isinstance(source, Trial) else source.event()["trial"]

    @cached_property
    def result(self) -> TrialResult | None:
        return self.entry.result


def _trials_of(
    ledger: Ledger, cell: Cell, study: StudyRecord, columns: Sequence[str], predicate: pl.Expr | None
) -> pl.DataFrame:
    """Return a study's started trials that fulfil `predicate`: search trials by number, then confirmations by position.

    A predicate over columns in memory is applied first, so that only the trials that fulfil it are read from disk.
    """
    trials = [_StartedTrial("search", *trial) for trial in ledger.searched(study.id, ledger.planned(study))]
    confirming = enumerate(ledger.confirmations(study))
    trials += [_StartedTrial("confirm", place, i, ledger.trials[i]) for place, i in confirming if i in ledger.trials]
    constants = {"study": study.id} | {key: getattr(cell, key) for key in KEY}
    if predicate is None:
        return _frame(trials, columns, constants)
    names = predicate.meta.root_names()
    if not ON_DISK.isdisjoint(names):
        wanted = list(dict.fromkeys([*columns, *names]))
        return _frame(trials, wanted, constants).filter(predicate).select(columns)
    kept = _frame(trials, names, constants).select(predicate.alias("kept"))["kept"]
    kept = kept if len(kept) == len(trials) else kept.new_from_index(0, len(trials))  # a constant predicate
    return _frame([trial for trial, keep in zip(trials, kept, strict=True) if keep], columns, constants)


def _frame(trials: list[_StartedTrial], columns: Sequence[str], constants: dict[str, str]) -> pl.DataFrame:
    values = {
        name: [constants[name]] * len(trials) if name in constants else list(map(COLUMNS[name], trials))
        for name in columns
    }
    return pl.DataFrame(values, schema={name: TRIALS[name] for name in columns})


def _value(of: Callable[[TrialResult], Any], else_: Any) -> Callable[[_StartedTrial], Any]:
    """Return the function of a column: `of` the trial's result, `else_` while it has none."""
    return lambda row: else_ if (result := row.result) is None else of(result)


def _unless_failed(name: str) -> Callable[[_StartedTrial], Any]:
    return _value(lambda result: None if result.status == "failed" else getattr(result, name), None)


COLUMNS: dict[str, Callable[[_StartedTrial], Any]] = {
    "trial": lambda row: row.trial_id,
    "role": lambda row: row.role,
    "number": lambda row: row.number,
    "seed": lambda row: row.described["seed"],
    "status": lambda row: row.entry.status or "running",
    "reason": lambda row: row.entry.reason if row.entry.status else "",
    "best": _unless_failed("best"),
    "best_epoch": _unless_failed("best_epoch"),
    "curve": _value(lambda result: result.curve, []),
    "epochs": lambda row: row.entry.trained if row.entry.status else row.entry.epochs,
    "seconds": _value(lambda result: result.info.get("seconds"), None),
    "params": lambda row: json.dumps(row.described["params"], sort_keys=True),
    "info": _value(lambda result: json.dumps(result.info, sort_keys=True), "{}"),
    "started": lambda row: row.entry.time or None,
    "ended": lambda row: (row.entry.ended or None) if row.entry.status else None,
    "run": lambda row: row.entry.run,
}
ON_DISK = {"seed", "best_epoch", "curve", "seconds", "params", "info"}

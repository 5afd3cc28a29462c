"""The input frames of a table, their schemas, and checks with a one-line error for each inconsistency."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from harness.metrics._ties import Ranks
from harness.registry import suggest
from harness.stats.folds import Folds
from harness.types import Cell, HarnessError, Json

Record = dict[str, Any]  # a row of a frame: column -> value

KEY = ["dataset", "encoder", "backbone", "adapter"]  # encoder "none": no text; backbone "none": a baseline
STATES = ["done", "partial", "running", "skipped", "failed", "pending"]
COMING = ("pending", "running")  # states of rows whose results a bench still computes
CELL = dict.fromkeys(KEY, pl.String)
RUNS = {  # one row per confirmed run, whose test was opened
    "trial": pl.String,
    **CELL,
    "seed": pl.Int64,
    "params": pl.String,  # JSON object
    "best_valid": pl.Float64,  # validation NDCG@10
    "seconds": pl.Float64,
    "parameters": pl.Int64,
    "effective_rank": pl.Float64,  # null: not measured
    "info": pl.String,  # JSON object of further diagnostics
}
RANKS = {  # one row per test target of a confirmed run
    "trial": pl.String,
    "user": pl.Int64,  # of sliding windows: a key of fold and user (`folds.FOLD`)
    "low": pl.Float64,  # first place among the candidates with the target's score, from 1
    "high": pl.Float64,  # last place among them
}
CELLS = {  # one row per cell of the plan
    **CELL,
    "trials_done": pl.Int64,
    "trials_pruned": pl.Int64,
    "trials_failed": pl.Int64,
    "trials_planned": pl.Int64,
    "search_seconds": pl.Float64,  # sum over the search trials
    "search_epochs": pl.Int64,  # sum over the search trials
    "searched": pl.List(pl.String),  # names of the dimensions of its space; null: not recorded
    "shared": pl.String,  # JSON object, what rows should share: ranges of searched shared parameters, versions
    "tuned": pl.String,  # searched, default, transferred, fixed, nothing or parts
    "setting": pl.String,  # name of the published setting in its space
    "warm_start": pl.String,  # data set whose best configurations started the search, or whose winner was taken
    "source_trials": pl.Int64,  # of the search whose winner was taken; 0: none was
    "cell_seconds": pl.Float64,  # time limit; null: no limit
    "seeds_done": pl.Int64,
    "seeds_planned": pl.Int64,
    "state": pl.String,  # one of STATES
    "reason": pl.String,
}
TRIALS = {  # one row per started trial, ordered by cell, role and number; a configuration drawn twice has two rows
    "trial": pl.String,  # id; the same for both rows of a configuration drawn twice
    "study": pl.String,
    **CELL,
    "role": pl.String,  # search or confirm
    "number": pl.Int64,  # position in the search or among the seeds
    "seed": pl.Int64,
    "status": pl.String,  # done, pruned, failed or running (started, not ended)
    "reason": pl.String,
    "best": pl.Float64,  # validation NDCG@10; null: no score
    "best_epoch": pl.Int64,
    "curve": pl.List(pl.Float64),  # validation NDCG@10 by epoch
    "epochs": pl.Int64,
    "seconds": pl.Float64,
    "params": pl.String,  # JSON object
    "info": pl.String,  # JSON object
    "started": pl.Float64,  # seconds since 1970; null: unknown
    "ended": pl.Float64,  # seconds since 1970; null: unknown
    "run": pl.String,  # launch that ended it, or else started it last
}
QUERIES = {  # one row per test target, in the order of the ranks
    "dataset": pl.String,
    "user": pl.Int64,
    "cold": pl.Boolean,  # never trained on
    "popularity": pl.Int64,  # training events of the target
    "band": pl.String,  # head, mid or tail: each has a third of the training events
    "history": pl.Int64,  # events before the target
    "tied": pl.Boolean,  # shares its timestamp with the previous event; null: times are unknown
    "words": pl.Int64,  # of the target's text
}
SPECTRA = {  # one row per confirmed run: singular values of its item table, divided by the largest
    "trial": pl.String,
    "start": pl.List(pl.Float64),  # before training
    "end": pl.List(pl.Float64),  # after training
}
SCHEMAS = {
    **{"runs": RUNS, "ranks": RANKS, "cells": CELLS},
    **{"trials": TRIALS, "queries": QUERIES, "spectra": SPECTRA},
}


@dataclass(frozen=True)
class Results:
    """Results of a bench, read from its ledger: a frame per schema of `SCHEMAS`, and the header.

    Tables without ``trials``, ``queries`` or ``spectra`` lack the parts computed from them.
    ``ranks``: a frame, or the rows of each trial by its id, without that column and of any numeric type.
    ``header``: JSON objects by name, all optional: ``protocol``, ``prep``, ``budget``, ``engine``, ``provenance``,
    ``data`` (a card per data set), ``settings`` (a description of each published setting); and the number
    ``test_opened`` of runs whose test was opened.
    """

    runs: pl.DataFrame
    ranks: pl.DataFrame | Mapping[str, pl.DataFrame]
    cells: pl.DataFrame
    header: Json = field(default_factory=dict)
    trials: pl.LazyFrame = field(default_factory=lambda: pl.LazyFrame(schema=TRIALS))
    queries: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUERIES))
    spectra: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPECTRA))


@dataclass(frozen=True)
class Confirmed:
    """The confirmed runs of one cell: ranks (Q,) of each of S seeds, users (Q,) in ascending order, a dict per run.

    ``folds``: of sliding windows, the fold and user of each value of `users`, each once; None for other protocols.
    """

    ranks: list[Ranks]
    users: np.ndarray
    runs: list[Record]
    folds: Folds | None = None

    @property
    def n_users(self) -> int:
        """Number of users, each counted once however many folds test it."""
        return len(np.unique(self.folds.user if self.folds else self.users))


class ConfirmedRuns:
    """The confirmed runs of a table by cell. Their ranks are read one data set at a time, since they need most memory.

    Raises HarnessError if a column is missing, a cell is planned twice, a run is not planned or duplicated, or the runs
    of a cell have different parameters.
    """

    def __init__(self, results: Results) -> None:
        for name, schema in SCHEMAS.items():
            if not isinstance(frame := getattr(results, name), Mapping):
                _check_columns(name, frame, list(schema))
        planned = _planned(results.cells)
        self._protocol, self._ranks = results.header.get("protocol") or {}, results.ranks
        self._runs: dict[str, dict[Cell, list[Record]]] = defaultdict(dict)
        for cell, runs in _by_cell(results.runs).items():
            if cell not in planned:
                raise HarnessError(f"The frame 'runs' contains {cell}, which is not a planned cell.")
            _check_runs(cell, runs)
            self._runs[cell.dataset][cell] = runs

    def of(self, dataset: str) -> dict[Cell, Confirmed]:
        """Return the runs of a data set, with the same order of users in all cells.

        Raises HarnessError if a run has no ranks, a rank is below 1, or the cells rank different users.
        """
        by_cell, users, folds = {}, None, None
        ranks = self._ranks_of([run["trial"] for runs in self._runs[dataset].values() for run in runs])
        for cell, runs in self._runs[dataset].items():
            columns = []
            for run in runs:
                ranked, values = ranks.get(run["trial"], (np.empty(0), Ranks.untied(np.empty(0))))
                users = ranked if users is None else users
                if not np.array_equal(users, ranked) or not len(ranked):
                    raise HarnessError(
                        f"{cell}, seed {run['seed']}, has test ranks of {len(ranked)} users, other rows of {dataset} "
                        f"of {len(users)}; all rows of a table must rank the same users."
                    )
                columns.append(values)
            assert users is not None
            if self._protocol.get("folds"):
                folds = folds or Folds.of(users)
            by_cell[cell] = Confirmed(columns, users, runs, folds)
        return by_cell

    def _ranks_of(self, trials: list[str]) -> dict[str, tuple[np.ndarray, Ranks]]:
        """Return each trial's users (Q,) and their ranks (Q,), ordered by user."""
        several = self._protocol.get("target") == "successive"
        if isinstance(self._ranks, Mapping):
            frames = {trial: self._ranks[trial] for trial in trials if trial in self._ranks}
        else:
            chosen = self._ranks.filter(pl.col("trial").is_in(trials))
            parts = chosen.partition_by("trial", as_dict=True, include_key=False)
            frames = {trial: frame for (trial,), frame in parts.items()}
        return {trial: _checked(trial, frame, several) for trial, frame in frames.items()}


def cell_of(record: Record) -> Cell:
    return Cell(*(record[key] for key in KEY))


def json_object(text: str | None, where: str) -> Json:
    """Parse a JSON object; NaN and infinity become None. Raises HarnessError, naming `where`, if it is not one."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HarnessError(f"{where} is not a JSON object: {str(text)[:60]}")
    return finite(value)


def finite(value: Any) -> Any:
    """Replace every NaN and infinity, at any depth, by None."""
    if isinstance(value, float):  # first: most values of a large table are numbers
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def _check_columns(name: str, frame: pl.DataFrame | pl.LazyFrame, required: list[str]) -> None:
    columns = frame.collect_schema().names()
    for column in required:
        if column not in columns:
            raise HarnessError(f"The frame '{name}' has no column '{column}'. {suggest(column, columns)}")


def _planned(cells: pl.DataFrame) -> set[Cell]:
    planned = Counter(cell_of(record) for record in cells.select(KEY).iter_rows(named=True))
    for cell, count in planned.items():
        if count > 1:
            raise HarnessError(f"The frame 'cells' contains {cell} {count} times.")
    for state in cells["state"].unique():
        if state not in STATES:
            raise HarnessError(f"The frame 'cells' contains the unknown state '{state}'. {suggest(str(state), STATES)}")
    return set(planned)


def _by_cell(runs: pl.DataFrame) -> dict[Cell, list[Record]]:
    groups: dict[Cell, list[Record]] = {}
    for record in runs.sort("seed").iter_rows(named=True):
        groups.setdefault(cell_of(record), []).append(record)
    return groups


def _checked(trial: str, frame: pl.DataFrame, several: bool) -> tuple[np.ndarray, Ranks]:
    """Return a trial's users (Q,), int64, and their ranks (Q,), ordered by user.

    several: whether a user may have more than one target; these keep their order.
    """
    if not frame["user"].is_sorted():
        frame = frame.sort("user", maintain_order=True)
    users = frame["user"].cast(pl.Int64).to_numpy()
    low, high = (frame[name].cast(pl.Float64).to_numpy() for name in ("low", "high"))
    if not (np.isfinite(high) & (low >= 1)).all():
        raise HarnessError(f"Trial {trial} has the rank {np.nanmin(low)}; ranks must be finite and at least 1.")
    if (low > high).any():
        at = int((low > high).argmax())
        raise HarnessError(f"Trial {trial} has a rank with low {low[at]:g} above high {high[at]:g}.")
    if not several and (np.diff(users) == 0).any():
        raise HarnessError(f"Trial {trial} has more than one rank for a user.")
    return users, Ranks(low, high)


def _check_runs(cell: Cell, runs: list[Record]) -> None:
    seeds = [run["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise HarnessError(f"{cell} has more than one run for a seed: {', '.join(map(str, seeds))}.")
    first, *others = (json_object(run["params"], f"{cell}: params") for run in runs)
    if any(other != first for other in others):
        raise HarnessError(f"The runs of {cell} have different params; a row of a table is one configuration.")

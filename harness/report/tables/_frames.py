"""The frames that a table is made of, checked: one clear line for each way they can be wrong."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from harness.metrics._ties import Ranks
from harness.registry import suggest
from harness.types import Cell, HarnessError

KEY = ["dataset", "encoder", "backbone", "adapter"]  # encoder "none": no text; backbone "none": a baseline
STATES = ["done", "partial", "running", "skipped", "failed", "pending"]
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
    "user": pl.Int64,
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
    "tuned": pl.String,  # searched, default, fixed or nothing
    "setting": pl.String,  # name of the published setting in its space
    "warm_start": pl.String,  # data set whose best configurations started the search
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
    "run": pl.String,  # launch that started it
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
    ``header``: JSON objects by name, all optional: ``protocol``, ``prep``, ``budget``, ``engine``, ``provenance``,
    ``data`` (a card per data set), ``settings`` (a description of each published setting); and the number
    ``test_opened`` of runs whose test was opened.
    """

    runs: pl.DataFrame
    ranks: pl.DataFrame
    cells: pl.DataFrame
    header: dict[str, Any] = field(default_factory=dict)
    trials: pl.LazyFrame = field(default_factory=lambda: pl.LazyFrame(schema=TRIALS))
    queries: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUERIES))
    spectra: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SPECTRA))


@dataclass(frozen=True)
class Confirmed:
    """The test-opened runs of one cell: ranks (Q,) of each of S seeds, the users (Q,) that they are of, ascending, and
    one dict a run."""

    ranks: list[Ranks]
    users: np.ndarray
    runs: list[dict[str, Any]]


def confirmed(results: Results) -> dict[Cell, Confirmed]:
    """The confirmed runs by cell, users in one order for all cells of a data set.

    Raises HarnessError if a column is missing, a run is outside the plan, doubled or without ranks, a rank is below
    1, the runs of a cell differ in their parameters, or the cells of a data set rank different users.
    """
    for name, schema in SCHEMAS.items():
        _check_columns(name, getattr(results, name), list(schema))
    planned = _planned(results.cells)
    several = (results.header.get("protocol") or {}).get("target") == "successive"
    ranks = dict(_by_trial(results.ranks, several))
    users: dict[str, np.ndarray] = {}
    found = {}
    for cell, runs in _by_cell(results.runs).items():
        if cell not in planned:
            raise HarnessError(f"runs hold {cell}, which is no cell of the plan.")
        _check_runs(cell, runs)
        columns = []
        for run in runs:
            own, values = ranks.get(run["trial"], (np.empty(0), Ranks.untied(np.empty(0))))
            if not np.array_equal(users.setdefault(cell.dataset, own), own) or not len(own):
                raise HarnessError(
                    f"{cell}, seed {run['seed']}: its test ranks are of {len(own)} users, other rows of "
                    f"{cell.dataset} of {len(users[cell.dataset])}; a table compares the same users."
                )
            columns.append(values)
        found[cell] = Confirmed(columns, users[cell.dataset], runs)
    return found


def cell_of(record: dict[str, Any]) -> Cell:
    return Cell(*(record[key] for key in KEY))


def json_object(text: str | None, where: str) -> dict[str, Any]:
    """The object that a JSON cell holds; numbers that JSON has no word for become None."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise HarnessError(f"{where} is no JSON object: {str(text)[:60]}")
    return finite(value)


def finite(value: Any) -> Any:
    """The value with every NaN and infinity, at any depth, replaced by None."""
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _check_columns(name: str, frame: pl.DataFrame | pl.LazyFrame, wanted: list[str]) -> None:
    known = frame.collect_schema().names()
    for column in wanted:
        if column not in known:
            raise HarnessError(f"The frame '{name}' has no column '{column}'. {suggest(column, known)}")


def _planned(cells: pl.DataFrame) -> set[Cell]:
    planned = Counter(cell_of(record) for record in cells.select(KEY).iter_rows(named=True))
    for cell, count in planned.items():
        if count > 1:
            raise HarnessError(f"cells hold {cell} {count} times.")
    for state in cells["state"].unique():
        if state not in STATES:
            raise HarnessError(f"cells hold the state '{state}'. {suggest(str(state), STATES)}")
    return set(planned)


def _by_cell(runs: pl.DataFrame) -> dict[Cell, list[dict[str, Any]]]:
    groups: dict[Cell, list[dict[str, Any]]] = {}
    for record in runs.sort("seed").iter_rows(named=True):
        groups.setdefault(cell_of(record), []).append(record)
    return groups


def _by_trial(ranks: pl.DataFrame, several: bool) -> Iterator[tuple[str, tuple[np.ndarray, Ranks]]]:
    """Each trial with its users (Q,) and their ranks (Q,), ordered by user; `several`: a user may have more
    targets than one, which stay in their order."""
    for (trial,), frame in ranks.partition_by("trial", as_dict=True, include_key=False).items():
        if not frame["user"].is_sorted():
            frame = frame.sort("user", maintain_order=True)
        users = frame["user"].to_numpy()
        low, high = (frame[name].cast(pl.Float64).to_numpy() for name in ("low", "high"))
        if not (np.isfinite(high) & (low >= 1)).all():
            raise HarnessError(f"ranks of trial {trial} hold {np.nanmin(low)}; ranks are finite and start at 1.")
        if (low > high).any():
            at = int((low > high).argmax())
            raise HarnessError(f"ranks of trial {trial} hold low {low[at]:g} above high {high[at]:g}.")
        if not several and (np.diff(users) == 0).any():
            raise HarnessError(f"ranks of trial {trial} hold a user more than once.")
        yield trial, (users, Ranks(low, high))


def _check_runs(cell: Cell, runs: list[dict[str, Any]]) -> None:
    seeds = [run["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise HarnessError(f"{cell}: runs hold a seed more than once: {', '.join(map(str, seeds))}.")
    first, *others = (json_object(run["params"], f"{cell}: params") for run in runs)
    if any(other != first for other in others):
        raise HarnessError(f"{cell}: its runs differ in their params; a row of a table is one configuration.")

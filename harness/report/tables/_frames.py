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

KEY = ["dataset", "encoder", "backbone", "adapter"]
COLUMNS = {
    "runs": ["trial", *KEY, "seed", "params", "best_valid", "seconds", "parameters", "effective_rank", "info"],
    "ranks": ["trial", "user", "low", "high"],
    "cells": [
        *KEY,
        *("trials_done", "trials_pruned", "trials_failed", "trials_planned", "search_seconds"),
        *("search_epochs", "searched", "tuned", "setting", "warm_start", "cell_seconds"),
        *("seeds_done", "seeds_planned", "state", "reason"),
    ],
}
TRIALS = {
    **dict.fromkeys(["trial", "study", *KEY, "role"], pl.String),
    **dict.fromkeys(["number", "seed"], pl.Int64),
    **dict.fromkeys(["status", "reason"], pl.String),
    "best": pl.Float64,
    "best_epoch": pl.Int64,
    "curve": pl.List(pl.Float64),
    "epochs": pl.Int64,
    "seconds": pl.Float64,
    **dict.fromkeys(["params", "info"], pl.String),
    **dict.fromkeys(["started", "ended"], pl.Float64),
    "run": pl.String,
}
QUERIES = {
    "dataset": pl.String,
    "user": pl.Int64,
    "cold": pl.Boolean,
    "popularity": pl.Int64,
    "band": pl.String,
    "history": pl.Int64,
    "tied": pl.Boolean,
    "words": pl.Int64,
}
SPECTRA = {"trial": pl.String, "start": pl.List(pl.Float64), "end": pl.List(pl.Float64)}
OPTIONAL = {"trials": TRIALS, "queries": QUERIES, "spectra": SPECTRA}
STATES = ["done", "partial", "running", "skipped", "failed", "pending"]


@dataclass(frozen=True)
class Results:
    """What is known of a bench, as the ledger gives it.

    ``runs``: one row a confirmed (test-opened) run: trial, dataset, encoder, backbone, adapter (backbone ``none``:
    a baseline, encoder ``none``: no text), seed, params (JSON object), best_valid (validation NDCG@10), seconds,
    parameters, effective_rank (null: none), info (JSON object of further diagnostics).
    ``ranks``: trial, user, low, high: the first and last place of the test target among the candidates of its score.
    ``cells``: one row a cell of the plan: trials_done, _pruned, _failed, _planned, search_seconds, search_epochs,
    searched (names of the dimensions of its space; null: not recorded), tuned (searched, default, fixed, nothing),
    setting (the published one that its space holds), warm_start, cell_seconds (null: no limit), seeds_done,
    seeds_planned, state (done, partial, running, skipped, failed, pending), reason.
    ``trials``: one row a trial of those cells that was ever started, search and confirmation, in the order of cells,
    roles and numbers: trial, study, dataset, encoder, backbone, adapter, role (search, confirm), number (its place in
    the search or among the seeds), seed, status (done, pruned, failed, running: started and not ended), reason, best
    (validation NDCG@10; null: none), best_epoch, curve (validation NDCG@10 by epoch), epochs, seconds, params and info
    (JSON objects), started and ended (seconds since 1970; null: not known), run. A configuration drawn twice stands
    there under both numbers, with one trial id.
    ``queries``: one row a test target, in the order of the ranks: dataset, user, cold (never trained on), popularity
    (training events of the target), band (head, mid, tail: each a third of the training events), history (events before
    it), tied (at the very time of the one before; null: times are not known), words (of the target's text).
    ``spectra``: one row a confirmed run: trial, start and end: singular values of its item table over the largest,
    before and after training. Without these three, tables lack what is made of them.
    ``header``: JSON objects by name, all optional: ``protocol``, ``prep``, ``budget``, ``engine``, ``provenance``,
    ``data`` (a card a data set), ``settings`` (what each published setting is); and the number ``test_opened``, of runs
    whose test was opened.
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
    for name, columns in (COLUMNS | {key: list(value) for key, value in OPTIONAL.items()}).items():
        _check_columns(name, getattr(results, name), columns)
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

"""Warm start: the best configurations that the search of the same cell found on another data set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.search.spaces import Space
from harness.types import Cell, HarnessError

POINTS = 3  # configurations taken over: enough to transfer, few enough to leave most of a search of 16 to itself


def starts(ledger: Ledger, cell: Cell, space: Space, dataset: str) -> tuple[dict[str, Any], ...]:
    """The best finished configurations of this cell's newest search on `dataset`, best first, at most `POINTS`.

    Each is a whole set of parameters; what this space fixes stays fixed, and a configuration outside of this space is
    left out. Empty for the cells of `dataset` itself, where that cell was not searched there, and for dataset "".
    """
    if not dataset or cell.dataset == dataset:
        return ()
    source = replace(cell, dataset=dataset)
    for run in sorted(ledger.launches, reverse=True):
        for study in ledger.launches[run].studies:
            if study.cell == source and (configurations := _best(ledger, study, space)):
                return configurations
    return ()


def _best(ledger: Ledger, study: StudyRecord, space: Space) -> tuple[dict[str, Any], ...]:
    history = ledger.history(study.id, ledger.planned(study))
    done = [(-r.best, n, i) for n, (i, r) in history.items() if r is not None and r.status == "done"]
    found: list[dict[str, Any]] = []
    for *_, trial_id in sorted(done):
        params = _moved(ledger.trials[trial_id].trial.params, space)
        if params is not None and params != space.default and params not in found:
            found.append(params)
    return tuple(found[:POINTS])


def _moved(params: dict[str, Any], space: Space) -> dict[str, Any] | None:
    """The configuration as one of this space, or None if it lies outside."""
    if any(name not in params for name in space.searched):
        return None
    moved = space.default | {name: params[name] for name in space.searched}
    for name, axis in space.searched.items():
        if axis.when is not None and not axis.when.holds(moved):
            moved[name] = space.default[name]
        elif not axis.holds(moved[name]):
            return None
    return moved


def check(ledger: Ledger, dataset: str) -> None:
    """Raises HarnessError if nothing was searched on a data set of that name."""
    known = sorted({study.cell.dataset for launch in ledger.launches.values() for study in launch.studies})
    if dataset and dataset not in known:
        from harness.registry import suggest

        hint = suggest(dataset, known) if known else "This home holds no searches yet."
        raise HarnessError(f"--warm-start {dataset}: no cell was searched on it. {hint}")

"""Warm start: begin a search with the best configurations of the same cell on another data set."""

from __future__ import annotations

from dataclasses import replace

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.search.spaces import Space
from harness.types import Cell, HarnessError, Json, Params

POINTS = 3  # configurations to copy: few enough to leave most of a search of 16 trials to the sampler


def starts(ledger: Ledger, cell: Cell, space: Space, dataset: str) -> tuple[Json, ...]:
    """Return up to `POINTS` best finished configurations of this cell's newest search on `dataset`, best first.

    Each has all parameters. Parameters that this space fixes keep its value; configurations outside of this space are
    left out. Empty for the cells of `dataset` itself, for cells without a search there, and for dataset "".
    """
    if not dataset or cell.dataset == dataset:
        return ()
    source = replace(cell, dataset=dataset)
    for run in sorted(ledger.launches, reverse=True):
        for study in ledger.launches[run].studies:
            if study.cell == source and (configurations := _best(ledger, study, space)):
                return configurations
    return ()


def _best(ledger: Ledger, study: StudyRecord, space: Space) -> tuple[Json, ...]:
    history = ledger.history(study.id, ledger.planned(study))
    done = [(-r.best, n, i) for n, (i, r) in history.items() if r is not None and r.status == "done"]
    configurations: list[Json] = []
    for *_, trial_id in sorted(done):
        params = _transferred(ledger.trials[trial_id].trial.params, space)
        if params is not None and params != space.default and params not in configurations:
            configurations.append(params)
    return tuple(configurations[:POINTS])


def _transferred(params: Params, space: Space) -> Json | None:
    """Convert a configuration to this space; None if it is outside."""
    if any(name not in params for name in space.searched):
        return None
    point = space.default | {name: params[name] for name in space.searched}
    for name, axis in space.searched.items():
        if axis.when is not None and not axis.when.holds(point):
            point[name] = space.default[name]
        elif not axis.holds(point[name]):
            return None
    return point


def check(ledger: Ledger, dataset: str) -> None:
    """Raise HarnessError if the ledger has no search on a data set of that name."""
    searched = sorted({study.cell.dataset for launch in ledger.launches.values() for study in launch.studies})
    if dataset and dataset not in searched:
        from harness.registry import suggest

        hint = suggest(dataset, searched) if searched else "This home has no searches yet."
        raise HarnessError(f"--warm-start {dataset}: there is no search on this data set. {hint}")

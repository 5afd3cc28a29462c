"""Search results at smaller budgets, estimated from the validation values of the trials."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.report.tables._frames import KEY
from harness.stats import resampling
from harness.types import Cell


@dataclass(frozen=True)
class BestOf:
    """Best validation NDCG@10 of ``k`` trials.

    ``observed``: of the first k in order, None until all have ended, or if none is done. ``expected``: of any k of the
    ended trials (`resampling.expected_best`), with an interval if at least 4 k trials ended.
    """

    k: int
    observed: float | None
    expected: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SearchCurve:
    """The search trials of one cell.

    ``values``: validation value of each ended trial. ``best``: best done trial among the first 1, 2, ... in order, up
    to the first that has not ended; minus infinity if none is done.
    """

    values: np.ndarray
    best: np.ndarray
    planned: int

    @classmethod
    def of(cls, searched: pl.DataFrame, planned: int) -> SearchCurve:
        """Return the curve of search trials with the columns of `valued`."""
        number, value, ended, done = (searched[name].to_numpy() for name in ("number", "value", "ended", "done"))
        number, value, done = number[ended], value[ended], done[ended]
        order = np.argsort(number)
        begun = order[np.logical_and.accumulate(number[order] == np.arange(len(order)))]  # up to the first gap
        return cls(value, np.maximum.accumulate(np.where(done, value, -np.inf)[begun]), planned)


def valued(trials: pl.LazyFrame) -> pl.LazyFrame:
    """Return `Results.trials` with number, ``ended``, ``value`` and whether it counts as a best one, ``done``.

    A failed trial counts as 0, since it gives the user no score; a pruned one as its best value.
    """
    status, best = pl.col("status"), pl.col("best")
    value = pl.when(status == "failed").then(0.0).otherwise(best.fill_null(0.0))
    done = (status == "done") & best.is_not_null()
    return trials.select(*KEY, "number", value=value, ended=status != "running", done=done)


def best_of(searches: dict[Cell, SearchCurve]) -> dict[Cell, tuple[BestOf, ...]]:
    """Return the search results of each cell at 1, 2, 4, ... trials and at the planned number."""
    intervals: dict[tuple[Cell, int], resampling.Interval] = {}
    for n in sorted({len(search.values) for search in searches.values()}):  # cells with n trials share resamples
        alike = [cell for cell, search in searches.items() if len(search.values) == n]
        for k in sorted({k for cell in alike for k in steps(searches[cell].planned) if 4 * k <= n}):
            values = np.stack([searches[cell].values for cell in alike], 1)
            expected = resampling.expected_best_intervals(values, k)
            intervals |= {(cell, k): interval for cell, interval in zip(alike, expected, strict=True)}
    return {
        cell: tuple(_at(k, search, intervals.get((cell, k))) for k in steps(search.planned))
        for cell, search in searches.items()
    }


def steps(planned: int) -> list[int]:
    """Return 1, 2, 4, ... below the planned number of trials, and that number.

    >>> steps(12), steps(1), steps(0)
    ([1, 2, 4, 8, 12], [1], [])
    """
    powers = [2**i for i in range(planned.bit_length()) if 2**i < planned]
    return [*powers, planned] if planned else []


def _at(k: int, search: SearchCurve, interval: resampling.Interval | None) -> BestOf:
    best = search.best[k - 1] if k <= len(search.best) else -np.inf
    observed = float(best) if np.isfinite(best) else None
    if interval is not None:
        return BestOf(k, observed, interval.mean, interval.low, interval.high)
    expected = resampling.expected_best(search.values, k) if k <= len(search.values) else None
    return BestOf(k, observed, expected, None, None)

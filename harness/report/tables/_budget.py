"""Search results at smaller budgets, estimated from the validation values of the trials."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, count, takewhile

import numpy as np
import polars as pl

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
    to the first that has not ended; None if none is done.
    """

    values: np.ndarray
    best: list[float | None]
    planned: int

    @classmethod
    def of(cls, searched: pl.DataFrame, planned: int) -> SearchCurve:
        """Return the curve of search trials with the columns of `Results.trials`.

        A failed trial counts as 0, since it gives the user no score; a pruned one as its best value.
        """
        ended = [(number, status, best) for number, status, best in _columns(searched) if status != "running"]
        curve = {number: _value(status, best) for number, status, best in ended}
        done = {number: best for number, status, best in ended if status == "done" and best is not None}
        numbers = takewhile(curve.__contains__, count())
        return cls(np.array([*curve.values()]), [*accumulate(map(done.get, numbers), _better)], planned)


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


def _better(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


def _at(k: int, search: SearchCurve, interval: resampling.Interval | None) -> BestOf:
    observed = search.best[k - 1] if k <= len(search.best) else None
    if interval is not None:
        return BestOf(k, observed, interval.mean, interval.low, interval.high)
    expected = resampling.expected_best(search.values, k) if k <= len(search.values) else None
    return BestOf(k, observed, expected, None, None)


def _columns(searched: pl.DataFrame) -> list[tuple[int, str, float | None]]:
    return list(searched.select("number", "status", "best").iter_rows())


def _value(status: str, best: float | None) -> float:
    return 0.0 if status == "failed" or best is None else best

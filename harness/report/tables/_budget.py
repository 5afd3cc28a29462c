"""What a search would have come to at smaller budgets, from the validation values of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, count, takewhile

import numpy as np
import polars as pl

from harness.stats import resampling
from harness.types import Cell


@dataclass(frozen=True)
class BestOf:
    """Best validation NDCG@10 of ``k`` trials: ``observed`` of the first k, in their order (None while they are not all
    ended, or if none is done); ``expected`` of any k of the trials that ended (`stats.expected_best`), with its
    interval where there are four times as many."""

    k: int
    observed: float | None
    expected: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class SearchCurve:
    """The search trials of one cell. ``values``: what each that ended showed; ``best``: of the first 1, 2, ... trials,
    in their order and as far as all have ended, the best that was not stopped, None if none is done."""

    values: np.ndarray
    best: list[float | None]
    planned: int

    @classmethod
    def of(cls, searched: pl.DataFrame, planned: int) -> SearchCurve:
        """From its search trials, as `Results.trials` has them. A failed trial counts as 0, what the user would have
        had; a pruned one as the best that it had shown."""
        known = [(number, status, best) for number, status, best in _columns(searched) if status != "running"]
        curve = {number: _value(status, best) for number, status, best in known}
        done = {number: best for number, status, best in known if status == "done" and best is not None}
        ended = takewhile(curve.__contains__, count())
        return cls(np.array([*curve.values()]), [*accumulate(map(done.get, ended), _better)], planned)


def best_of(searches: dict[Cell, SearchCurve]) -> dict[Cell, tuple[BestOf, ...]]:
    """The search of each cell at 1, 2, 4, ... trials and at as many as were planned."""
    intervals: dict[tuple[Cell, int], resampling.Interval] = {}
    for n in sorted({len(own.values) for own in searches.values()}):  # resamples are alike for as many trials
        alike = [cell for cell, own in searches.items() if len(own.values) == n]
        for k in sorted({k for cell in alike for k in steps(searches[cell].planned) if 4 * k <= n}):
            found = resampling.expected_best_intervals(np.stack([searches[cell].values for cell in alike], 1), k)
            intervals |= {(cell, k): interval for cell, interval in zip(alike, found, strict=True)}
    return {
        cell: tuple(_at(k, search, intervals.get((cell, k))) for k in steps(search.planned))
        for cell, search in searches.items()
    }


def steps(planned: int) -> list[int]:
    """
    >>> steps(12), steps(1), steps(0)
    ([1, 2, 4, 8, 12], [1], [])
    """
    powers = [2**i for i in range(planned.bit_length()) if 2**i < planned]
    return [*powers, planned] if planned else []


def _better(a: float | None, b: float | None) -> float | None:
    return b if a is None else a if b is None else max(a, b)


def _at(k: int, search: SearchCurve, found: resampling.Interval | None) -> BestOf:
    observed = search.best[k - 1] if k <= len(search.best) else None
    if found is not None:
        return BestOf(k, observed, found.mean, found.low, found.high)
    expected = resampling.expected_best(search.values, k) if k <= len(search.values) else None
    return BestOf(k, observed, expected, None, None)


def _columns(searched: pl.DataFrame) -> list[tuple[int, str, float | None]]:
    return list(searched.select("number", "status", "best").iter_rows())


def _value(status: str, best: float | None) -> float:
    return 0.0 if status == "failed" or best is None else best

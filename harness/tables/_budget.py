"""What a search would have come to at smaller budgets, from the validation values of its trials."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np
import polars as pl

from harness import stats


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


def best_of(searched: pl.DataFrame, planned: int) -> tuple[BestOf, ...]:
    """The search of one cell at 1, 2, 4, ... trials and at as many as were planned.

    searched: its search trials, as `Results.trials` has them. A failed trial counts as 0, what the user would have had;
    a pruned one as the best that it had shown.
    """
    known = [(number, status, best) for number, status, best in _columns(searched) if status != "running"]
    curve = {number: _value(status, best) for number, status, best in known}
    done = {number: best for number, status, best in known if status == "done" and best is not None}
    values = np.sort(np.array([*curve.values()]))
    first = next(number for number in count() if number not in curve)  # that has not ended
    observed = {k: _best(done, k) if k <= first else None for k in steps(planned)}
    wide = [k for k in observed if 4 * k <= len(values)]
    intervals = dict(zip(wide, stats.expected_best_intervals(values, wide), strict=True)) if wide else {}
    return tuple(_at(k, own, values, intervals.get(k)) for k, own in observed.items())


def _best(done: dict[int, float], k: int) -> float | None:
    """Of the first k trials."""
    return max((value for number, value in done.items() if number < k), default=None)


def steps(planned: int) -> list[int]:
    """
    >>> steps(12), steps(1), steps(0)
    ([1, 2, 4, 8, 12], [1], [])
    """
    powers = [2**i for i in range(planned.bit_length()) if 2**i < planned]
    return [*powers, planned] if planned else []


def _at(k: int, observed: float | None, values: np.ndarray, found: stats.Interval | None) -> BestOf:
    if found is not None:
        return BestOf(k, observed, found.mean, found.low, found.high)
    return BestOf(k, observed, stats.expected_best(values, k) if k <= len(values) else None, None, None)


def _columns(searched: pl.DataFrame) -> list[tuple[int, str, float | None]]:
    return list(searched.select("number", "status", "best").iter_rows())


def _value(status: str, best: float | None) -> float:
    return 0.0 if status == "failed" or best is None else best

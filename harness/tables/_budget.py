"""What a search would have come to at smaller budgets, from the validation values of its trials."""

from __future__ import annotations

from dataclasses import dataclass

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
    curve = {number: _value(status, best) for number, status, best in _columns(searched) if status != "running"}
    done = {number: best for number, status, best in _columns(searched) if status == "done" and best is not None}
    values = np.array([curve[number] for number in sorted(curve)])
    return tuple(_at(k, curve, done, values) for k in steps(planned))


def steps(planned: int) -> list[int]:
    """
    >>> steps(12), steps(1), steps(0)
    ([1, 2, 4, 8, 12], [1], [])
    """
    powers = [2**i for i in range(planned.bit_length()) if 2**i < planned]
    return [*powers, planned] if planned else []


def _at(k: int, curve: dict[int, float], done: dict[int, float], values: np.ndarray) -> BestOf:
    whole = all(number in curve for number in range(k))
    observed = max((value for number, value in done.items() if number < k), default=None) if whole else None
    if k > len(values):
        return BestOf(k, observed, None, None, None)
    if 4 * k > len(values):
        return BestOf(k, observed, stats.expected_best(values, k), None, None)
    found = stats.expected_best_interval(values, k)
    return BestOf(k, observed, found.mean, found.low, found.high)


def _columns(searched: pl.DataFrame) -> list[tuple[int, str, float | None]]:
    return list(searched.select("number", "status", "best").iter_rows())


def _value(status: str, best: float | None) -> float:
    return 0.0 if status == "failed" or best is None else best

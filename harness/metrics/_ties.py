"""Ranks with ties, and the expected value of a metric over random orders of ties."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.types import HarnessError


@dataclass(frozen=True)
class Ranks:
    """Ranks of test targets, each as the first and last place of its tie: `low` and `high`, (q,), 1 <= low <= high.

    A target that shares its score with n other candidates has high = low + n. Whole numbers, except in results of
    earlier versions, which stored the middle of the two as both.
    """

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def untied(cls, ranks: np.ndarray) -> Ranks:
        """Ranks (q,) without ties.

        >>> Ranks.untied(np.array([3.0, 1.0])).tied.any()
        np.False_
        """
        return cls(ranks, ranks)

    @property
    def middle(self) -> np.ndarray:
        """Mid-ranks, float64 (q,)."""
        return (self.low + self.high) / 2

    @property
    def tied(self) -> np.ndarray:
        """True for targets that share their score with another candidate, bool (q,)."""
        return self.high > self.low

    def equal(self, other: Ranks) -> np.ndarray:
        """True where both bounds agree, bool (q,)."""
        return (self.low == other.low) & (self.high == other.high)

    def __len__(self) -> int:
        return len(self.low)

    def __getitem__(self, at: np.ndarray) -> Ranks:
        return Ranks(self.low[at], self.high[at])


def expected(metric: Callable[[np.ndarray, int], np.ndarray], ranks: Ranks, k: int) -> np.ndarray:
    """Expectation of a metric over equally likely orders within each tie, float64 (q,).

    `metric` maps whole ranks to values, so the expectation is its mean over the ranks low..high, computed from prefix
    sums (McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of
    tied scores", ECIR 2008). The middle rank of a tie does not give the expected value: of 19 items tied at the top,
    the middle one is always a hit at 10, a random one in 10 of 19 cases. Raises HarnessError for values outside 0..1.

    >>> expected(lambda ranks, k: (ranks <= k) * 1.0, Ranks(np.array([1]), np.array([19])), 10).round(4)
    array([0.5263])
    """
    values = metric(ranks.low, k)
    if len(values) and not (values.min() >= 0 and values.max() <= 1):  # intervals end there
        raise HarnessError(
            f"The metric '{getattr(metric, '__name__', '?')}' takes values from {values.min():g} to {values.max():g}; "
            "they must be from 0 to 1. Divide it by its value at rank 1."
        )
    tied = ranks.tied
    if tied.any():
        low, high = ranks.low[tied].astype(np.int64), ranks.high[tied].astype(np.int64)
        sums = np.concatenate([[0.0], np.cumsum(metric(np.arange(1.0, high.max() + 1), k))])
        values[tied] = (sums[high] - sums[low - 1]) / (high - low + 1)
    return values

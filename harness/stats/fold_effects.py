"""Intervals and tests over test windows (folds), with the folds as a random effect.

Letters: k folds, U pairs of a fold and a user with a target in it, n rows of a section. A row's score is the mean over
folds of the mean over the users of a fold, m_f. In each fold, every seed trains a model of its own, so that the noise
of users and seeds within a fold is part of the variance of the m_f:

    variance of the mean = var(m_f) / k + C.

C is the mean covariance of two folds. It is due to users who are tested in several folds; var(m_f), the variance
between folds, does not include it. It is estimated from the deviations of these users from the means of their folds,
and taken as 0 if negative. This is the variance of a mean of k correlated values, with their average variance V and
covariance C: V / k + (k - 1) C / k, where var(m_f) estimates V - C. The difference of two rows is treated alike, with
the differences of each fold.

The sum has the k - 1 degrees of freedom of var(m_f), although C has more: weights of the parts, as in
`crossed_effects`, undercover at one degree of freedom. So intervals are too wide rather than too narrow where C is
large. With two folds they are wide in any case, and few differences are significant. The folds are consecutive windows
of one data set: an interval covers other windows like these, and no later period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.stats.crossed_effects import CrossedRows, Difference, ScoreSummary, _settled
from harness.stats.folds import NO_FOLDS, Folds
from harness.stats.resampling import DIGITS, check
from harness.types import HarnessError

FEWEST_DRAWN = 5  # folds; with fewer, resamples of them take too few values to be a share of anything


@dataclass(frozen=True)
class FoldSummary(ScoreSummary):
    """Summary of a row's scores by fold and user; `mean` is the mean over folds of their means."""

    folds: Folds = NO_FOLDS

    @cached_property
    def mean(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return round(float(self.folds.means(self.users).mean()), DIGITS)


def summary(scores: np.ndarray, folds: Folds) -> FoldSummary:
    """Summarise scores (U, S) of S seeds.

    Raises HarnessError unless the scores are finite and two-dimensional.
    """
    check(scores)
    return FoldSummary(scores.mean(1).round(DIGITS), scores.shape[1], deterministic=True, folds=folds)


class FoldRows(CrossedRows):
    """`CrossedRows` with folds as a random effect. Raises HarnessError with fewer than two folds."""

    def __init__(self, rows: Sequence[FoldSummary]) -> None:
        super().__init__(rows)
        self.folds = rows[0].folds
        self.count = len(self.folds.counts)
        if self.count < 2:
            raise HarnessError("Scores of sliding windows need at least two folds.")
        self._by_fold = self.folds.means(self.users)

    @property
    def few(self) -> bool:
        """Sign flips of so few folds would reject nothing; the t test has their degrees of freedom."""
        return False

    @cached_property
    def _shared(self) -> np.ndarray:
        """Mean covariance of two folds, (n, n) for rows i and j."""
        k, counts = self.count, self.folds.counts
        moved = (self.users - np.repeat(self._by_fold, counts, axis=0)) / np.repeat(counts, counts)[:, None]
        users, place = np.unique(self.folds.user, return_inverse=True)
        by_user = np.stack([np.bincount(place, column, len(users)) for column in moved.T], 1)
        return (by_user.T @ by_user - moved.T @ moved) / (k * (k - 1))

    @cached_property
    def single(self) -> tuple[np.ndarray, np.ndarray]:
        return self._parts(self._by_fold.var(0, ddof=1), np.diag(self._shared))

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        between = (self._by_fold[:, :, None] - self._by_fold[:, None, :]).round(DIGITS).var(0, ddof=1)
        own = np.diag(self._shared)
        variance, df = self._parts(between, own[:, None] + own - self._shared - self._shared.T)
        np.fill_diagonal(variance, 0)
        return variance, df

    def firsts(self, draws: np.ndarray, streams: Sequence[int]) -> np.ndarray:
        """`CrossedRows.firsts` over folds; NaN with too few folds."""
        return super().firsts(draws, streams) if self.count >= FEWEST_DRAWN else np.full(len(self.rows), np.nan)

    def _parts(self, between: np.ndarray, shared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variance and degrees of freedom of a mean; between: variance between folds, shared: covariance of two."""
        total = between / self.count + np.maximum(shared, 0)
        total = np.where(total < 10.0 ** (-2 * DIGITS), 0, total)  # rounding
        return _settled(total), np.full(total.shape, self.count - 1.0)


def compare(a: np.ndarray, b: np.ndarray, folds: Folds) -> Difference:
    """Mean of a minus mean of b, from scores (U, S) and (U, S') of the same folds and users in the same order."""
    return FoldRows([summary(scores, folds) for scores in (a, b)]).difference(0, 1)

"""Keys of fold and user, and means and resamples over folds. Imports no SciPy, so that any command may use it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.stats.resampling import ROUNDS

FOLD = 2**32  # user u of fold f has the key f * FOLD + u


@dataclass(frozen=True)
class Folds:
    """The fold and the user of each score: fold int64 (U,), ascending; user int64 (U,)."""

    fold: np.ndarray
    user: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> Folds:
        """Return the folds of keys (Q,), ascending; a key may occur several times."""
        unique = np.unique(keys)
        return cls(unique // FOLD, unique % FOLD)

    @cached_property
    def counts(self) -> np.ndarray:
        """Users of each fold, int64 (k,)."""
        return np.unique(self.fold, return_counts=True)[1]

    @cached_property
    def starts(self) -> np.ndarray:
        return np.concatenate(([0], np.cumsum(self.counts)[:-1]))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of each fold, (k, ...), of values (U, ...)."""
        counts = self.counts.reshape(-1, *[1] * (values.ndim - 1))
        return np.add.reduceat(values, self.starts) / counts

    def draws(self, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
        """Weights, float64 (rounds, U), under which the mean over U is the mean over resampled folds of their means.

        k - 1 of k folds are drawn, so that the variance is unbiased (`resampling.seed_draws`).
        """
        k = len(self.counts)
        folds = np.random.default_rng(seed).multinomial(k - 1, np.full(k, 1 / k), size=rounds) / (k - 1)
        return np.repeat(folds * (len(self.fold) / self.counts), self.counts, axis=1)


NO_FOLDS = Folds(np.empty(0, np.int64), np.empty(0, np.int64))

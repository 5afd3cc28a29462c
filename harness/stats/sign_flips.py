"""Sign-flip tests and intervals for few users, where Student's t would rely on a normal distribution.

If two rows are equally good, either sign of a user's difference is equally likely (Fisher, "The Design of Experiments",
1935, section 21). Flipping the signs of a subset of users moves the mean away from zero exactly if the mean of that
subset has the opposite sign. The test therefore counts subset means on either side of zero, and their order statistics
give the matching interval (Hartigan, "Using subsample values as typical values", JASA 1969).

Letters: U users, F subsets, n rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from harness.stats.resampling import DIGITS

ALL = 13  # max users for which every subset is used: 8,191
SUBSETS = 9999  # drawn for more users
SLACK = 1e-11  # means up to this size count as 0: values have `DIGITS` decimals


@lru_cache(maxsize=4)
def subsets(users: int) -> np.ndarray:
    """Non-empty subsets, bool (F, U): all of them up to `ALL` users, else `SUBSETS` random but fixed ones."""
    if users <= ALL:
        return (np.arange(1, 2**users)[:, None] >> np.arange(users) & 1).astype(bool)
    drawn = np.random.default_rng(0).integers(2, size=(SUBSETS, users)).astype(bool)
    drawn[~drawn.any(1)] = True
    return drawn


def smallest(users: int) -> float:
    """The smallest possible p-value for this number of users."""
    return min(1.0, 2 / (len(subsets(users)) + 1))


def means(values: np.ndarray) -> np.ndarray:
    """Means (n, F) of values (U, n) over each subset of users."""
    chosen = subsets(len(values)).astype(np.float64)
    return np.round(values.T @ (chosen / chosen.sum(1, keepdims=True)).T, DIGITS)


def test(means: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-sided p-values (n,) for a centre of 0, and the ends (n,) of the 1 - alpha interval, from subset means (n, F)
    of differences. An end is infinite if there are too few subsets for one; the interval excludes 0 exactly if
    p < alpha."""
    total = means.shape[1] + 1
    below, above = (means <= SLACK).sum(1), (means >= -SLACK).sum(1)
    p = np.minimum(1, 2 * (1 + np.minimum(below, above)) / total)
    place = int(np.ceil(alpha * total / 2 - 1 - 1e-9)) - 1  # index of the smallest mean that is not rejected
    if place < 0:
        infinite = np.full(len(means), np.inf)
        return p, -infinite, infinite
    ordered = np.partition(means, (place, total - 2 - place), axis=1)
    ends = ordered[:, [place, total - 2 - place]]
    ends[np.abs(ends) <= SLACK] = 0
    return p, ends[:, 0], ends[:, 1]


def pairs(values: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`test` for every pair of n rows, (n, n) each, from values (U, n); row i minus row j at [i, j]."""
    by_subset, n = means(values), values.shape[1]
    p, low, high = np.ones((n, n)), np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        p[i, i:], low[i, i:], high[i, i:] = test(by_subset[i] - by_subset[i:], alpha)
        p[i:, i], low[i:, i], high[i:, i] = p[i, i:], -high[i, i:], -low[i, i:]
    return p, low, high

"""Sign-flip tests and their intervals for few users, where Student's t leans on a normal distribution.

If two rows are equally good, a user's difference is as likely of either sign (Fisher, "The Design of Experiments",
1935, section 21). Flipping the signs of a subset of users moves the mean away from zero exactly where the mean of that
subset has the opposite sign. The test therefore counts subset means on either side of zero, and their order statistics
are the interval that belongs to it (Hartigan, "Using subsample values as typical values", JASA 1969).

Letters: U users, F subsets, n rows.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from harness.stats import DIGITS

ALL = 13  # users, up to which every subset is taken: 8,191
SUBSETS = 9999  # drawn beyond


@lru_cache(maxsize=4)
def subsets(users: int) -> np.ndarray:
    """Non-empty subsets, bool (F, U): all of them up to `ALL` users, else `SUBSETS` random but fixed ones."""
    if users <= ALL:
        return (np.arange(1, 2**users)[:, None] >> np.arange(users) & 1).astype(bool)
    drawn = np.random.default_rng(0).integers(2, size=(SUBSETS, users)).astype(bool)
    drawn[~drawn.any(1)] = True
    return drawn


def smallest(users: int) -> float:
    """The smallest p-value that so few users can give."""
    return min(1.0, 2 / (len(subsets(users)) + 1))


def means(values: np.ndarray) -> np.ndarray:
    """Means (F, n) over each subset of users of values (U, n)."""
    chosen = subsets(len(values))
    return chosen @ values / chosen.sum(1, keepdims=True)


def test(means: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two-sided p-values (n,) that the centre is 0, and the ends (n,) of the 1 - alpha interval, from subset means
    (F, n) of differences. An end is infinite where so few subsets allow none; the interval leaves out 0 exactly where
    p < alpha."""
    ordered = np.sort(np.round(means, DIGITS), axis=0)
    total = len(ordered) + 1
    below, above = (ordered <= 0).sum(0), (ordered >= 0).sum(0)
    p = np.minimum(1, 2 * (1 + np.minimum(below, above)) / total)
    place = int(np.ceil(alpha * total / 2 - 1 - 1e-9)) - 1  # of the smallest mean that is not rejected
    if place < 0:
        infinite = np.full(ordered.shape[1], np.inf)
        return p, -infinite, infinite
    return p, ordered[place], ordered[-1 - place]

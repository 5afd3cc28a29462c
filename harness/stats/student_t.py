"""Student's t with fractional degrees of freedom: two-sided p-values and quantiles, elementwise."""

from __future__ import annotations

import numpy as np
from scipy import special

LARGEST = 1e10  # degrees of freedom above which the normal distribution is used


def two_sided(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """P(|T| >= |t|), float64 of the common shape; 0 only if it is below the smallest float.

    The incomplete beta function resolves any tail; 1 - cdf would stop at 1e-16.

    >>> two_sided(np.array([0.0, 2.228139, 60.0]), np.array([10.0, 10.0, 10.0])).round(4).tolist()
    [1.0, 0.05, 0.0]
    """
    t = np.asarray(t, np.float64)
    return 2 * np.where(df < LARGEST, special.stdtr(np.minimum(df, LARGEST), -np.abs(t)), special.ndtr(-np.abs(t)))


def quantile(p: float, df: np.ndarray) -> np.ndarray:
    """The value that T exceeds with probability 1 - p, in the shape of `df`."""
    return np.where(df < LARGEST, special.stdtrit(np.minimum(df, LARGEST), p), special.ndtri(p))

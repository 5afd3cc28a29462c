"""Importance of each hyper-parameter: how well it explains the validation scores of a search, without the others.

Trials are divided by one parameter into up to `BINS` groups of equal size (non-numeric values: one group each). Epsilon
squared, (SSB - (k-1) MSW) / SST, is the share of the scores' variance that the groups explain, corrected for chance
(Kelley, "An unbiased correlation ratio measure", PNAS 1935). `chance` is the 95 % quantile of the same number for
shuffled scores: a share below it is noise. Interactions are not measured, and a sampler that concentrates on good
regions leaves few trials elsewhere, so this is a hint, not a test. For numbers, Spearman's rank correlation gives the
direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from harness.types import Json

LEAST = 6  # minimum number of trials
BINS = 3
SHUFFLES = 200


@dataclass(frozen=True)
class Importance:
    """Importance of a parameter. ``share``, ``chance``: 0 to 1; ``direction``: rank correlation, None for words."""

    name: str
    share: float
    chance: float
    direction: float | None


def importance(params: Sequence[Json], scores: Sequence[float]) -> list[Importance]:
    """Return the importance of every varying parameter, largest share first.

    Empty below `LEAST` trials or if all scores are equal. params: one dict per trial; missing is a separate value.
    """
    y = np.asarray(scores, float)
    if len(y) < LEAST or np.ptp(y) == 0:
        return []
    shuffled = y[_orders(len(y))]
    items = []
    for name in sorted({name for trial in params for name in trial}):
        column = [trial.get(name) for trial in params]
        groups = _groups(column)
        if (k := groups.max() + 1) < 2 or k >= len(y):
            continue
        shares = _explained(groups, shuffled)
        direction = _spearman(np.array(column, float), y) if _numeric(column) else None
        items.append(Importance(name, float(shares[0]), float(np.quantile(shares[1:], 0.95)), direction))
    return sorted(items, key=lambda item: (-item.share, item.name))


@lru_cache(maxsize=1)  # the searches of a table have equally many trials
def _orders(n: int) -> np.ndarray:
    """Return the order of n trials and random orders of them, (n, 1 + SHUFFLES)."""
    rng = np.random.default_rng(0)
    return np.stack([np.arange(n), *(rng.permutation(n) for _ in range(SHUFFLES))], 1)


def _numeric(column: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _groups(column: list[Any]) -> np.ndarray:
    """Return a group number per trial: bins of about equal size for numbers with many values, else one per value."""
    if not _numeric(column) or len(set(column)) <= BINS:
        return np.unique([str(value) for value in column], return_inverse=True)[1]
    x = np.array(column, float)
    edges = np.quantile(x, np.arange(1, BINS) / BINS)
    return np.unique(np.searchsorted(edges, x, side="left"), return_inverse=True)[1]


def _explained(groups: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return epsilon squared of each column of y (n, C), clipped to [0, 1]."""
    n, k = len(y), groups.max() + 1
    member = groups[:, None] == np.arange(k)  # (n, k)
    means = (member.T @ y) / member.sum(0)[:, None]  # (k, C)
    total = ((y - y.mean(0)) ** 2).sum(0)
    within = ((y - means[groups]) ** 2).sum(0)
    return np.clip((total - within - (k - 1) * within / (n - k)) / total, 0, 1)


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    a, b = _ranks(x), _ranks(y)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else None


def _ranks(x: np.ndarray) -> np.ndarray:
    """Return ranks, with the mean rank for ties."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]

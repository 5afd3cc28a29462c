"""Every metric of the folder at every cut-off, from ranks."""

from __future__ import annotations

import numpy as np

from harness import registry
from harness.metrics._ties import Ranks, expected

CUTOFFS = (5, 10, 20)
HEADLINE = "NDCG@10"  # what searches maximise, on validation


def per_user(ranks: Ranks | np.ndarray, metric: str, k: int, users: np.ndarray | None = None) -> np.ndarray:
    """One metric of every user, float64 (U,), from the ranks (q,) of the targets; of a tie, the expectation.

    ranks: an array stands for ranks without ties. users: (q,) ascending, whose targets they are, where a user may have
    several: each user is then worth the mean of their own, so that all users weigh alike.
    """
    bounds = ranks if isinstance(ranks, Ranks) else Ranks.untied(ranks)
    values = expected(registry.load(registry.METRICS, metric), bounds, k)
    if users is None or not len(users):
        return values
    first = np.flatnonzero(np.diff(users, prepend=users[0] - 1))
    if len(first) == len(users):
        return values
    return np.add.reduceat(values, first) / np.diff(first, append=len(users))


def means(ranks: Ranks | np.ndarray, users: np.ndarray | None = None) -> dict[str, float]:
    """`NDCG@10` and the like: the mean over users of each metric at each cut-off; arguments as in `per_user`.

    >>> means(np.array([1.0, 30.0]))["HR@10"]
    0.5
    >>> means(np.array([1.0, 30.0, 1.0]), np.array([0, 0, 1]))["HR@10"]
    0.75
    """
    return {
        f"{metric.upper()}@{k}": float(per_user(ranks, metric, k, users).mean())
        for metric in registry.names(registry.METRICS)
        for k in CUTOFFS
    }

"""Every metric of the folder at every cut-off, from ranks."""

from __future__ import annotations

import numpy as np

from harness import registry

CUTOFFS = (5, 10, 20)
HEADLINE = "NDCG@10"  # what searches maximise, on validation


def per_user(ranks: np.ndarray, metric: str, k: int) -> np.ndarray:
    """One metric of every user, float64 (users,), from the ranks (users,) of their targets."""
    return registry.load(registry.METRICS, metric)(ranks, k)


def means(ranks: np.ndarray) -> dict[str, float]:
    """`NDCG@10` and the like: the mean over users of each metric at each cut-off.

    >>> means(np.array([1.0, 30.0]))["HR@10"]
    0.5
    """
    return {
        f"{metric.upper()}@{k}": float(per_user(ranks, metric, k).mean())
        for metric in registry.names(registry.METRICS)
        for k in CUTOFFS
    }

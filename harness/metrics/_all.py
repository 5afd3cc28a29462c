"""Compute every metric of this folder at every cut-off from ranks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness import registry
from harness.metrics._ties import Ranks, expected

CUTOFFS = (5, 10, 20)
BLOCK = 2**18  # ranks
HEADLINE = "NDCG@10"  # the objective of searches, on validation


def per_user(ranks: Ranks | np.ndarray, metric: str, k: int, users: np.ndarray | None = None) -> np.ndarray:
    """One metric per user, float64 (U,), from the ranks (q,) of the targets; the expectation for ties.

    ranks: an array means ranks without ties. users: (q,) ascending, the user of each target; the value of a user with
    several targets is their mean, so that all users have equal weight.
    """
    bounds = ranks if isinstance(ranks, Ranks) else Ranks.untied(ranks)
    values = expected(registry.load(registry.METRICS, metric), bounds, k)
    if users is None or not len(users):
        return values
    first = np.flatnonzero(np.diff(users, prepend=users[0] - 1))
    if len(first) == len(users):
        return values
    return np.add.reduceat(values, first) / np.diff(first, append=len(users))


def per_user_of_runs(runs: Sequence[Ranks], metric: str, k: int, users: np.ndarray | None = None) -> np.ndarray:
    """`per_user` of several runs with the same targets, float64 (U, runs).

    Scored together, `BLOCK` ranks at a time: a table has hundreds of runs, and the calls cost more than the numbers.
    """
    step = max(1, BLOCK // max(1, len(runs[0])))
    if users is not None and len(users) and (np.diff(users) == 0).any():  # several targets of a user
        return np.stack([per_user(ranks, metric, k, users) for ranks in runs], 1)
    scores = []
    for part in (runs[at : at + step] for at in range(0, len(runs), step)):
        bounds = Ranks(np.concatenate([ranks.low for ranks in part]), np.concatenate([ranks.high for ranks in part]))
        scores.append(per_user(bounds, metric, k).reshape(len(part), -1))
    return np.ascontiguousarray(np.concatenate(scores).T)


def means(ranks: Ranks | np.ndarray, users: np.ndarray | None = None) -> dict[str, float]:
    """Mean over users of each metric at each cut-off, by name such as `NDCG@10`; arguments as in `per_user`.

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

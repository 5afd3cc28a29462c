"""Validation scores of a fixed sample of users, compact enough to be recorded at every epoch.

The sample depends only on the data's hash, so all trials of a cell report the same users, whom the `wilcoxon` pruner
compares one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from harness.metrics._all import HEADLINE, per_user
from harness.metrics._ties import Ranks

USERS = 256  # max sample size: 0.7 kB of ledger per epoch
UNIT = 10_000  # scores are recorded as integers in units of 1 / UNIT

Scores = Sequence[int]  # of the sampled users at one epoch; empty if none were recorded


def scores(ranks: Ranks | np.ndarray, users: np.ndarray, key: str) -> list[int]:
    """NDCG@10 of users sampled by `key`, in units of 1 / `UNIT`, from ranks (queries,) of `users` (queries,)."""
    metric, _, k = HEADLINE.rpartition("@")
    values = per_user(ranks, metric.lower(), int(k), users)
    chosen = np.random.default_rng(int(key[:12], 16)).permutation(len(values))[:USERS]
    return np.rint(UNIT * values[np.sort(chosen)]).astype(int).tolist()


def packed(rows: Sequence[Scores]) -> str:
    """Encode the scores of several epochs as compact JSON."""
    return json.dumps(rows, separators=(",", ":"))

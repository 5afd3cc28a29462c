"""Validation scores of a fixed sample of users at every epoch, small enough to be recorded with the epoch's value.

The sample depends only on the data's hash, so two trials of a cell report the same users; the `wilcoxon` pruner
compares them one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from harness.metrics._all import HEADLINE, per_user
from harness.metrics._ties import Ranks

USERS = 256  # upper bound of the sample: 0.7 kB of the ledger an epoch
UNIT = 10_000  # scores are recorded as integers, in parts of this

Scores = Sequence[int]  # of the sampled users at one epoch; empty if none were recorded


def scores(ranks: Ranks | np.ndarray, users: np.ndarray, key: str) -> list[int]:
    """NDCG@10 of the users that `key` draws, in parts of `UNIT`, from ranks (queries,) of `users` (queries,)."""
    metric, _, k = HEADLINE.rpartition("@")
    values = per_user(ranks, metric.lower(), int(k), users)
    chosen = np.random.default_rng(int(key[:12], 16)).permutation(len(values))[:USERS]
    return np.rint(UNIT * values[np.sort(chosen)]).astype(int).tolist()


def packed(rows: Sequence[Scores]) -> str:
    """Scores of several epochs as compact JSON."""
    return json.dumps(rows, separators=(",", ":"))

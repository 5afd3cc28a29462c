"""Transition kNN: items that followed the last few items of the history in training histories.

The sequential neighbourhood baseline of Ludewig & Jannach (2018), with up to three steps.
"""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from adapters._base import Spectrum
from harness.data.splits import Queries, Split
from harness.training.baselines._train import training_mask, users_of_events

STEPS = 3


class TransitionKNN:
    """score(j) = sum over the last 3 items i of the history, s steps back, of C[i, j] / (s * sqrt|i|).

    C counts how often j came 1 to 3 steps after i, weighted by 1/steps; |i| is the number of i's training events. The
    square root was the best of the usual normalisations on Beauty and Toys (HR@10 .0815 and .0908).
    """

    version = 1
    uses_text = False

    def __init__(self, split: Split, spectrum: Spectrum) -> None:
        self.split = split
        n = split.n_items
        users, train = users_of_events(split), training_mask(split)
        keys, weights = [], []
        for step in range(1, STEPS + 1):
            pair = train[step:] & (users[step:] == users[:-step])
            first, second = split.items[:-step][pair] - 1, split.items[step:][pair] - 1
            keys.append(second.astype(np.int64) * n + first)
            weights.append(np.full(len(first), 1.0 / step))
        unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        totals = np.bincount(inverse, np.concatenate(weights))
        count = np.maximum(np.bincount(split.items[train] - 1, minlength=n), 1)
        into = np.append(np.searchsorted(unique, np.arange(n) * n), len(unique))
        values = (totals / np.sqrt(count[unique % n])).astype(np.float32)
        parts = (torch.from_numpy(into), torch.from_numpy(unique % n), torch.from_numpy(values))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
            self.into = torch.sparse_csr_tensor(*parts, (n, n))  # row j: weights of the items that lead to item j

    def scores(self, queries: Queries) -> Tensor:
        """(queries, n_items) float32, higher is better."""
        q, n = len(queries.users), self.split.n_items
        last = np.zeros((q, n), np.float32)
        for step in range(1, STEPS + 1):
            has = queries.ends >= step
            at = self.split.offsets[queries.users[has]] + queries.ends[has] - step
            np.add.at(last, (np.flatnonzero(has), self.split.items[at] - 1), 1.0 / step)
        return (self.into @ torch.from_numpy(last).T).T

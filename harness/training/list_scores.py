"""Score top lists beyond the target's rank, against the training part of a split."""

from __future__ import annotations

import numpy as np

from harness.data.splits import Split, heads
from harness.metrics.lists import _all
from harness.metrics.lists._base import Catalogue, TopLists

LEAST = _all.CUTOFF  # length of the lists that the metrics need


def scores(lists: TopLists, split: Split, E: np.ndarray) -> dict[str, float]:
    """List metrics of test lists, by name such as `coverage@10`. E: (N, D) text embeddings, (N, 0) without text."""
    return _all.scores(lists, catalogue(split, E))


def catalogue(split: Split, E: np.ndarray) -> Catalogue:
    """Popularity of the items in the training part of the split, with their text."""
    trained = heads(split.offsets, split.train_ends)
    items = split.items[trained].astype(np.int64) - 1
    users = np.repeat(np.arange(len(split.train_ends)), split.train_ends)
    pairs = np.unique(users * split.n_items + items)
    return Catalogue(
        events=np.bincount(items, minlength=split.n_items),
        users=np.bincount(pairs % split.n_items, minlength=split.n_items),
        n_users=int((split.train_ends > 0).sum()),
        text=E if E.shape[1] else None,
    )

"""Input of the list metrics: top-K lists, and what the training data say about the items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOTHING = -1  # stands for an item where a query has fewer than K candidates


@dataclass(frozen=True, eq=False)
class TopLists:
    """The K best candidates of each test query, best first.

    items: int32 (q, K), rows of the catalogue from 0; scores: float32 (q, K). A query with fewer than K candidates ends
    in `NOTHING` with score -inf.
    """

    items: np.ndarray
    scores: np.ndarray

    def cut(self, k: int) -> TopLists:
        """The first k places."""
        return TopLists(self.items[:, :k], self.scores[:, :k])


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Items as the training part of a split shows them.

    events: int64 (N,), training events of each item; users: int64 (N,), users with a training event of it; n_users:
    users with any training event; text: (N, D), zero rows for items without text, or None if the row reads no text.
    """

    events: np.ndarray
    users: np.ndarray
    n_users: int
    text: np.ndarray | None = None


def mean_of_lists(values: np.ndarray, items: np.ndarray) -> float:
    """Mean over lists of the mean value of a list's items; NaN without any item. values: (N,); items: (q, K)."""
    there = items != NOTHING
    sums, lengths = np.where(there, values[items], 0.0).sum(1), there.sum(1)
    return float((sums[lengths > 0] / lengths[lengths > 0]).mean()) if lengths.any() else float("nan")


def counts(items: np.ndarray, n_items: int) -> np.ndarray:
    """Number of lists that contain each item, int64 (n_items,). items: (q, K)."""
    return np.bincount(items[items != NOTHING], minlength=n_items)

"""Test whether the order of events matters: evaluate a Markov chain on true and on shuffled histories.

After Klenitskiy et al., "Does It Look Sequential?" (RecSys 2024, arXiv 2408.12008): if the order matters, a model
trained on the original sequences does much worse when the histories it is evaluated on are shuffled. Their SASRec is
replaced by a Markov chain on the last item, which takes a second.
"""

from __future__ import annotations

import numpy as np

from harness.metrics._all import per_user
from harness.metrics._ties import Ranks

EVENTS = 2_000_000  # max events used; users are sampled evenly
DRAWS = 5  # shuffled histories per user
CUTOFF = 10


def order_test(items: np.ndarray, offsets: np.ndarray, n_items: int) -> dict[str, float] | None:
    """Return NDCG@10 of the last event given the event before it (`ndcg`) and given a random earlier one (`shuffled`),
    the drop in percent and the number of users. None if no user has three events or no target enters the top 10.

    items: item numbers 1..n_items, int32 (events,); offsets: int64 (users + 1,). An item's score is how often it comes
    right after the previous item in the users' other events; ranks are over all items, ties at their expectation.
    """
    lengths = np.diff(offsets)
    users = np.flatnonzero(lengths >= 3)
    users = users[:: max(-(-int(lengths[users].sum()) // EVENTS), 1)]
    if not len(users):
        return None
    lengths = lengths[users]
    starts = np.asarray(offsets)[users]
    chain = _Chain(items, starts, lengths, n_items)
    target, previous = items[starts + lengths - 1], items[starts + lengths - 2]
    true = chain.ndcg(previous, target)
    rng = np.random.default_rng(0)
    # the last event of a shuffled history is a random one
    shuffled = np.mean([chain.ndcg(items[starts + rng.integers(lengths - 1)], target) for _ in range(DRAWS)])
    if not true:
        return None
    drop = round(100 * (1 - float(shuffled) / true), 2)
    return {"users": len(users), "ndcg": round(true, 6), "shuffled": round(float(shuffled), 6), "drop_percent": drop}


class _Chain:
    """Counts of the item pairs that follow each other, over each user's events without the last."""

    def __init__(self, items: np.ndarray, starts: np.ndarray, lengths: np.ndarray, n_items: int) -> None:
        self.n = n_items + 1
        pairs = lengths - 2
        place = np.arange(pairs.sum()) - np.repeat(np.cumsum(pairs) - pairs, pairs) + np.repeat(starts, pairs)
        self.keys, self.counts = np.unique(self._key(items[place], items[place + 1]), return_counts=True)
        self.most = int(self.counts.max()) + 1
        self.ranked = np.sort(self.keys // self.n * self.most + self.counts)  # by item, then by count

    def _key(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return first.astype(np.int64) * self.n + second

    def ndcg(self, previous: np.ndarray, target: np.ndarray) -> float:
        """Return the mean NDCG@10 of the targets after the previous items, int32 (users,) each."""
        key = self._key(previous, target)
        at = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        count = np.where(self.keys[at] == key, self.counts[at], 0)
        row = previous.astype(np.int64) * self.most
        stop = np.searchsorted(self.ranked, row + self.most)  # end of the previous item's followers
        above = stop - np.searchsorted(self.ranked, row + count, side="right")
        tied = stop - above - np.searchsorted(self.ranked, row + count)
        others = self.n - 1 - (stop - np.searchsorted(self.ranked, row))  # items that never follow: tied at zero
        low = 1 + above
        ranks = Ranks(low, low + np.where(count > 0, tied - 1, others - 1))
        return float(per_user(ranks, "ndcg", CUTOFF).mean())

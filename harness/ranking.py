"""Ranks over the full catalogue: by counting, in blocks of queries, ties at mid-rank, seen items left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.data import Queries, Split

TIE = 1e-6  # relative: scores this close are one tie, whatever the order of summation gave them


def ranks(
    scorer: Callable[[Queries], Tensor], split: Split, queries: Queries, *, filter_seen: bool, block: int = 256
) -> np.ndarray:
    """Rank of each query's target among all items, float64 (queries,), from 1.

    `scorer` gives scores (q, n_items) of a block of queries, higher is better. Rank = 1 + number better + half the
    number tied (Krichene & Rendle 2020 on why never sampled; mid-rank, so that a constant scorer does not win).
    With `filter_seen` the items of the query's own history are no candidates; the target always is one.
    Raises FloatingPointError if a score is not finite.
    """
    found = np.zeros(len(queries.users))
    order = np.argsort(queries.ends, kind="stable")  # equal lengths together: little padding for who encodes them
    for start in range(0, len(order), block):
        at = order[start : start + block]
        part = Queries(queries.users[at], queries.ends[at])
        found[at] = _block(scorer(part), split, part, filter_seen)
    return found


def _block(scores: Tensor, split: Split, queries: Queries, filter_seen: bool) -> np.ndarray:
    target = torch.from_numpy(split.items[split.offsets[queries.users] + queries.ends].astype(np.int64) - 1)
    at_target = scores.gather(1, target[:, None].to(scores.device))
    if not torch.isfinite(scores.sum()):
        raise FloatingPointError("scores are not finite")
    margin = TIE * at_target.abs().clamp_min(1e-30)
    high, low = at_target + margin, at_target - margin
    better = (scores > high).sum(1)
    level = (scores >= low).sum(1)  # better or tied, the target itself among them
    if filter_seen:
        rows, items = _seen(split, queries, target)
        seen_scores = scores[rows, items]
        count = torch.zeros_like(better)
        better = better - count.index_add(0, rows, (seen_scores > high[rows, 0]).to(count.dtype))
        level = level - count.index_add(0, rows, (seen_scores >= low[rows, 0]).to(count.dtype))
    return (1 + better + 0.5 * (level - better - 1)).double().cpu().numpy()


def _seen(split: Split, queries: Queries, target: Tensor) -> tuple[Tensor, Tensor]:
    """(row, item index) of the distinct items in each query's history, the target left out."""
    starts = split.offsets[queries.users]
    lengths = queries.ends
    rows = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = split.items[np.repeat(starts, lengths) + within].astype(np.int64) - 1
    keys = np.unique(rows * split.n_items + items)
    rows, items = keys // split.n_items, keys % split.n_items
    keep = items != target.numpy()[rows]
    return torch.from_numpy(rows[keep]), torch.from_numpy(items[keep])

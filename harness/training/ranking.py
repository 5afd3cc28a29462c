"""Ranks over the full catalogue: by counting, tile by tile, with the bounds of ties, seen items left out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.data.splits import Queries, Split, cold
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks

TIE = 1e-6  # relative: scores this close are one tie, whatever the order of summation gave them
QUERIES = 1024  # ranked together at most; more gained nothing
WHOLE = 2**23  # scores asked at a time of a scorer of whole rows: 32 MB
TILE = {"cpu": 2**19}  # scores counted at a time: 2 MB stay in a core's cache; a GPU wants few launches, so 2^24


@torch.no_grad()
def ranks(
    scorer: Callable[[Queries], Tensor],
    split: Split,
    queries: Queries,
    *,
    filter_seen: bool,
    table: Tensor | None = None,
) -> Ranks:
    """Rank of each query's target among all items, as the bounds of its tie, float64 (queries,), from 1.

    `scorer` gives the scores (q, n_items) of a block of queries, higher is better; or, with `table` (n_items, d), their
    states (q, d): then the scores are states @ table^T, of which one tile at a time is in memory. Bounds: 1 + number
    better, and that plus the number tied (Krichene & Rendle 2020 on why never sampled). With `filter_seen` the items
    of the query's own history are no candidates; the target always is one.
    Raises FloatingPointError if a score is not finite, or so large that a sum might not be.
    """
    low, high = np.ones((2, len(queries.users)))
    reach = 1.0 if table is None else _largest(table) * table.shape[1]
    block = QUERIES if table is not None else min(max(WHOLE // split.n_items, 1), QUERIES)
    order = np.argsort(queries.ends, kind="stable")  # equal lengths together: little padding for who encodes them
    for start in range(0, len(order), block):
        at = order[start : start + block]
        part = Queries(queries.users[at], queries.ends[at])
        given = scorer(part)
        if not torch.isfinite(_largest(given) * reach):
            raise FloatingPointError("scores are not finite")
        better, others = _above(given, table, split, part, filter_seen)
        low[at] += better.cpu().numpy()
        high[at] += others.cpu().numpy()
    return Ranks(low, high)


def told_apart(found: Ranks, split: Split, queries: Queries) -> dict[str, float]:
    """How a model fares with targets that training saw and with those it never did: the share of the latter,
    `test_cold_share`, and NDCG@10 of both, `test_warm_NDCG@10` and `test_cold_NDCG@10`, of what there is.
    """
    unseen = cold(split, queries)
    told = {"test_cold_share": float(unseen.mean())}
    for name, which in (("warm", ~unseen), ("cold", unseen)):
        if which.any():
            told[f"test_{name}_{HEADLINE}"] = means(found[which], queries.users[which])[HEADLINE]
    return told


def _largest(x: Tensor) -> Tensor:
    """Largest absolute value; NaN if there is one."""
    return torch.linalg.vector_norm(x, float("inf"))


def _above(
    given: Tensor, table: Tensor | None, split: Split, queries: Queries, filter_seen: bool
) -> tuple[Tensor, Tensor]:
    """Number of candidates better than the target, and of those better or tied, without the target: float64 (q,)."""
    low, high = _limits(given, table, split.items[split.offsets[queries.users] + queries.ends])
    tile = given.new_empty(len(given), max(TILE.get(given.device.type, 2**24) // len(given), 1))
    better, width = torch.empty_like(tile), tile.shape[1]
    closed, bounds = _closed(split, queries, filter_seen, width)
    closed = closed.to(given.device)
    above, reached = given.new_zeros(2, len(given), dtype=torch.float64)
    for number, start in enumerate(range(0, split.n_items, width)):
        stop = min(start + width, split.n_items)
        scores, out = tile[:, : stop - start], better[:, : stop - start]
        if table is None:
            scores.copy_(given[:, start:stop])
        else:
            torch.mm(given, table[start:stop].T, out=scores)
        tile.view(-1).index_fill_(0, closed[bounds[number] : bounds[number + 1]], -torch.inf)
        # comparisons that give 0.0 and 1.0 are several times faster than ones that give bools to sum
        above += torch.gt(scores, high, out=out).sum(1)
        reached += scores.ge_(low).sum(1)
    return above, reached


def _limits(given: Tensor, table: Tensor | None, target: np.ndarray) -> tuple[Tensor, Tensor]:
    """(low, high), (q, 1) each: scores between them are tied with the target's."""
    index = torch.from_numpy(target.astype(np.int64) - 1).to(given.device)
    terms = given.gather(1, index[:, None]) if table is None else given * table[index]
    score = terms.sum(1, keepdim=True)
    margin = TIE * terms.abs().sum(1, keepdim=True)  # of the terms, since it is they that are rounded
    return score - margin, score + margin


def _closed(split: Split, queries: Queries, filter_seen: bool, width: int) -> tuple[Tensor, list[int]]:
    """Who is no candidate, as places in a (q, width) tile, int64, tile after tile, and where each tile's begin."""
    lengths = queries.ends + 1 if filter_seen else np.ones_like(queries.ends)  # the target and what came before it
    stops = split.offsets[queries.users] + queries.ends + 1
    rows = np.repeat(np.arange(len(lengths)), lengths)
    events = np.arange(len(rows)) + np.repeat(stops - np.cumsum(lengths), lengths)
    items = split.items[events].astype(np.int64) - 1
    order = np.argsort(items // width)
    bounds = np.searchsorted((items // width)[order], np.arange(-(-split.n_items // width) + 1))
    return torch.from_numpy((rows * width + items % width)[order]), bounds.tolist()

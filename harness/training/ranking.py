"""Rank targets over the full catalogue, tile by tile, with the bounds of ties and seen items excluded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from harness.data.splits import Queries, Split, cold
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks

TIE = 1e-6  # relative: scores this close count as tied, so that the order of summation does not matter
QUERIES = 1024  # max ranked together; larger blocks were not faster
WHOLE = 2**23  # scores per call of a scorer that returns full rows: 32 MB
TILE = {"cpu": 2**19}  # scores counted at a time: 2 MB fit a core's cache; a GPU wants few kernel launches, so 2^24


@torch.no_grad()
def ranks(
    scorer: Callable[[Queries], Tensor],
    split: Split,
    queries: Queries,
    *,
    filter_seen: bool,
    table: Tensor | None = None,
) -> Ranks:
    """Rank each query's target among all items, as the bounds of its tie, float64 (queries,), from 1.

    `scorer` returns scores (q, n_items) of a block of queries, higher is better. With `table` (n_items, d), it returns
    states (q, d) instead; scores are then states @ table^T, computed one tile at a time. Bounds: 1 + number better, and
    that plus the number tied. Candidates are never sampled (Krichene & Rendle 2020). `filter_seen` excludes the items
    of the query's history but never the target.
    Raises FloatingPointError if a score is not finite, or so large that a sum might not be.
    """
    low, high = np.ones((2, len(queries.users)))
    reach = 1.0 if table is None else _largest(table) * table.shape[1]
    block = QUERIES if table is not None else min(max(WHOLE // split.n_items, 1), QUERIES)
    order = np.argsort(queries.ends, kind="stable")  # equal lengths together: little padding for the encoder
    for start in range(0, len(order), block):
        at = order[start : start + block]
        part = Queries(queries.users[at], queries.ends[at])
        output = scorer(part)
        if not torch.isfinite(_largest(output) * reach):
            raise FloatingPointError("scores are not finite")
        better, others = _above(output, table, split, part, filter_seen)
        low[at] += better.cpu().numpy()
        high[at] += others.cpu().numpy()
    return Ranks(low, high)


def warm_and_cold(test_ranks: Ranks, split: Split, queries: Queries) -> dict[str, float]:
    """NDCG@10 of warm targets (in training) and cold ones (never in training), and the share of cold ones.

    Keys: `test_warm_NDCG@10` and `test_cold_NDCG@10`, each only if there are such targets, and `test_cold_share`.
    """
    unseen = cold(split, queries)
    scores = {"test_cold_share": float(unseen.mean())}
    for name, which in (("warm", ~unseen), ("cold", unseen)):
        if which.any():
            scores[f"test_{name}_{HEADLINE}"] = means(test_ranks[which], queries.users[which])[HEADLINE]
    return scores


def _largest(x: Tensor) -> Tensor:
    """Largest absolute value; NaN if any value is NaN."""
    return torch.linalg.vector_norm(x, float("inf"))


def _above(
    output: Tensor, table: Tensor | None, split: Split, queries: Queries, filter_seen: bool
) -> tuple[Tensor, Tensor]:
    """Number of candidates better than the target, and better or tied, the target not counted: float64 (q,).

    output: scores (q, n_items), or states (q, d) if there is a table.
    """
    low, high = _limits(output, table, split.items[split.offsets[queries.users] + queries.ends])
    tile = output.new_empty(len(output), max(TILE.get(output.device.type, 2**24) // len(output), 1))
    better, width = torch.empty_like(tile), tile.shape[1]
    excluded, bounds = _excluded(split, queries, filter_seen, width)
    excluded = excluded.to(output.device)
    above, reached = output.new_zeros(2, len(output), dtype=torch.float64)
    for number, start in enumerate(range(0, split.n_items, width)):
        stop = min(start + width, split.n_items)
        scores, out = tile[:, : stop - start], better[:, : stop - start]
        if table is None:
            scores.copy_(output[:, start:stop])
        else:
            torch.mm(output, table[start:stop].T, out=scores)
        tile.view(-1).index_fill_(0, excluded[bounds[number] : bounds[number + 1]], -torch.inf)
        # comparing into floats (0.0 and 1.0) and summing is several times faster than summing bools
        above += torch.gt(scores, high, out=out).sum(1)
        reached += scores.ge_(low).sum(1)
    return above, reached


def _limits(output: Tensor, table: Tensor | None, target: np.ndarray) -> tuple[Tensor, Tensor]:
    """(low, high), (q, 1) each: scores between them tie with the target's."""
    index = torch.from_numpy(target.astype(np.int64) - 1).to(output.device)
    terms = output.gather(1, index[:, None]) if table is None else output * table[index]
    score = terms.sum(1, keepdim=True)
    margin = TIE * terms.abs().sum(1, keepdim=True)  # relative to the terms, where the rounding happens
    return score - margin, score + margin


def _excluded(split: Split, queries: Queries, filter_seen: bool, width: int) -> tuple[Tensor, list[int]]:
    """Flat positions (int64) of excluded items in (q, width) tiles, tile by tile, and the bounds of each tile's."""
    lengths = queries.ends + 1 if filter_seen else np.ones_like(queries.ends)  # the target and what came before it
    stops = split.offsets[queries.users] + queries.ends + 1
    rows = np.repeat(np.arange(len(lengths)), lengths)
    events = np.arange(len(rows)) + np.repeat(stops - np.cumsum(lengths), lengths)
    items = split.items[events].astype(np.int64) - 1
    order = np.argsort(items // width)
    bounds = np.searchsorted((items // width)[order], np.arange(-(-split.n_items // width) + 1))
    return torch.from_numpy((rows * width + items % width)[order]), bounds.tolist()

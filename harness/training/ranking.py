"""Rank targets over the full catalogue and list the best items, tile by tile, with seen items excluded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from harness.data.splits import Queries, Split, cold
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks
from harness.metrics.lists._base import NOTHING, TopLists
from harness.training.precision import exact

TIE = 1e-6  # relative: scores this close count as tied, so that the order of summation does not matter
QUERIES = 1024  # max ranked together; larger blocks were not faster
WHOLE = 2**23  # scores per call of a scorer that returns full rows: 32 MB
TILE = {"cpu": 2**19}  # scores counted at a time: 2 MB fit a core's cache; a GPU wants few kernel launches, so 2^24


Scorer = Callable[[Queries], Tensor]


def ranks(scorer: Scorer, split: Split, queries: Queries, *, filter_seen: bool, table: Tensor | None = None) -> Ranks:
    """Rank each query's target among all items, as the bounds of its tie, float64 (queries,), from 1.

    `scorer` returns scores (q, n_items) of a block of queries, higher is better. With `table` (n_items, d), it returns
    states (q, d) instead; scores are then states @ table^T, computed one tile at a time. Bounds: 1 + number better, and
    that plus the number tied. Candidates are never sampled (Krichene & Rendle 2020). `filter_seen` excludes the items
    of the query's history but never the target.
    Raises FloatingPointError if a score is not finite, or so large that a sum might not be.
    """
    return ranks_and_lists(scorer, split, queries, 0, filter_seen=filter_seen, table=table)[0]


@exact()
@torch.no_grad()
def ranks_and_lists(
    scorer: Scorer, split: Split, queries: Queries, k: int, *, filter_seen: bool, table: Tensor | None = None
) -> tuple[Ranks, TopLists]:
    """Ranks as in `ranks`, and the k best candidates of each query, from the same scores.

    Equal scores are listed by item number. A target without ties whose rank r is at most k is at place r of its list.
    Scores that differ by less than `TIE` tie in the ranks; in the lists, rounding orders them.
    """
    low, high = np.ones((2, len(queries.users)))
    items = np.full((len(queries.users), k), NOTHING, np.int32)
    scores = np.full(items.shape, -np.inf, np.float32)
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
        if k:
            best, places = _best(_tiles(output, table, split, _out(split, part, filter_seen, target=False)), len(at), k)
            scores[at], items[at] = best.cpu().numpy(), places.cpu().numpy()
    return Ranks(low, high), TopLists(items, scores)


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
    above, reached = output.new_zeros(2, len(output), dtype=torch.float64)
    better = output.new_empty(len(output), _width(output))
    for _, scores in _tiles(output, table, split, _out(split, queries, filter_seen, target=True)):
        # comparing into floats (0.0 and 1.0) and summing is several times faster than summing bools
        above += torch.gt(scores, high, out=better[:, : scores.shape[1]]).sum(1)
        reached += scores.ge_(low).sum(1)
    return above, reached


def _best(tiles: Iterator[tuple[int, Tensor]], n: int, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of n queries (n, k), descending, and their items from 0, int64; equal scores by item.

    Missing ones are -inf and `NOTHING`. Merges each tile into the best of the tiles before it.
    """
    best, items = torch.full((n, k), -torch.inf), torch.full((n, k), NOTHING)
    for start, scores in tiles:
        best, items = best.to(scores), items.to(scores.device)
        wanted = scores > best[:, -1:]  # an equal score of a later item stays outside
        if torch.isinf(best[:, -1]).any():  # lists that are not full want too much: only the k best of the tile
            wanted &= scores >= scores.topk(min(k, scores.shape[1])).values[:, -1:]
        found, places = _packed(scores, wanted)
        found, order = torch.cat([best, found], 1).sort(dim=1, descending=True, stable=True)  # equal ones by item
        items = torch.cat([items, places + start], 1).gather(1, order)[:, :k]
        best = found[:, :k]
    return best, items.masked_fill(best == -torch.inf, NOTHING)


def _packed(scores: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The wanted scores of each row and their columns, in this order: (q, m), filled up with -inf and 0. wanted: bool,
    at most m per row."""
    rows, columns = wanted.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(scores))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    packed = scores.new_full((len(scores), int(counts.max())), -torch.inf)
    packed[rows, place] = scores[rows, columns]
    at = torch.zeros(packed.shape, dtype=torch.int64, device=rows.device)
    at[rows, place] = columns
    return packed, at


def _width(output: Tensor) -> int:
    """Items in a tile."""
    return max(TILE.get(output.device.type, 2**24) // len(output), 1)


def _tiles(
    output: Tensor, table: Tensor | None, split: Split, out: tuple[np.ndarray, np.ndarray]
) -> Iterator[tuple[int, Tensor]]:
    """Scores (q, w) of the items from `start` on, tile by tile, in memory that the next tile overwrites.

    out: rows and items (from 0) whose scores become -inf.
    """
    width = _width(output)
    tile = output.new_empty(len(output), width)
    excluded, bounds = _by_tile(*out, split.n_items, width)
    excluded = excluded.to(output.device)
    for number, start in enumerate(range(0, split.n_items, width)):
        stop = min(start + width, split.n_items)
        scores = tile[:, : stop - start]
        if table is None:
            scores.copy_(output[:, start:stop])
        else:
            torch.mm(output, table[start:stop].T, out=scores)
        tile.view(-1).index_fill_(0, excluded[bounds[number] : bounds[number + 1]], -torch.inf)
        yield start, scores


def _limits(output: Tensor, table: Tensor | None, target: np.ndarray) -> tuple[Tensor, Tensor]:
    """(low, high), (q, 1) each: scores between them tie with the target's."""
    index = torch.from_numpy(target.astype(np.int64) - 1).to(output.device)
    terms = output.gather(1, index[:, None]) if table is None else output * table[index]
    score = terms.sum(1, keepdim=True)
    margin = TIE * terms.abs().sum(1, keepdim=True)  # relative to the terms, where the rounding happens
    return score - margin, score + margin


def _out(split: Split, queries: Queries, filter_seen: bool, target: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows and items (from 0) to exclude, int64: the history if `filter_seen`; the target only if `target`."""
    lengths = queries.ends + 1 if filter_seen else np.ones_like(queries.ends)  # the target and what came before it
    targets = split.offsets[queries.users] + queries.ends
    rows = np.repeat(np.arange(len(lengths)), lengths)
    events = np.arange(len(rows)) + np.repeat(targets + 1 - np.cumsum(lengths), lengths)
    items = split.items[events].astype(np.int64) - 1
    if target:
        return rows, items
    others = items != (split.items[targets].astype(np.int64) - 1)[rows]  # the history may contain the target
    return rows[others], items[others]


def _by_tile(rows: np.ndarray, items: np.ndarray, n_items: int, width: int) -> tuple[Tensor, list[int]]:
    """Flat positions (int64) of rows and items in (q, width) tiles, tile by tile, and the bounds of each tile's."""
    order = np.argsort(items // width)
    bounds = np.searchsorted((items // width)[order], np.arange(-(-n_items // width) + 1))
    return torch.from_numpy((rows * width + items % width)[order]), bounds.tolist()

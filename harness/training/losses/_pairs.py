"""Scores of selected (position, item) pairs, never storing the (P, m, d) gathered rows, forward or backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}  # gathered at a time; measured on a CPU: blocks of 2 to 8 MB are fastest


def pair_scores(h: Tensor, table: Tensor, index: Tensor) -> Tensor:
    """Return S, (P, m), with S_pj = h_p . table[index_pj]. h: (P, d); table: (n, d); index: (P, m) int64 in [0, n).

    Differentiable once, in h and table. Extra memory: one block of gathered rows, and P m for sorting.
    """
    return _PairScores.apply(h, table, index)  # pyright: ignore[reportReturnType]


class _PairScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(h, table, index)
        (P, m), d = index.shape, h.shape[1]
        rows = min(P, max(1, BLOCK_ELEMENTS.get(h.device.type, 2**26) // (m * d)))
        items, scores = h.new_empty(rows * m, d), h.new_empty(P, m)
        for start in range(0, P, rows):
            at = slice(start, start + rows)
            flat = index[at].reshape(-1)
            block = torch.index_select(table, 0, flat, out=items[: len(flat)]).view(-1, m, d)
            torch.bmm(h[at, None], block.transpose(1, 2), out=scores[at, None])
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        h, table, index = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_h = F.embedding_bag(index, table, per_sample_weights=grad, mode="sum")
        return grad_h, _by_item(grad, h, index, len(table)), None


def _by_item(grad: Tensor, h: Tensor, index: Tensor, n: int) -> Tensor:
    """Sum grad_pj h_p over the pairs of each item, (n, d), as one weighted bag of positions per item."""
    flat = index.reshape(-1)
    order = flat.argsort(stable=True)
    counts = torch.bincount(flat, minlength=n)
    weights = grad.reshape(-1)[order]
    return F.embedding_bag(
        order // index.shape[1], h, counts.cumsum(0) - counts, per_sample_weights=weights, mode="sum"
    )

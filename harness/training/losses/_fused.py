"""Full-catalogue softmax cross-entropy that never stores the full matrix of logits.

The P x N scores of P positions against N items are needed only to be reduced. Here they are computed a few rows at a
time, in blocks that fit the cache, and turned at once into the loss and both gradients, as in fused linear
cross-entropy (Hsu et al. 2024, arXiv 2410.10989; Wijmans et al. 2024, arXiv 2411.09009).

A block costs three matrix products and as few passes as possible between them: logits are computed in base 2 (log2 e
goes into h), because 2^x is two to three times faster than e^x on a CPU; no maximum is taken if the vector lengths rule
out overflow; the softmax is never normalised: h is divided by its mass instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits per block, by device and dtype. Measured on a CPU: blocks of 2 MB of float32 stay in cache; bfloat16 needs
# twice the bytes, because every block's part of the table's gradient is summed in float32.
BLOCK_ELEMENTS = {("cpu", torch.bfloat16): 2**21, ("cpu", torch.float32): 2**19, ("cpu", torch.float64): 2**19}
WIDE = 64  # d above which float32 blocks on a CPU hold 4 times as many: every block reads table and gradient again
MIN_ROWS = 32  # fewer rows starve the matrix product: a larger catalogue gets blocks that do not fit the cache,
ROWS_OUT_OF_CACHE = 128  # for which this number of rows is best,
LOGITS_OUT_OF_CACHE = 2**26  # up to this number of logits, 256 MB
LOG2_E = math.log2(math.e)
SAFE = 60.0  # max |logit| in base 2 for which the sum of 2^logit and its inverse stay within float32


def softmax_loss(
    h: Tensor, table: Tensor, target: Tensor, *, smoothing: float = 0.0, blocks: torch.dtype | None = None
) -> Tensor:
    """Mean over positions of -log softmax(h table^T)[target], shape ().

    smoothing e: mean of (1 - e) (-log p_target) + e mean_j (-log p_j) over all items j. The mean logit is the product
    of h and the mean row of the table, so smoothing needs no pass over the logits.

    h: (P, d) states; table: (N, d) items, without the padding row; target: (P,) int64 in [0, N). float32 or float64.
    blocks: bfloat16 computes logits and matrix products in that type, sums in float32: about twice as fast if the
    processor has the instructions. Logits are rounded to 8 bits, so the error grows with their size. Measured:
    gradients are off by up to 3e-3 of their length while logits stay below ten, by 2e-2 at several tens; the loss,
    whose target score has full precision, by less than 1e-3.
    Differentiable once, in h and table. Raises ValueError if shapes or dtypes disagree or there is no position or item.
    """
    if h.ndim != 2 or table.ndim != 2 or h.shape[1] != table.shape[1] or target.shape != h.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (h, table, target))
        raise ValueError(f"softmax_loss takes h (P, d), table (N, d), target (P,), not {shapes}")
    if not len(h) or not len(table):
        raise ValueError(f"softmax_loss needs positions and items, not {len(h)} positions and {len(table)} items")
    if target.dtype != torch.int64 or h.dtype != table.dtype:
        dtypes = f"{h.dtype}, {table.dtype}, {target.dtype}"
        raise ValueError(f"softmax_loss takes h and table of one dtype and an int64 target, not {dtypes}")
    return _SoftmaxLoss.apply(h, table, target, smoothing, blocks or h.dtype)  # pyright: ignore[reportReturnType]


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, target: Tensor, e: float, kind: torch.dtype) -> Tensor:
        needed = any(ctx.needs_input_grad)
        rows = _rows(_elements(h, kind), len(table))
        head = _Head(h, table, kind, min(rows, len(h)))
        aims = table[target]  # each position's mean item vector under its label distribution
        if e:
            aims.mul_(1 - e).add_(table.mean(0), alpha=e)
        loss = -(h * aims).sum(dtype=torch.float64)
        for start in range(0, len(h), rows):
            loss += head.block(slice(start, start + rows), needed)
        if needed:
            head.grad_h -= aims
            head.grad_table.index_add_(0, target, h, alpha=e - 1)
            if e:
                head.grad_table.sub_(h.sum(0), alpha=e / len(table))
            ctx.save_for_backward(head.grad_h.div_(len(h)), head.grad_table.div_(len(h)))
        return (loss / len(h)).to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_h, grad_table = ctx.saved_tensors
        return grad_h * grads[0], grad_table * grads[0], None, None, None


def _elements(h: Tensor, kind: torch.dtype) -> int:
    """Max logits per block for states h (P, d)."""
    wider = 4 if (h.device.type, kind) == ("cpu", torch.float32) and h.shape[1] > WIDE else 1
    return wider * BLOCK_ELEMENTS.get((h.device.type, kind), 2**27)


def _rows(elements: int, n: int) -> int:
    """Rows per block for n items, given the max `elements` of a block."""
    if elements // n >= MIN_ROWS:
        return elements // n
    return max(1, min(ROWS_OUT_OF_CACHE, LOGITS_OUT_OF_CACHE // n))


class _Head:
    """The softmax over all items, by block: sum of log-normalisers, and its part of both gradients, unscaled."""

    def __init__(self, h: Tensor, table: Tensor, kind: torch.dtype, rows: int) -> None:
        self.h, self.h2, self.table = h, (h * LOG2_E).to(kind), table.to(kind)
        self.logits = self.table.new_empty(rows, len(table))
        self.grad_h, self.grad_table = torch.empty_like(h), torch.zeros_like(table)
        # Cauchy-Schwarz bounds the logits; not checked on a GPU, where it would wait for the device
        self.bounded = h.device.type == "cpu" and bool(_longest(h) * _longest(table) * LOG2_E < SAFE)

    def block(self, at: slice, gradients: bool) -> Tensor:
        h, h2 = self.h[at], self.h2[at]
        z = torch.mm(h2, self.table.T, out=self.logits[: len(h)])
        top = torch.zeros_like(h[:, :1])
        if not self.bounded:
            shift = z.amax(1, keepdim=True)
            z -= shift
            top = shift.to(h.dtype)
        mass = _row_sums(z.exp2_(), h.dtype)
        if gradients:
            torch.div(torch.mm(z, self.table), mass, out=self.grad_h[at])
            weighted = (h / mass).to(z.dtype)  # dividing h, not z, saves a pass over the block
            if z.dtype == h.dtype:
                self.grad_table.addmm_(z.T, weighted)
            else:
                self.grad_table += z.T @ weighted
        return ((mass.log2() + top) / LOG2_E).sum(dtype=torch.float64)


def _longest(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1).max()


def _row_sums(z: Tensor, dtype: torch.dtype) -> Tensor:
    """Row sums, (rows, 1). A narrow type is summed in pieces, because each sum is rounded to it; the kernel that widens
    instead is several times slower."""
    if z.dtype == dtype:
        return z.sum(1, keepdim=True)
    return torch.stack([part.sum(1) for part in z.split(512, dim=1)], 1).to(dtype).sum(1, keepdim=True)

"""Full-catalogue softmax cross-entropy without the matrix of logits.

The scores of P positions against N items are P x N numbers that exist only to be reduced. Here they are made a few
rows at a time, small enough to stay in cache, and turned at once into the loss and both gradients, in the way of fused
linear cross-entropy (Hsu et al. 2024, arXiv 2410.10989; Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = {"cpu": 2**19, "cuda": 2**27}  # logits held at a time; measured on the CPU: 1 to 4 MB are fastest
MIN_ROWS = 32  # fewer rows a block starve the matrix product when the catalogue is huge


def softmax_loss(h: Tensor, table: Tensor, target: Tensor) -> Tensor:
    """Mean over positions of -log softmax(h table^T)[target], shape ().

    h: (P, d) states; table: (N, d) items, without the padding row; target: (P,) int64 in [0, N). float32 or float64.
    Differentiable once, in h and table. Raises ValueError where shapes or kinds disagree or there is no position.
    """
    if h.ndim != 2 or table.ndim != 2 or h.shape[1] != table.shape[1] or target.shape != h.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (h, table, target))
        raise ValueError(f"softmax_loss takes h (P, d), table (N, d), target (P,), not {shapes}")
    if not len(h) or not len(table):
        raise ValueError(f"softmax_loss has nothing to score: {len(h)} positions, {len(table)} items")
    if target.dtype != torch.int64 or h.dtype != table.dtype:
        raise ValueError(f"softmax_loss: h is {h.dtype}, table {table.dtype} (equal), target {target.dtype} (int64)")
    return _SoftmaxLoss.apply(h, table, target)  # pyright: ignore[reportReturnType]


class _SoftmaxLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, table: Tensor, target: Tensor) -> Tensor:
        needed = any(ctx.needs_input_grad)
        rows = max(MIN_ROWS, BLOCK_ELEMENTS.get(h.device.type, 2**27) // len(table))
        logits = h.new_empty(min(rows, len(h)), len(table))
        grad_h, grad_table = torch.empty_like(h), torch.zeros_like(table)
        loss = h.new_zeros((), dtype=torch.float64)
        for start in range(0, len(h), rows):
            at = slice(start, start + rows)
            z = torch.mm(h[at], table.T, out=logits[: len(h[at])])
            loss += _reduce(z, target[at], h[at], table, (grad_h[at], grad_table) if needed else None)
        if needed:
            grad_h -= table[target]
            grad_table.index_add_(0, target, h, alpha=-1)
            ctx.save_for_backward(grad_h.div_(len(h)), grad_table.div_(len(h)))
        return (loss / len(h)).to(h.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_h, grad_table = ctx.saved_tensors
        return grad_h * grads[0], grad_table * grads[0], None


def _reduce(z: Tensor, target: Tensor, h: Tensor, table: Tensor, grads: tuple[Tensor, Tensor] | None) -> Tensor:
    """Sum of the losses of a block of logits z (rows, N), which is overwritten; its softmax's part of the gradients,
    unscaled, goes to the rows of the first of `grads` and is added to the second."""
    at_target = z.gather(1, target[:, None])
    top = z.amax(1, keepdim=True)
    mass = z.sub_(top).exp_().sum(1, keepdim=True)
    if grads is not None:
        torch.mm(z, table, out=grads[0]).div_(mass)
        grads[1].addmm_(z.T, h / mass)  # dividing h, not z, saves a pass over the block
    return (mass.log() + top - at_target).sum(dtype=torch.float64)

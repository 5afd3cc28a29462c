"""Softmax: cross-entropy over the full catalogue, the loss with the strongest evidence in the field.

Source: Klenitskiy & Vasilev (2023, arXiv 2309.07602): trained with it, SASRec outperforms BERT4Rec, and losses over few
negatives fall far behind. The kernel, `_fused.softmax_loss`, never stores all logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._base import Loss, Smoothing
from ._fused import softmax_loss


class Softmax(Loss):
    """L = -log softmax(h table^T)[target], mean over positions.

    ``label_smoothing`` e: the target has probability 1 - e, and e is spread evenly over all N items (Szegedy et al.
    2016, arXiv 1512.00567, section 7), as in `F.cross_entropy`.
    Under `torch.autocast`, logits and matrix products use its type, sums float32.
    """

    implied = ("label_smoothing",)

    def __init__(self, n_items: int, *, label_smoothing: Smoothing = 0.0) -> None:
        super().__init__(n_items)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        self.label_smoothing = label_smoothing

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        kind = h.device.type
        blocks = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with torch.autocast(kind, enabled=False):
            return softmax_loss(h, table, target, smoothing=self.label_smoothing, blocks=blocks)

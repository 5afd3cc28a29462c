"""Softmax: cross-entropy over the full catalogue, the loss with the strongest evidence in the field.

Source: Klenitskiy & Vasilev (2023, arXiv 2309.07602): trained with it, SASRec outperforms BERT4Rec, and losses over few
negatives fall far behind. The kernel, `_fused.softmax_loss`, never stores all logits.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Loss, Smoothing
from ._fused import softmax_loss

KERNELS = ("fused", "torch")


class Softmax(Loss):
    """L = -log softmax(h table^T)[target], mean over positions.

    ``label_smoothing`` e: the target has probability 1 - e, and e is spread evenly over all N items (Szegedy et al.
    2016, arXiv 1512.00567, section 7), as in `F.cross_entropy`.
    ``kernel``: `fused`, ours, or `torch`, PyTorch's `F.linear_cross_entropy`, in chunks of its own choice unless labels
    are smoothed: then it stores all logits.
    Under `torch.autocast`, logits and matrix products use its type; sums are float32 in ours.
    """

    implied = ("label_smoothing", "kernel")

    def __init__(
        self, n_items: int, *, label_smoothing: Smoothing = 0.0, kernel: Literal["fused", "torch"] = "fused"
    ) -> None:
        super().__init__(n_items)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing is {label_smoothing}; it must be at least 0 and below 1")
        if kernel not in KERNELS:
            raise ValueError(f"kernel is '{kernel}'; it must be one of: {', '.join(KERNELS)}")
        self.label_smoothing, self.kernel = label_smoothing, kernel

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        kind = h.device.type
        blocks = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with torch.autocast(kind, enabled=False):
            if self.kernel == "torch":
                return self._torchs(h, table, target, blocks or h.dtype)
            return softmax_loss(h, table, target, smoothing=self.label_smoothing, blocks=blocks)

    def _torchs(self, h: Tensor, table: Tensor, target: Tensor, kind: torch.dtype) -> Tensor:
        options, e = None if self.label_smoothing else nn.LinearCrossEntropyOptions(), self.label_smoothing
        loss = F.linear_cross_entropy(h.to(kind), table.to(kind), target, label_smoothing=e, options=options)
        return loss.to(h.dtype)

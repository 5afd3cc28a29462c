"""Softmax: cross-entropy over the full catalogue, the loss with the strongest evidence in the field.

Source: Klenitskiy & Vasilev (2023, arXiv 2309.07602): trained with it, SASRec outperforms BERT4Rec, and losses over few
negatives fall far behind. The kernel, `_fused.softmax_loss`, never stores all logits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._base import Loss
from ._fused import softmax_loss


class Softmax(Loss):
    """L = -log softmax(h table^T)[target], mean over positions.

    Under `torch.autocast`, logits and matrix products use its type, sums float32.
    """

    def __call__(self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None) -> Tensor:
        kind = h.device.type
        blocks = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        with torch.autocast(kind, enabled=False):
            return softmax_loss(h, table, target, blocks=blocks)

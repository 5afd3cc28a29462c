"""What every backbone owes: states from item vectors, and how it is trained (`views`, `mask`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKED = -1  # item number of a masked position


class Backbone(nn.Module):
    """A sequence encoder.

    A subclass takes ``(d, max_len, *, <its hyper-parameters>)``; keyword-only parameters and their defaults are
    its schema. Sequences are padded on the right.

    What it may say of itself: ``version`` is raised when behaviour changes; ``causal`` says that the state at t reads
    nothing after t; ``uses_time`` asks for the times of the events, that of the item to be predicted included;
    ``pace`` is the number of epochs (and of epochs of patience) that it is given for each of the budget's, above 1
    where an epoch trains a share of the positions; ``by_name_only`` leaves it out of the selection ``all``; ``note`` is
    a caution that stands under tables with a row of it.

    ``mask``: a backbone trained by the cloze task owns the vector (d,) of masked positions, item number `MASKED` in
    its `views`. Ranking then asks for the state of one masked position after the history: rows have length
    max_len + 1.
    """

    version = 1
    causal = True
    uses_time = False
    pace = 1
    by_name_only = False
    note = ""
    mask: nn.Parameter | None

    def __init__(self, d: int, max_len: int) -> None:
        super().__init__()
        self.d, self.max_len = d, max_len
        self.mask = None

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        """x: (B, L, d) item vectors, L <= max_len (+ 1 with a `mask`); real: (B, L) bool, False on padding. Returns
        (B, L, d).

        times: (B, L + 1) int64 seconds, those of the L items and of what follows the last, zeros on padding; given
        exactly where ``uses_time``.
        """
        raise NotImplementedError

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        """States (B, d) at position ``at`` (B,) int64 of each row: all that ranking asks for.

        Overridden where the other positions need not be computed to their end.
        """
        return self(x, real, times)[torch.arange(len(x), device=x.device), at]

    def views(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Inputs and targets, equal in shape, out of item numbers (B, L + 1), 0 = padding; a target 0 is not trained.

        The default is next-item prediction, (B, L) each. Others may give L + 1 positions with `MASKED` inputs (see
        ``mask``), or more rows.
        """
        return items[:, :-1], items[:, 1:]


class Dropout(nn.Module):
    """Dropout at ``rate`` rounded to 1/256 (Srivastava et al. 2014), from one random byte an element.

    The stock module draws a random number an element, which on a CPU took 14 to 18 % of a training step; this one takes
    a quarter of its time.
    """

    def __init__(self, rate: float, name: str = "dropout") -> None:
        super().__init__()
        if not 0 <= rate < 0.99:
            raise ValueError(f"{name} is {rate}; it must lie in [0, 0.99)")
        self.dropped = round(rate * 256)  # of 256

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return x
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
        kept = torch.ge(draws, self.dropped, out=torch.empty_like(x))  # at once in x's type: a bool would be converted
        return x * kept.mul_(256 / (256 - self.dropped))


class Attention(nn.Module):
    """Scaled dot-product softmax attention with dropout of its weights at ``rate`` in training (Vaswani et al. 2017).

    On a CPU, PyTorch's fused attention has no dropout: with ``dropout_p`` it takes a reference path that needed 1.6 to
    2.0 times the time of the fused one, forward and backward. Written out with `Dropout` it needs 1.4 to 1.6 times.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.dropout = rate, Dropout(rate, "attn_dropout")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, reads: Tensor | None = None) -> Tensor:
        """q: (B, H, Q, w); k, v: (B, H, K, w). Returns (B, H, Q, w).

        reads: bool, broadcast to (B, H, Q, K), whether a query reads a key, at least one each; None is the causal mask
        of Q = K positions.
        """
        rate = self.rate if self.training else 0.0
        if not rate or q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=reads, dropout_p=rate, is_causal=reads is None)
        if reads is None:
            reads = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        return self.dropout(scores.masked_fill_(~reads, float("-inf")).softmax(3)) @ v

"""The base class of backbones, which turn item vectors into states, and layers that several backbones share."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Ranges of hyper-parameters. `harness.domains` reads them from the source and rejects bad values before any training.
Count = Annotated[int, ">= 1", "<= 65536"]
Depth = Annotated[int, ">= 1", "<= 64"]
Multiple = Annotated[int, ">= 1", "<= 64"]
Heads = Annotated[int, ">= 1", "<= 1024", "divides d"]
Rate = Annotated[float, ">= 0", "< 0.99"]  # dropout
Probability = Annotated[float, ">= 0", "<= 1"]
Scale = Literal["one", "sqrt_d"]

MASKED = -1  # item number of a masked position


class Backbone(nn.Module):
    """A sequence encoder.

    A subclass takes ``(d, max_len, *, <its hyper-parameters>)``; keyword-only parameters and their defaults are
    its schema. Sequences are padded on the right.

    Class attributes: ``version``, raised when behaviour changes; ``causal``: the state at t reads nothing after t;
    ``uses_time``: needs the times of the events, including that of the item to be predicted; ``pace``: multiplies the
    budget's epochs and patience, above 1 if an epoch trains only a share of the positions; ``by_name_only``: not part
    of the selection ``all``; ``unrolls``: loops over the length, so an exported graph pads rows to max_len;
    ``note``: a caution printed under tables with a row of this backbone.

    ``mask``: the vector (d,) of masked positions (item number `MASKED` in `views`), for backbones trained by the cloze
    task. They rank by the state of a masked position appended to the history, so rows have length max_len + 1.
    """

    version = 1
    causal = True
    uses_time = False
    pace = 1
    by_name_only = False
    unrolls = False
    note = ""
    mask: nn.Parameter | None

    def __init__(self, d: int, max_len: int) -> None:
        super().__init__()
        self.d, self.max_len = d, max_len
        self.mask = None

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        """Return states (B, L, d) of item vectors x (B, L, d), L <= max_len (+ 1 with a `mask`).

        real: (B, L) bool, False on padding. times: (B, L + 1) int64 seconds, of the L items and of the item after the
        last, zeros on padding; passed if and only if ``uses_time``.
        """
        raise NotImplementedError

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        """Return the state (B, d) at position ``at`` (B,) int64 of each row, which is all that ranking needs.

        Override if the last layers need not be computed at other positions.
        """
        return self(x, real, times)[torch.arange(len(x), device=x.device), at]

    def views(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Split item numbers (B, L + 1), 0 = padding, into inputs and targets of equal shape; target 0 is not trained.

        The default is next-item prediction, (B, L) each. Overrides may return L + 1 positions with `MASKED` inputs (see
        ``mask``), or more rows.
        """
        return items[:, :-1], items[:, 1:]


def drawn_prefixes(items: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw up to ``count`` distinct prefixes of each row of item numbers (B, L + 1); return inputs and targets, (R, L).

    These are the views of backbones whose earlier states read later items. R is the number of prefixes. The only target
    of a prefix is the item that follows it, at its last position.
    """
    L = items.shape[1] - 1
    draws = torch.rand(len(items), L, generator=generator, device=items.device)
    drawn, at = draws.masked_fill(items[:, 1:] == 0, -1).topk(min(count, L))
    row, column = (drawn >= 0).nonzero(as_tuple=True)
    chosen, at = items[row], at[row, column][:, None]
    position = torch.arange(L, device=items.device)
    return chosen[:, :-1] * (position <= at), chosen[:, 1:] * (position == at)


class Dropout(nn.Module):
    """Dropout at ``rate`` rounded to 1/256 (Srivastava et al. 2014), from one random byte per element.

    PyTorch's module draws a random number per element, which on a CPU took 14 to 18 % of a training step; this one
    takes a quarter of the time.
    """

    def __init__(self, rate: float, name: str = "dropout") -> None:
        super().__init__()
        if not 0 <= rate < 0.99:
            raise ValueError(f"{name} is {rate}; it must lie in [0, 0.99)")
        self.dropped = round(rate * 256)  # of 256

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return x
        if torch.compiler.is_compiling():  # which makes one kernel of the draw and its neighbours
            return F.dropout(x, self.dropped / 256)
        words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        draws = words.view(torch.uint8)[: x.numel()].view(x.shape)
        kept = torch.ge(draws, self.dropped, out=torch.empty_like(x))  # in x's dtype: no bool to convert
        return x * kept.mul_(256 / (256 - self.dropped))


class Attention(nn.Module):
    """Scaled dot-product softmax attention with dropout of its weights at ``rate`` in training (Vaswani et al. 2017).

    On a CPU, PyTorch's fused attention has no dropout: with ``dropout_p`` it falls back to a reference path, which took
    1.6 to 2.0 times as long as the fused one, forward and backward. This code with `Dropout` takes 1.4 to 1.6 times.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate, self.dropout = rate, Dropout(rate, "attn_dropout")

    def forward(self, q: Tensor, k: Tensor, v: Tensor, reads: Tensor | None = None) -> Tensor:
        """Attend from q (B, H, Q, w) to k, v (B, H, K, w); returns (B, H, Q, w).

        reads: bool, broadcastable to (B, H, Q, K), whether a query reads a key; each query must read at least one. None
        is the causal mask of Q = K positions.
        """
        rate = self.rate if self.training else 0.0
        if not rate or q.device.type != "cpu":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=reads, dropout_p=rate, is_causal=reads is None)
        if reads is None:
            reads = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
        scores = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
        return self.dropout(scores.masked_fill_(~reads, float("-inf")).softmax(3)) @ v

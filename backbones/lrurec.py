"""LRURec: linear recurrent units, a recurrence with complex, constant gates that a parallel scan computes.

Source: Yue et al. 2024 (arXiv 2310.02367): h <- LN(Dropout(x)) of the item vectors, then per block

    u_t = gamma * (W_in h_t + b_in);  s_t = lambda * s_{t-1} + u_t;  y_t = Re(W_out s_t + b_out)
    h <- LN(h + Dropout(y));  h <- LN(h + Dropout(W_2 Dropout(GELU(W_1 h + b_1)) + b_2))

with 2 d complex states (Orvieto et al. 2023, arXiv 2303.06349), lambda = exp(-exp(nu) + i exp(theta)),
gamma = exp(log_gamma), a feed-forward layer of width 4 d, and no positions: the recurrence preserves the order. As in
the authors' code: |lambda| starts in [0.8, 0.99] with any phase, gamma at sqrt(1 - |lambda|^2), all other weights and
biases as normal draws of standard deviation 0.02, cut at 0.04.

Ours. Rows are padded on the right, where no later state sees the padding, so the recurrence needs no mask. Complex
weights are stored as real and imaginary parts; the imaginary part of b_out, which has no effect, is left out. nu, theta
and log_gamma are vectors here, so they are not decayed. Scores have no bias per item. The parallel scan doubles its
reach log2(L) times, instead of halving rows whose length is a power of two, and has a hand-written gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ._base import Backbone, Depth, Dropout, Rate

INIT_STD = 0.02
RING = (0.8, 0.99)  # initial range of |lambda|, uniform over the area of the ring


class LRURec(Backbone):
    """``n_blocks`` blocks of a linear recurrent unit of 2 d complex states and a feed-forward layer, both post-norm.

    ``lru_dropout``: rate on the output of the recurrence; ``dropout``: rate everywhere else.
    """

    unrolls = True

    def __init__(
        self, d: int, max_len: int, *, n_blocks: Depth = 2, dropout: Rate = 0.2, lru_dropout: Rate = 0.2
    ) -> None:
        super().__init__(d, max_len)
        self.norm, self.dropout = nn.LayerNorm(d), Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, dropout, lru_dropout) for _ in range(n_blocks))
        self.blocks.apply(_normal)

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.norm(self.dropout(x))
        for block in self.blocks:
            h = block(h)
        return h

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.norm(self.dropout(x))
        for block in self.blocks[:-1]:
            h = block(h)
        return self.blocks[-1](h, at)


class _Block(nn.Module):
    def __init__(self, d: int, dropout: float, lru_dropout: float) -> None:
        super().__init__()
        self.lru = _LRU(d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), Dropout(dropout), nn.Linear(4 * d, d))
        self.norm_lru, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.lru_dropout, self.dropout = Dropout(lru_dropout, "lru_dropout"), Dropout(dropout)

    def forward(self, h: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        mixed = self.lru(h, at)
        if at is not None:
            h = h[torch.arange(len(h), device=h.device), at]
        h = self.norm_lru(h + self.lru_dropout(mixed))
        return self.norm_ffn(h + self.dropout(self.ffn(h)))


class _LRU(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)  # 2 d states, real and imaginary parts in pairs
        low, high = (bound**2 for bound in RING)
        decay = -0.5 * (torch.rand(2 * d) * (high - low) + low).log()  # -log |lambda|
        self.nu = nn.Parameter(decay.log())
        self.theta = nn.Parameter((torch.rand(2 * d) * 2 * math.pi).log())
        self.log_gamma = nn.Parameter(0.5 * torch.log(-torch.expm1(-2 * decay)))

    def forward(self, h: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        u = self.into(h).unflatten(2, (-1, 2)).to(self.nu.dtype) * self.log_gamma.exp().unsqueeze(1)
        size, angle = (-self.nu.exp()).exp(), self.theta.exp()
        if torch.compiler.is_exporting():
            s = _real_scan(torch.stack([size * angle.cos(), size * angle.sin()], -1), u)
        else:
            s = torch.view_as_real(linear_scan(torch.polar(size, angle), torch.view_as_complex(u)))
        if at is not None:
            s = s[torch.arange(len(s), device=s.device), at]
        return self.out(s.flatten(-2))


def linear_scan(factor: Tensor, u: Tensor) -> Tensor:
    """Return s (B, L, w) with s_t = factor * s_{t-1} + u_t, s before the row zero.

    factor: (w,), u: (B, L, w), both complex. Differentiable once.
    """
    scanned = _Scan.apply(factor, u)
    assert isinstance(scanned, Tensor)
    return scanned


class _Scan(torch.autograd.Function):
    """The gradient of a scan is the scan from right to left with the conjugate factor; autograd would keep the states
    of every doubling."""

    @staticmethod
    def forward(ctx: Any, factor: Tensor, u: Tensor) -> Tensor:
        s = _doubled(factor, u)
        ctx.save_for_backward(factor, s)
        return s

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        factor, s = ctx.saved_tensors
        grad_u = _doubled(factor.conj(), grads[0].flip(1)).flip(1)
        return (grad_u[:, 1:] * s[:, :-1].conj()).sum((0, 1)), grad_u


def _doubled(factor: Tensor, u: Tensor) -> Tensor:
    """The scan of u: after k doublings each state holds the terms of its last 2^k positions."""
    s, reach = u.clone(), 1
    while reach < s.shape[1]:
        s[:, reach:] += factor * s[:, :-reach]
        factor, reach = factor * factor, 2 * reach
    return s


def _real_scan(factor: Tensor, u: Tensor) -> Tensor:
    """`linear_scan` for graphs, which hold no complex numbers. factor: (w, 2), u: (B, L, w, 2), real and imaginary."""
    s, reach = u, 1
    while reach < s.shape[1]:
        s = s + F.pad(_product(factor, s[:, :-reach]), (0, 0, 0, 0, reach, 0))
        factor, reach = _product(factor, factor), 2 * reach
    return s


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Product of complex numbers stored as pairs, (..., 2)."""
    (a_re, a_im), (b_re, b_im) = a.unbind(-1), b.unbind(-1)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], -1)


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        for parameter in module.parameters():
            nn.init.trunc_normal_(parameter, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)

"""eSASRec: SASRec with gated residual branches and a SwiGLU feed-forward layer.

Source: Tikhonovich et al. 2025 (arXiv 2508.06450), eq. 1, with the LiGR layer of Borisyuk et al. 2025 (arXiv
2502.03417): h <- h + sigmoid(h W_g + b_g) * Dropout(F(LN(h))), where F is attention, then SwiGLU(h) = (SiLU(h W_1) *
h W_3) W_2 without biases. The gate reads the residual stream without normalisation. The paper trains SASRec's next-item
task with a sampled softmax; here the loss is that of every other backbone. Positions, weights N(0, 0.02^2) and the last
layer norm are those of our `sasrec`, so the two differ only in their layers. Dropout is where the paper's code
(RecTools) has it: on the input, the attention weights, between the layers of the SwiGLU and after both branches. That
code uses one rate for all; here the attention weights have a separate rate, ``attn_dropout``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Depth, Dropout, Heads, Multiple, Rate, Scale
from .sasrec import INIT_STD, SASRec, _Block, _pick


class ESASRec(SASRec):
    """``n_blocks`` causal LiGR layers of ``n_heads`` heads and a SwiGLU layer of width ``ff_mult`` d.

    Gates start near one half. ``emb_scale``: item vectors are multiplied by 1 or sqrt(d), as in `SASRec`.
    ``attn_dropout``: rate on the attention weights; ``dropout``: rate everywhere else.
    Raises ValueError if n_heads does not divide d or ``emb_scale`` is unknown.
    """

    version = 2

    def __init__(
        self,
        d: int,
        max_len: int,
        *,
        n_blocks: Depth = 2,
        n_heads: Heads = 2,
        ff_mult: Multiple = 4,
        dropout: Rate = 0.2,
        attn_dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len, n_blocks=0, n_heads=n_heads, dropout=dropout, emb_scale=emb_scale)
        self.blocks = nn.ModuleList(_LiGR(d, n_heads, ff_mult, dropout, attn_dropout) for _ in range(n_blocks))


class _LiGR(_Block):
    def __init__(self, d: int, n_heads: int, ff_mult: int, dropout: float, attn_dropout: float) -> None:
        super().__init__(d, n_heads, ff_mult, dropout, attn_dropout)
        self.ffn = _SwiGLU(d, ff_mult * d, dropout)
        self.gate_attention, self.gate_ffn = nn.Linear(d, d), nn.Linear(d, d)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=INIT_STD)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, h: Tensor, at: Tensor | None = None) -> Tensor:
        mixed = self.attention(self.norm_attention(h), at)
        h = h if at is None else _pick(h, at)
        h = h + torch.sigmoid(self.gate_attention(h)) * self.dropout(mixed)
        return h + torch.sigmoid(self.gate_ffn(h)) * self.dropout(self.ffn(self.norm_ffn(h)))


class _SwiGLU(nn.Module):
    def __init__(self, d: int, width: int, dropout: float) -> None:
        super().__init__()
        self.gated, self.linear = nn.Linear(d, width, bias=False), nn.Linear(d, width, bias=False)
        self.out = nn.Linear(width, d, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        return self.out(self.dropout(F.silu(self.gated(h)) * self.linear(h)))

"""HSTU: pointwise attention with gated outputs and relative position bias.

Source: Zhai et al. 2024 (arXiv 2402.17152), eq. 1-3: U, V, Q, K = SiLU(W_1 LN(X)); A V = SiLU(Q K^T + rab) V / n;
Y = W_2 (LN(A V) * U), added to X. As in the paper's code: input sqrt(d) x + position, positions initialised from a
normal distribution of standard deviation sqrt(1/d) truncated at two of them, dropout on the input and before W_2, layer
norms without weights (eps 1e-6), W_1 N(0, 0.02^2) without bias, W_2 Xavier-uniform, one bias per layer for all heads,
and n the constant maximum length (in the code 11 more): otherwise the layer norm after A V would depend on the padding
of a batch. That code also has a parameter for dropout of the attention weights but never applies it, and neither do we.
Of the 2 n - 1 position biases we keep the n that a causal mask can read. Left out: the time bias (see `hstu_time`),
which reads the time of the event to be predicted; the L2 norm and sampled softmax at the output, which belong to the
loss (`infonce`). A layer norm in their place gained nothing: validation NDCG@10 on MovieLens-100K was .125 with and
without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Backbone, Depth, Dropout, Heads, Rate, Scale

EMB_SCALES = ("one", "sqrt_d")
EPS = 1e-6
INIT_STD = 0.02


class HSTU(Backbone):
    """``n_blocks`` causal HSTU layers of ``n_heads`` heads of width d/heads.

    Positions are counted from the start of the row. ``emb_scale``: item vectors are multiplied by 1 or sqrt(d).
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
        dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len)
        if d % n_heads:
            raise ValueError(f"HSTU splits d={d} among n_heads={n_heads}, which does not divide it")
        if emb_scale not in EMB_SCALES:
            raise ValueError(f"emb_scale is '{emb_scale}'; it must be one of: {', '.join(EMB_SCALES)}")
        self.scale = d**0.5 if emb_scale == "sqrt_d" else 1.0
        std = d**-0.5
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(max_len, d), std=std, a=-2 * std, b=2 * std))
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, n_heads, max_len, dropout) for _ in range(n_blocks))
        self.add_biases(n_blocks)

    def add_biases(self, n_blocks: int) -> None:
        """Create the parameters of rab, one vector per block."""
        self.position_bias = _vectors(n_blocks, self.max_len)

    def biases(self, query: Tensor, length: int, times: Tensor | None) -> list[Tensor]:
        """Return rab of each block, (1 or B, Q, length), for queries at positions (1 or B, Q)."""
        back = _distance(query, length).clamp_min(0)
        return [bias[back] for bias in self.position_bias]

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        h, L = self.embed(x), x.shape[1]
        query = torch.arange(L, device=x.device)[None]
        past = _distance(query, L) >= 0
        for block, bias in zip(self.blocks, self.biases(query, L, times), strict=True):
            h = block(h, bias, past)
        return h

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        h, L = self.embed(x), x.shape[1]
        query = torch.arange(L, device=x.device)[None]
        past = _distance(query, L) >= 0
        for block, bias in zip(self.blocks[:-1], self.biases(query, L, times)[:-1], strict=True):
            h = block(h, bias, past)
        bias, past = self.biases(at[:, None], L, times)[-1], _distance(at[:, None], L) >= 0
        return self.blocks[-1](h, bias, past, at)[:, 0]

    def embed(self, x: Tensor) -> Tensor:
        return self.dropout(self.scale * x + self.position[: x.shape[1]])


class _Block(nn.Module):
    def __init__(self, d: int, n_heads: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.d, self.n_heads, self.max_len = d, n_heads, max_len
        self.uq, self.vk, self.out = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, 2 * d, bias=False), nn.Linear(d, d)
        nn.init.normal_(self.uq.weight, std=INIT_STD)
        nn.init.normal_(self.vk.weight, std=INIT_STD)
        nn.init.xavier_uniform_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.dropout = Dropout(dropout)

    def forward(self, h: Tensor, bias: Tensor, past: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, 1, d): only the output at position ``at`` (B,) of each row.

        bias, past: (1 or B, L or 1, L), rab, and whether a query may read a key.
        """
        x = h if at is None else h[torch.arange(len(h), device=h.device), at][:, None]
        (u, q), (v, k) = F.silu(self.uq(self.norm(x))).chunk(2, 2), F.silu(self.vk(self.norm(h))).chunk(2, 2)
        scores = self.heads(q) @ self.heads(k).transpose(2, 3) + bias[:, None]
        weights = F.silu(scores) * (past[:, None] / self.max_len)
        mixed = (weights @ self.heads(v)).transpose(1, 2).flatten(2)
        return x + self.out(self.dropout(u * self.norm(mixed)))

    def norm(self, h: Tensor) -> Tensor:
        return F.layer_norm(h, (self.d,), eps=EPS)

    def heads(self, x: Tensor) -> Tensor:
        """Reshape (B, L, d) to (B, heads, L, d/heads)."""
        return x.unflatten(2, (self.n_heads, -1)).transpose(1, 2)


def _vectors(n: int, length: int) -> nn.ParameterList:
    return nn.ParameterList(torch.randn(length) * INIT_STD for _ in range(n))


def _distance(query: Tensor, length: int) -> Tensor:
    """How far back each position is from queries at positions (1 or B, Q), (1 or B, Q, length)."""
    return query[..., None] - torch.arange(length, device=query.device)

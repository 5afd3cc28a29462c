"""BSARec: causal self-attention mixed with a low-pass filter that rescales the high frequencies of the sequence.

Source: Shin et al., AAAI 2024 (arXiv 2312.10325), and the authors' code (yehjin-shin/BSARec): a block computes
F = LN(X + Dropout(LFC(X) + beta HFC(X))) and A = LN(X + Dropout(attention(X))), H = alpha F + (1 - alpha) A, and
LN(H + Dropout(FFN(H))) with a GELU layer of width 4 d. LFC(X) keeps the floor(c / 2) + 1 lowest frequencies of a real
Fourier transform along the sequence, HFC(X) = X - LFC(X); beta, (d,), is the square of a parameter that starts as
N(0, 1). As in the code: layer norm and dropout after the sum of items and positions, weights N(0, 0.02^2), zero biases,
causal attention, and rows of a fixed length n that end with the last item, so positions are counted from there.

The filter reads the whole row in both directions, so only the last position of a row can be trained. The authors train
every prefix of a history as a row; here each epoch draws ``prefixes`` prefixes of each row, and ``pace`` partly
compensates, as in `fmlp`. The rows are consecutive parts of a history, so prefixes of long ones have fewer items than
theirs (see `fmlp`). Ours too: padding is zero in every block, where the authors' code gives it states of its own,
which the filter then mixes into the items (Hutter et al. 2025, arXiv 2512.17442, measure how much padding matters);
the epsilon of the layer norms is 1e-5 (theirs 1e-12); each block draws its own start of beta (theirs are copies
of one).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Attention, Backbone, Count, Depth, Dropout, Heads, Probability, Rate, Scale, drawn_prefixes

EMB_SCALES = ("one", "sqrt_d")
INIT_STD = 0.02


class BSARec(Backbone):
    """``n_blocks`` post-norm blocks: ``alpha`` parts frequency filter with cut-off ``c`` over max_len positions and
    1 - alpha parts causal attention of ``n_heads`` heads, then a feed-forward layer.

    ``emb_scale``: item vectors are multiplied by 1, as in the code, or sqrt(d). ``attn_dropout``: rate on the attention
    weights; ``dropout``: rate everywhere else.
    Raises ValueError if n_heads does not divide d, ``alpha`` is outside [0, 1], ``c`` or ``prefixes`` is below 1 or
    ``emb_scale`` is unknown.
    """

    causal = False
    pace = 2
    note = "an epoch trains only a share of the positions, so epochs and patience are twice the budget's"

    def __init__(
        self,
        d: int,
        max_len: int,
        *,
        n_blocks: Depth = 2,
        n_heads: Heads = 2,
        alpha: Probability = 0.7,
        c: Count = 5,
        prefixes: Count = 4,
        dropout: Rate = 0.2,
        attn_dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len)
        if d % n_heads:
            raise ValueError(f"BSARec splits d={d} among n_heads={n_heads}, which does not divide it")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; it must lie in [0, 1]")
        for name, value in {"c": c, "prefixes": prefixes}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if emb_scale not in EMB_SCALES:
            raise ValueError(f"emb_scale is '{emb_scale}'; it must be one of: {', '.join(EMB_SCALES)}")
        self.prefixes = prefixes
        self.scale = d**0.5 if emb_scale == "sqrt_d" else 1.0
        self.position = nn.Parameter(torch.randn(max_len, d) * INIT_STD)
        self.norm, self.dropout = nn.LayerNorm(d), Dropout(dropout)
        filters = (_Filter(d, max_len, c) for _ in range(n_blocks))
        self.blocks = nn.ModuleList(_Block(d, n_heads, alpha, f, dropout, attn_dropout) for f in filters)

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.embed(x, real)
        for block in self.blocks:
            h = block(h, real)
        return h

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.embed(x, real)
        for block in self.blocks[:-1]:
            h = block(h, real)
        return self.blocks[-1](h, real, at)

    def embed(self, x: Tensor, real: Tensor) -> Tensor:
        before = self.max_len - real.sum(1, keepdim=True)  # length of the padding before the first item
        place = (before + torch.arange(x.shape[1], device=x.device)).clamp_max(self.max_len - 1)
        return self.dropout(self.norm(self.scale * x + F.embedding(place, self.position)))

    def views(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Up to ``prefixes`` prefixes of each row, each trained at its last position; see `drawn_prefixes`."""
        return drawn_prefixes(items, self.prefixes, generator)


class _Filter(nn.Module):
    """LFC(X) + beta HFC(X) of rows that continue circularly after n positions, of which those not given are zero.

    The low-pass filter is a circular convolution whose kernel is the inverse transform of its frequency response. It is
    summed directly: that needs no padding to n, and transforms of a few tens of positions would save nothing.
    """

    kernel: Tensor

    def __init__(self, d: int, n: int, c: int) -> None:
        super().__init__()
        self.n = n
        self.sqrt_beta = nn.Parameter(torch.randn(d))
        kept = torch.arange(n // 2 + 1, dtype=torch.float64) < c // 2 + 1
        self.register_buffer("kernel", torch.fft.irfft(kept.to(torch.complex128), n=n).float(), persistent=False)

    def forward(self, h: Tensor, at: Tensor | None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        positions = torch.arange(h.shape[1], device=h.device)
        weights = self.kernel[((positions if at is None else at)[:, None] - positions) % self.n]
        low = weights @ h if at is None else (weights[:, None] @ h)[:, 0]
        beta = self.sqrt_beta.square()
        return low + beta * ((h if at is None else _pick(h, at)) - low)


class _Block(nn.Module):
    def __init__(
        self, d: int, n_heads: int, alpha: float, filter: _Filter, dropout: float, attn_dropout: float
    ) -> None:
        super().__init__()
        self.n_heads, self.alpha, self.filter = n_heads, alpha, filter
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.norm_filter, self.norm_attention, self.norm_ffn = (nn.LayerNorm(d) for _ in range(3))
        self.dropout, self.weigh = Dropout(dropout), Attention(attn_dropout)
        self.apply(_normal)

    def forward(self, h: Tensor, real: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        x = h if at is None else _pick(h, at)
        filtered = self.norm_filter(x + self.dropout(self.filter(h * real[..., None], at)))
        attended = self.norm_attention(x + self.dropout(self.attention(h, at)))
        mixed = self.alpha * filtered + (1 - self.alpha) * attended
        return self.norm_ffn(mixed + self.dropout(self.ffn(mixed)))

    def attention(self, h: Tensor, at: Tensor | None) -> Tensor:
        k, v = self.heads(self.key_value(h), 2)
        if at is None:
            (q,) = self.heads(self.query(h), 1)
            return self.out(self.weigh(q, k, v).transpose(1, 2).flatten(2))
        (q,) = self.heads(self.query(_pick(h, at)[:, None]), 1)  # one query per row
        before = torch.arange(h.shape[1], device=h.device) <= at[:, None]
        return self.out(self.weigh(q, k, v, before[:, None, None]).flatten(1))

    def heads(self, x: Tensor, parts: int) -> Tensor:
        """Reshape (B, L, parts d) to (parts, B, heads, L, d/heads)."""
        return x.unflatten(2, (parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4)


def _pick(h: Tensor, at: Tensor) -> Tensor:
    return h[torch.arange(len(h), device=h.device), at]


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)

"""FMLP-Rec: learned filters in the frequency domain instead of attention.

Source: Zhou et al. 2022 (arXiv 2202.13556), eq. 4-8: X <- LN(X + Dropout(irfft(W * rfft(X)))) along the sequence, then
X <- LN(X + Dropout(FFN(X))) with a GELU layer of width 4 d. As in the paper's code: layer norm and dropout after the
sum of items and positions, weights and filters N(0, 0.02^2), rows of a fixed length n that end with the last item, so
positions are counted from there. Ours: the padding before the first item is zero in every block, where the authors'
code gives it states of its own; then irfft(W * rfft(X))_t = sum_s k_{(t - s) mod n} X_s, k = irfft(W), needs no
computation for padding. The sum is computed directly: for rows of a few tens of items transforms would save nothing. A
filter reads the whole row, so only the last position of a row can be trained. Each epoch draws ``prefixes`` prefixes of
each row instead of using all of them, and ``pace`` partly compensates. The rows are consecutive parts of a history, as
for the other backbones, so a prefix has half a row of items on average where histories are long; the authors train each
prefix of a history with its last n items. The epsilon of the layer norms is 1e-5 (theirs
1e-12), and each block draws its own filters (theirs start as copies of one).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Backbone, Count, Depth, Dropout, Rate, Scale, drawn_prefixes

EMB_SCALES = ("one", "sqrt_d")
INIT_STD = 0.02


class FMLP(Backbone):
    """``n_blocks`` blocks of a filter over max_len positions and a feed-forward layer, both post-norm.

    Every item reads every other. ``emb_scale``: item vectors are multiplied by 1, as in the paper's code, or sqrt(d).
    Raises ValueError if ``prefixes`` is below 1 or ``emb_scale`` is unknown.
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
        prefixes: Count = 4,
        dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len)
        if prefixes < 1:
            raise ValueError(f"prefixes is {prefixes}; it must be at least 1")
        if emb_scale not in EMB_SCALES:
            raise ValueError(f"emb_scale is '{emb_scale}'; it must be one of: {', '.join(EMB_SCALES)}")
        self.prefixes = prefixes
        self.scale = d**0.5 if emb_scale == "sqrt_d" else 1.0
        self.position = nn.Parameter(torch.randn(max_len, d) * INIT_STD)
        self.norm, self.dropout = nn.LayerNorm(d), Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, max_len, dropout) for _ in range(n_blocks))

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


class _Block(nn.Module):
    def __init__(self, d: int, max_len: int, dropout: float) -> None:
        super().__init__()
        self.n = max_len
        self.filter = nn.Parameter(torch.randn(max_len // 2 + 1, d, 2) * INIT_STD)  # real and imaginary parts
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.norm_filter, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = Dropout(dropout)
        self.ffn.apply(_normal)

    def forward(self, h: Tensor, real: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, d): only the output at position ``at`` (B,) of each row."""
        filtered = self.filtered(h * real[..., None], at)
        if at is not None:
            h = h[torch.arange(len(h), device=h.device), at]
        h = self.norm_filter(h + self.dropout(filtered))
        return self.norm_ffn(h + self.dropout(self.ffn(h)))

    def filtered(self, h: Tensor, at: Tensor | None) -> Tensor:
        """The circular convolution of h with the filter, at every position or only at ``at``."""
        kernel = torch.fft.irfft(torch.view_as_complex(self.filter), n=self.n, dim=0)
        positions = torch.arange(h.shape[1], device=h.device)
        query = positions if at is None else at
        weights = F.embedding((query[:, None] - positions) % self.n, kernel)
        return torch.einsum("tsd,bsd->btd" if at is None else "bsd,bsd->bd", weights, h)


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)

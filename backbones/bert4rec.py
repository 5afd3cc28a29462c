"""BERT4Rec: bidirectional self-attention trained to fill in masked items.

Source: Sun et al. 2019 (arXiv 1904.06690): h <- LN(h + Dropout(F(h))), where F is attention over the whole row, then a
GELU layer of width 4 d; GELU-projected states are scored against the item table. As in the paper's code: layer norm and
dropout after the sum of items and positions, layer norm after the projection, weights N(0, 0.02^2) (there truncated at
two standard deviations), and rows with only the last item masked, as in ranking. Dropout is where the paper's code has
it: on the input, the attention weights (``attn_dropout``, 0.1 or 0.2 in its settings) and after both sub-layers. Left
out: the output bias per item, a popularity prior that no other backbone gets; the 80/10/10 choice between mask, random
item and the item itself. Ours: at least one item of a row stays and at least one is masked. Positions are counted from
the end of the row, as with the paper's padding on the left, so ranking always uses the same position. Petrov &
Macdonald 2022 (arXiv 2207.07483) found most published BERT4Rec results under-trained, hence ``pace``: on MovieLens-100K
it needs 50 epochs to reach the level of `sasrec` after 7.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import MASKED, Attention, Backbone, Depth, Dropout, Heads, Probability, Rate, Scale

EMB_SCALES = ("one", "sqrt_d")
INIT_STD = 0.02


class BERT4Rec(Backbone):
    """``n_blocks`` post-norm blocks of ``n_heads`` heads over rows of up to max_len + 1 positions, padding masked out.

    In training every item is masked with probability ``mask_prob``; with probability ``last_prob`` only the last item
    of a row is masked instead. Rows of one item are not trained: no item would be left to read.
    ``emb_scale``: item vectors and the mask vector are multiplied by 1, as in the paper's code, or sqrt(d). Since a
    layer norm follows, this sets their weight against the positions.
    ``attn_dropout``: rate on the attention weights; ``dropout``: rate everywhere else.
    Raises ValueError if n_heads does not divide d, a probability is outside [0, 1] or ``emb_scale`` is unknown.
    """

    version = 2
    causal = False
    pace = 4
    note = "an epoch trains only a share of the positions, so epochs and patience are four times the budget's"

    def __init__(
        self,
        d: int,
        max_len: int,
        *,
        n_blocks: Depth = 2,
        n_heads: Heads = 2,
        mask_prob: Probability = 0.4,
        last_prob: Probability = 0.2,
        dropout: Rate = 0.2,
        attn_dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len)
        if d % n_heads:
            raise ValueError(f"BERT4Rec splits d={d} among n_heads={n_heads}, which does not divide it")
        if emb_scale not in EMB_SCALES:
            raise ValueError(f"emb_scale is '{emb_scale}'; it must be one of: {', '.join(EMB_SCALES)}")
        for name, value in {"mask_prob": mask_prob, "last_prob": last_prob}.items():
            if not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must lie in [0, 1]")
        self.mask_prob, self.last_prob = mask_prob, last_prob
        self.scale = d**0.5 if emb_scale == "sqrt_d" else 1.0
        self.mask = nn.Parameter(torch.randn(d) * INIT_STD)
        self.position = nn.Parameter(torch.randn(max_len + 1, d) * INIT_STD)
        self.norm, self.dropout = nn.LayerNorm(d), Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(d, n_heads, dropout, attn_dropout) for _ in range(n_blocks))
        self.head = nn.Sequential(nn.Linear(d, d), nn.GELU(), nn.LayerNorm(d))
        self.apply(_normal)

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.embed(x, real)
        for block in self.blocks:
            h = block(h, real)
        return self.head(h)

    def last(self, x: Tensor, real: Tensor, at: Tensor, times: Tensor | None = None) -> Tensor:
        h = self.embed(x, real)
        for block in self.blocks[:-1]:
            h = block(h, real)
        return self.head(self.blocks[-1](h, real, at)[:, 0])

    def embed(self, x: Tensor, real: Tensor) -> Tensor:
        to_end = real.sum(1, keepdim=True) - 1 - torch.arange(x.shape[1], device=x.device)
        return self.dropout(self.norm(self.scale * x + self.position[to_end.clamp_min(0)]))

    def views(self, items: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The cloze task, (B, L + 1) each: rows with masked items as inputs, the masked items as targets."""
        real = items > 0
        masked = self.draw(real, generator)
        return items.masked_fill(masked, MASKED), items * masked

    def draw(self, real: Tensor, generator: torch.Generator) -> Tensor:
        """Draw which positions (B, L + 1) are masked: at least one in rows of two or more items, never a whole row."""
        draws = torch.rand(real.shape, generator=generator, device=real.device)
        smallest = draws.masked_fill(~real, 2).argmin(1, keepdim=True)
        largest = draws.masked_fill(~real, -1).argmax(1, keepdim=True)
        masked = (real & (draws < self.mask_prob)).scatter(1, smallest, True).scatter(1, largest, False)
        length = real.sum(1, keepdim=True)
        last = (torch.arange(real.shape[1], device=real.device) == length - 1) & (length > 1)
        only_last = torch.rand(len(real), 1, generator=generator, device=real.device) < self.last_prob
        return torch.where(only_last, last, masked)


class _Block(nn.Module):
    def __init__(self, d: int, n_heads: int, dropout: float, attn_dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.norm_attention, self.norm_ffn = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout, self.weigh = Dropout(dropout), Attention(attn_dropout)

    def forward(self, h: Tensor, real: Tensor, at: Tensor | None = None) -> Tensor:
        """Map (B, L, d) to (B, L, d), or to (B, 1, d): only the output at position ``at`` (B,) of each row."""
        out = h if at is None else h[torch.arange(len(h), device=h.device), at][:, None]
        out = self.norm_attention(out + self.dropout(self.attention(out, h, real)))
        return self.norm_ffn(out + self.dropout(self.ffn(out)))

    def attention(self, queries: Tensor, h: Tensor, real: Tensor) -> Tensor:
        (q,), (k, v) = self.heads(self.query(queries), 1), self.heads(self.key_value(h), 2)
        return self.out(self.weigh(q, k, v, real[:, None, None]).transpose(1, 2).flatten(2))

    def heads(self, x: Tensor, parts: int) -> Tensor:
        """Reshape (B, L, parts d) to (parts, B, heads, L, d/heads)."""
        return x.unflatten(2, (parts, self.n_heads, -1)).permute(2, 0, 3, 1, 4)


def _normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=INIT_STD)
        nn.init.zeros_(module.bias)

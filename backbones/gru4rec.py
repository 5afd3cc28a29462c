"""GRU4Rec: a gated recurrent unit over the item sequence.

Source: Hidasi et al. 2016 (arXiv 1511.06939). Like RecBole's version, it reads whole sequences with dropout on the
input and has a linear head back to width d; instead of sampled losses it uses the full-catalogue softmax of every other
backbone. Left out, as in RecBole: the official code's second dropout, on the states after each layer (off by default; 0
to 0.3 in its README's table of best hyper-parameters, 0.4 in its parameter file for RSC15), and its output bias per
item. Ours: the biases of the gates, which RecBole's version lacks.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Backbone, Depth, Dropout, Multiple, Rate, Scale

EMB_SCALES = ("one", "sqrt_d")


class GRU4Rec(Backbone):
    """``n_layers`` GRU layers of width ``hidden_mult`` d, then Linear(hidden, d).

    Each gate's matrices are Xavier-uniform as in the official code, the head Xavier-uniform, biases zero. Reads left
    to right, so padding on the right does not affect real states.
    ``emb_scale``: item vectors are multiplied by 1 or sqrt(d). Vectors small enough to score against hardly move the
    gates: unscaled, validation NDCG@10 on Amazon Office fell from .068 to .062.
    Raises ValueError if ``emb_scale`` is unknown.
    """

    version = 2
    unrolls = True

    def __init__(
        self,
        d: int,
        max_len: int,
        *,
        n_layers: Depth = 1,
        hidden_mult: Multiple = 1,
        dropout: Rate = 0.2,
        emb_scale: Scale = "sqrt_d",
    ) -> None:
        super().__init__(d, max_len)
        if emb_scale not in EMB_SCALES:
            raise ValueError(f"emb_scale is '{emb_scale}'; it must be one of: {', '.join(EMB_SCALES)}")
        self.scale = d**0.5 if emb_scale == "sqrt_d" else 1.0
        self.dropout = Dropout(dropout)
        self.gru = nn.GRU(d, hidden_mult * d, n_layers, batch_first=True)
        self.head = nn.Linear(hidden_mult * d, d)
        for name, parameter in self.named_parameters():
            if "bias" in name:
                nn.init.zeros_(parameter)
            else:
                for gate in parameter.chunk(3 if name.startswith("gru") else 1):
                    nn.init.xavier_uniform_(gate)

    def forward(self, x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        states, _ = self.gru(self.dropout(self.scale * x))
        return self.head(states)

"""UniSRec-MoE: a mixture of whitening experts over the frozen text, weighted per item by a noisy gate.

Source: the adaptor of UniSRec (Hou et al. 2022, arXiv 2206.05941): v_i = sum_k g_k (x' - b_k) W_k with experts of
parametric whitening, x' = Dropout(x), and g = softmax(x W_g + eps softplus(x W_n)), eps ~ N(0, 1) in training, else 0.
From the authors' code: W_k ~ N(0, 0.02^2), all other parameters zero, and 0.01 added to the softplus. Left out: the
pre-training on other domains with its contrastive losses, which are not part of the adaptor. Ours: one dropout mask for
all experts, so that they are a single matrix product; the authors' code draws one mask per expert. Ours, too: the table
is computed once per step, so an item has one draw of gate noise and dropout in all places of the step, as input and as
candidate. The authors' code calls the adaptor twice per step, for the events of the sequences and for the catalogue,
with independent draws for every event and candidate.

The score is not part of the adapter either: the authors score by cosine / 0.07 over the whole catalogue, while here all
rows of a bench share one score, by default the dot product under a softmax over all items.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Count, Preprocess, Rate, Spectrum

INIT_STD = 0.02
LEAST_NOISE = 0.01  # lower bound on the standard deviation of the gate's noise


class UniSRecMoE(Adapter):
    """T_i = sum_k g_ik (x_i' - b_k) W_k, (N, d), with ``experts`` experts over x = features(``preprocess``).

    ``noisy``: adds noise of standard deviation softplus(x W_n) + 0.01 to the gate's logits x W_g in training. The gate
    starts uniform. ``dropout``: rate on the experts' input; computing it takes a fifth of the table's cost.
    Raises ValueError if ``preprocess`` is unknown, ``experts`` is below 1 or ``dropout`` outside [0, 1).
    """

    draws = True

    features: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        experts: Count = 8,
        noisy: bool = True,
        dropout: Rate = 0.2,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if experts < 1:
            raise ValueError(f"a mixture needs at least 1 expert, experts is {experts}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must lie in [0, 1)")
        self.experts, self.noisy, self.dropout = experts, noisy, dropout
        self.frozen_text("features", preprocess)
        width = self.features.shape[1]
        self.W = nn.Parameter(torch.randn(width, experts * d) * INIT_STD)  # the experts' W_k side by side
        self.b = nn.Parameter(torch.zeros(experts, width))
        self.gate = nn.Parameter(torch.zeros(width, experts * (2 if noisy else 1)))  # W_g and W_n side by side

    def forward(self) -> Tensor:
        return self.mixture(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.mixture(self.read("features", ids))

    def mixture(self, x: Tensor) -> Tensor:
        """Map text (m, features) to rows (m, d)."""
        outputs = (F.dropout(x, self.dropout, self.training) @ self.W).unflatten(1, (self.experts, self.d))
        shifts = torch.einsum("kf,fkd->kd", self.b, self.W.unflatten(1, (self.experts, self.d)))  # b_k W_k
        g = self.gates(x)
        return torch.einsum("mk,mkd->md", g, outputs) - g @ shifts

    def gates(self, x: Tensor) -> Tensor:
        """Expert weights (m, experts) for text (m, features); rows sum to one."""
        if not (self.noisy and self.training):
            return (x @ self.gate[:, : self.experts]).softmax(1)
        logits, noise = (x @ self.gate).chunk(2, 1)
        return (logits + torch.randn_like(logits) * (F.softplus(noise) + LEAST_NOISE)).softmax(1)

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """``experts_an_item``: exp of the mean entropy of the gate without noise, from 1 to ``experts``;
        ``experts_used``: exp of the entropy of the mean gate, which falls when whole experts are idle.
        """
        g = (self.features @ self.gate[:, : self.experts]).softmax(1)
        entropy_an_item, entropy_of_mean = (torch.special.entr(p).sum(-1).mean().item() for p in (g, g.mean(0)))
        return {"experts_an_item": math.exp(entropy_an_item), "experts_used": math.exp(entropy_of_mean)}

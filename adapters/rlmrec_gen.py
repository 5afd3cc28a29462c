"""RLMRec-Gen: a free item table, and states that have to reconstruct the text of the item they stand for.

Source: RLMRec, generative alignment (Ren et al. 2024, arXiv 2310.15950): a share of the nodes of the interaction graph
is replaced by a mask token, and an MLP reconstructs the text s_i of a masked node from what the encoder makes of its
neighbours, L = - sum_i log exp(sim(MLP(e_i), s_i) / tau) / sum_j exp(sim(MLP(e_i), s_j) / tau) over the masked nodes,
sim the cosine, as in the reference code.

Carried over to sequences: the state of a trained position knows the context of its target but not the target itself,
which is what masking a node is for. So a drawn position is a masked node, nothing needs to be hidden, and the loss of
the recommender sees its inputs whole. Left out, as in rlmrec_con: profiles, users, the graph encoder.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import described, info_nce, perceptron
from ._base import Adapter, NonNegative, Positive, Preprocess, Spectrum, Step
from .svd import COPY_STD


class RLMRecGen(Adapter):
    """A trainable table T (N, d), entries N(0, 0.05^2); the text only enters the auxiliary loss.

    aux = ``weight`` * InfoNCE at temperature ``tau`` between MLP(h_p) and features(``preprocess``) of p's target, over
    a share ``mask`` of the trained positions p drawn anew in every step (at least 2; all of them in eval mode), h_p the
    state. Candidates are the different targets of the drawn positions, so that no item is its own negative; positions
    whose target has no text are left out.
    Raises ValueError where ``preprocess`` is none of raw, center, whiten, or ``mask`` lies outside (0, 1].
    """

    fuses = True

    features: Tensor
    described: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        weight: NonNegative = 0.1,
        tau: Positive = 0.2,
        mask: Annotated[float, "> 0", "<= 1"] = 0.1,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if not 0 < mask <= 1:
            raise ValueError(f"mask is {mask}; it must lie in (0, 1]")
        self.weight, self.tau, self.mask = weight, tau, mask
        self.frozen("features", spectrum.features(preprocess))
        self.frozen("described", described(spectrum.E))
        self.table = nn.Parameter(torch.randn(self.n, d) * COPY_STD)
        self.reconstruction = perceptron(d, self.features.shape[1])

    def forward(self) -> Tensor:
        return self.table

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table)

    def aux(self, step: Step) -> Tensor | None:
        drawn = self._drawn(step.targets)
        if not len(drawn):
            return None
        items, own = step.targets[drawn].unique(return_inverse=True)
        return self.weight * info_nce(self.reconstruction(step.states[drawn]), self.features[items], own, self.tau)

    def _drawn(self, targets: Tensor) -> Tensor:
        """Positions to reconstruct, of those whose target has text."""
        positions = self.described[targets].nonzero().squeeze(1)
        if not self.training:
            return positions
        count = max(round(self.mask * len(positions)), 2)
        return positions[torch.randperm(len(positions), device=targets.device)[:count]]

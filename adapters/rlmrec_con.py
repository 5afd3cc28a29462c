"""RLMRec-Con: a free item table, held close to the text by a contrastive loss.

Source: RLMRec, contrastive alignment (Ren et al. 2024, arXiv 2310.15950): an MLP carries the text s_i into the space of
the collaborative vector e_i, and L = - sum_i log exp(sim(e_i, MLP(s_i)) / tau) / sum_j exp(sim(e_i, MLP(s_j)) / tau),
sim the cosine, is added to the loss of the recommender. As in the reference code, e_i is the anchor and the texts of
the other items of the step are the negatives; one hidden layer of width (D + d) / 2. Left out: the profiles that a
language model writes of items and users (the text is the catalogue's own, and users have none), hence the alignment of
users; and the graph encoder, whose output e_i is: here it is the table itself, before the sequence encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import described, info_nce, perceptron
from ._base import Adapter, NonNegative, Positive, Preprocess, Spectrum, Step
from .svd import COPY_STD


class RLMRecCon(Adapter):
    """A trainable table T (N, d), entries N(0, 0.05^2); the text only enters the auxiliary loss.

    aux = ``weight`` * InfoNCE at temperature ``tau`` between T_i and MLP(features(``preprocess``)_i) over the step's
    different items; those without text are left out, as their common zero row says nothing of them.
    Raises ValueError where ``preprocess`` is none of raw, center, whiten.
    """

    fuses = True

    features: Tensor
    described: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        weight: NonNegative = 1e-2,
        tau: Positive = 0.2,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        self.weight, self.tau = weight, tau
        self.frozen("features", spectrum.features(preprocess))
        self.frozen("described", described(spectrum.E))
        self.table = nn.Parameter(torch.randn(self.n, d) * COPY_STD)
        self.projection = perceptron(self.features.shape[1], d)

    def forward(self) -> Tensor:
        return self.table

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table)

    def aux(self, step: Step) -> Tensor | None:
        ids = step.items()
        ids = ids[self.described[ids]]
        if not len(ids):
            return None
        own = torch.arange(len(ids), device=ids.device)
        return self.weight * info_nce(self.rows(ids), self.projection(self.features[ids]), own, self.tau)

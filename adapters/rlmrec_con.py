"""RLMRec-Con: a free item table, aligned with the text by a contrastive loss.

Source: RLMRec, contrastive alignment (Ren et al. 2024, arXiv 2310.15950): an MLP maps the text s_i into the space of
the collaborative vector e_i, and L = - sum_i log exp(sim(e_i, MLP(s_i)) / tau) / sum_j exp(sim(e_i, MLP(s_j)) / tau),
sim the cosine, is added to the loss of the recommender. As in the reference code, e_i is the anchor, the texts of the
other items of the step are the negatives, and the MLP has one hidden layer of width (D + d) / 2. Left out: the profiles
of items and users written by a language model (the text is that of the catalogue, and users have none), and therefore
the alignment of users; and the graph encoder, whose output is their e_i: here e_i is the table itself, before the
sequence encoder.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import has_text, info_nce, perceptron
from ._base import Adapter, NonNegative, Positive, Preprocess, Spectrum, Step
from .svd import COPY_STD


class RLMRecCon(Adapter):
    """A trainable table T (N, d), initial entries N(0, 0.05^2); the text is used only in the auxiliary loss.

    aux = ``weight`` * InfoNCE at temperature ``tau`` between T_i and MLP(features(``preprocess``)_i) over the step's
    distinct items. Items without text are left out, since all of them have the same zero row.
    Raises ValueError if ``preprocess`` is unknown.
    """

    fuses = True
    draws = True

    features: Tensor
    has_text: Tensor

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
        self.frozen_text("features", preprocess)
        self.frozen("has_text", has_text(spectrum.E))
        self.table = nn.Parameter(torch.randn(self.n, d) * COPY_STD)
        self.projection = perceptron(self.features.shape[1], d)

    def forward(self) -> Tensor:
        return self.table

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table)

    def aux(self, step: Step) -> Tensor | None:
        ids = step.items()
        ids = ids[self.has_text[ids]]
        if not len(ids):
            return None
        positive = torch.arange(len(ids), device=ids.device)
        return self.weight * info_nce(self.rows(ids), self.projection(self.read("features", ids)), positive, self.tau)

"""RLMRec-Gen: a free item table, trained with states that must reconstruct the text of their target item.

Source: RLMRec, generative alignment (Ren et al. 2024, arXiv 2310.15950): a share of the nodes of the interaction graph
is replaced by a mask token, and an MLP reconstructs the text s_i of a masked node from e_i, which the encoder computes
from its neighbours, L = - sum_i log exp(sim(MLP(e_i), s_i) / tau) / sum_j exp(sim(MLP(e_i), s_j) / tau) over the masked
nodes, sim the cosine, as in the reference code.

For sequences, the state of a trained position depends on the context of its target but not on the target itself, which
is the purpose of masking a node. So a drawn position serves as a masked node: nothing needs to be hidden, and the loss
of the recommender sees its full inputs. Left out, as in rlmrec_con: profiles, users, the graph encoder.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import has_text, info_nce, perceptron
from ._base import Adapter, NonNegative, Positive, Preprocess, Spectrum, Step
from .svd import COPY_STD


class RLMRecGen(Adapter):
    """A trainable table T (N, d), initial entries N(0, 0.05^2); the text is used only in the auxiliary loss.

    aux = ``weight`` * InfoNCE at temperature ``tau`` between MLP(h_p), h_p the state at position p, and
    features(``preprocess``) of the target of p. Each step draws a share ``mask`` of the trained positions (at least 2;
    all of them in eval mode); positions whose target has no text are left out. Candidates are the distinct targets of
    the drawn positions, so no item is its own negative.
    Raises ValueError if ``preprocess`` is unknown or ``mask`` is outside (0, 1].
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
        weight: NonNegative = 0.1,
        tau: Positive = 0.2,
        mask: Annotated[float, "> 0", "<= 1"] = 0.1,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if not 0 < mask <= 1:
            raise ValueError(f"mask is {mask}; it must lie in (0, 1]")
        self.weight, self.tau, self.mask = weight, tau, mask
        self.frozen_text("features", preprocess)
        self.frozen("has_text", has_text(spectrum.E))
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
        items, positive = step.targets[drawn].unique(return_inverse=True)
        return self.weight * info_nce(
            self.reconstruction(step.states[drawn]), self.read("features", items), positive, self.tau
        )

    def _drawn(self, targets: Tensor) -> Tensor:
        """Draw the positions to reconstruct among those whose target has text."""
        positions = self.has_text[targets].nonzero().squeeze(1)
        if not self.training:
            return positions
        count = max(round(self.mask * len(positions)), 2)
        return positions[torch.randperm(len(positions), device=targets.device)[:count]]

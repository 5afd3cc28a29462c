"""BCE: binary cross-entropy of the target and of negatives drawn for each position; the original loss of SASRec.

Source: Kang & McAuley (2018, arXiv 1808.09781), who draw one negative. The mean over the m + 1 candidates is from
Petrov & Macdonald (2023, arXiv 2308.07192): at m = 1 half of SASRec's sum, a factor that Adam cancels.

Ours: negatives differ from the position's own target only. In the authors' code, and in that of FMLP-Rec and LLM-ESR,
they are in no training event of the user.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ._base import Negatives, Probability, Sampled, check
from ._pairs import pair_scores


class BCE(Sampled):
    """L = -(log sigma(s_target) + sum over the negatives of log(1 - sigma(s))) / (m + 1), mean over positions.

    ``m`` negatives per position, drawn by popularity^``alpha``; keeps (P, m + 1) scores in memory.
    """

    implied = ("alpha",)

    def __init__(self, n_items: int, *, m: Negatives = 1, alpha: Probability = 0.0) -> None:
        super().__init__(n_items, m, alpha)
        self.beta = 1.0  # power of the target's probability

    def draw(self, positions: int, generator: torch.Generator) -> Tensor:
        return self.sample((positions, self.m), generator)

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        negatives = check(h, table, target, negatives, (len(h), self.m))
        scores = pair_scores(h, table, torch.cat([target[:, None], negatives], 1))
        positive = self.beta * F.logsigmoid(scores[:, 0])
        negative = F.logsigmoid(-scores[:, 1:]).masked_fill(target[:, None] == negatives, 0.0)
        return -(positive + negative.sum(1)).mean() / (self.m + 1)

"""Sampled softmax: cross-entropy of the target against a few uniform negatives that all positions share.

Source: as in eSASRec (2025, arXiv 2508.06450). The draw is uniform, so a logQ correction would subtract the same
constant from every candidate and cancel; there is none. The loss is therefore noise-contrastive estimation by ranking
(Ma & Collins 2018, arXiv 1809.01812): for any m, its minimiser has the scores of the full softmax up to a constant per
position (exactly, if the draw repeats no item). Its value does not estimate that of the full softmax: m unweighted
negatives stand for N - 1, so it is smaller, and the two cannot be compared.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ._base import Negatives, Sampled, check


class SampledSoftmax(Sampled):
    """L = -log exp(s_target) / (exp(s_target) + sum over the negatives of exp(s)), mean over positions.

    ``m`` negatives per step, shared by all positions: one (P, d) by (d, m) product. Keeps (P, m + 1) scores in memory.
    """

    def __init__(self, n_items: int, *, m: Negatives = 512) -> None:
        super().__init__(n_items, m)
        self.tau = 1.0

    def draw(self, positions: int, generator: torch.Generator) -> Tensor:
        return torch.randint(self.n_items, (self.m,), generator=generator, device=generator.device)

    def __call__(self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None) -> Tensor:
        negatives = check(h, table, target, negatives, (self.m,))
        positive, negative = (self.project(F.embedding(index, table)) for index in (target, negatives))
        h = self.project(h) / self.tau
        hits = target[:, None] == negatives
        scores = torch.cat([(h * positive).sum(1, keepdim=True), (h @ negative.T).masked_fill(hits, -torch.inf)], 1)
        return F.cross_entropy(scores, torch.zeros_like(target))

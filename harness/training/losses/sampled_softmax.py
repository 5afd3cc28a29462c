"""Sampled softmax: cross-entropy of the target against a few negatives that all positions share.

Source: as in eSASRec (2025, arXiv 2508.06450), with uniform negatives. The loss is then noise-contrastive estimation by
ranking (Ma & Collins 2018, arXiv 1809.01812): for any m, its minimiser has the scores of the full softmax up to a
constant per position (exactly, if the draw repeats no item). Its value does not estimate that of the full softmax: m
unweighted negatives stand for N - 1, so it is smaller, and the two cannot be compared.

Negatives drawn by popularity^alpha push popular items down too often. The logQ correction (Bengio & Senecal 2008; Yi et
al. 2019, RecSys, doi 10.1145/3298689.3346996, eq. 3) subtracts log(m q_j), the log of the expected number of draws,
from the score of negative j: the sum over target and negatives is then an unbiased estimate of the partition function
of the full softmax. Differences from Yi et al.: q is known, not estimated from a stream, and the target's score is not
corrected, since the target is not drawn (Khrylchenko et al. 2025, arXiv 2507.09331; without their weight of positions).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ._base import Negatives, Probability, Sampled, check


class SampledSoftmax(Sampled):
    """L = -log exp(s_target) / (exp(s_target) + sum over the negatives of exp(s)), mean over positions.

    ``m`` negatives per step, drawn by popularity^``alpha`` and shared by all positions: one (P, d) by (d, m) product.
    ``logq``: subtract log(m q_j) from the score of negative j. Keeps (P, m + 1) scores in memory.
    """

    implied = ("alpha", "logq")

    def __init__(self, n_items: int, *, m: Negatives = 512, alpha: Probability = 0.0, logq: bool = False) -> None:
        super().__init__(n_items, m, alpha)
        self.tau, self.logq = 1.0, logq

    def draw(self, positions: int, generator: torch.Generator) -> Tensor:
        return self.sample((self.m,), generator)

    def log_expected(self, negatives: Tensor) -> Tensor | None:
        if not self.logq:
            return None
        if self.log_q is None:
            return torch.full(negatives.shape, math.log(self.m / self.n_items), device=negatives.device)
        self.log_q = self.log_q.to(negatives.device)
        return self.log_q[negatives] + math.log(self.m)

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        negatives = check(h, table, target, negatives, (self.m,))
        positive, negative = (self.project(F.embedding(index, table)) for index in (target, negatives))
        h = self.project(h) / self.tau
        hits = target[:, None] == negatives
        others = h @ negative.T if expected is None else h @ negative.T - expected.to(h.dtype)
        scores = torch.cat([(h * positive).sum(1, keepdim=True), others.masked_fill(hits, -torch.inf)], 1)
        return F.cross_entropy(scores, torch.zeros_like(target))

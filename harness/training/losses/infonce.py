"""InfoNCE: sampled softmax over cosines, sharpened by a temperature.

Source: van den Oord et al. (2018, arXiv 1807.03748), the loss named by SpecTran (2026, arXiv 2601.21986) and used with
tau 0.07 and 64 negatives in the code of AlphaFuse (Hu et al. 2025, arXiv 2504.19218). The default here is 512, as in
`sampled_softmax`: shared by all positions they are nearly free, and the two losses then differ in the score alone.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ._base import Negatives, Positive
from .sampled_softmax import SampledSoftmax

SHORTEST = 1e-4  # of a vector that is brought to length 1: a row of zeros would else get a gradient beyond all others


class InfoNCE(SampledSoftmax):
    """`SampledSoftmax` of s = cos(h, item) / ``tau``. Ranking is by the cosine as well.

    Raises ValueError where ``tau`` is not positive.
    """

    def __init__(self, n_items: int, *, tau: Positive = 0.07, m: Negatives = 512) -> None:
        super().__init__(n_items, m=m)
        if tau <= 0:
            raise ValueError(f"tau is {tau}; a temperature is above 0")
        self.tau = tau

    def project(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=SHORTEST)

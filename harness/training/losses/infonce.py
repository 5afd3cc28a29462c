"""InfoNCE: sampled softmax over cosines, sharpened by a temperature.

Source: van den Oord et al. (2018, arXiv 1807.03748), the loss named by SpecTran (2026, arXiv 2601.21986) and used with
tau 0.07 and 64 negatives in the code of AlphaFuse (Hu et al. 2025, arXiv 2504.19218). The default here is 512, as in
`sampled_softmax`: shared negatives cost almost nothing, and the two losses then differ only in the score.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ._base import Negatives, Positive, Probability
from .sampled_softmax import SampledSoftmax

SHORTEST = 1e-4  # min length in normalisation: otherwise a row of zeros gets a gradient larger than all others


class InfoNCE(SampledSoftmax):
    """`SampledSoftmax` of s = cos(h, item) / ``tau``. Ranking uses the cosine too.

    Raises ValueError if ``tau`` is not positive.
    """

    def __init__(
        self,
        n_items: int,
        *,
        tau: Positive = 0.07,
        m: Negatives = 512,
        alpha: Probability = 0.0,
        logq: bool = False,
    ) -> None:
        super().__init__(n_items, m=m, alpha=alpha, logq=logq)
        if tau <= 0:
            raise ValueError(f"tau is {tau}; it must be above 0")
        self.tau = tau

    def project(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1, eps=SHORTEST)

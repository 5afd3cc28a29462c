"""gBCE: binary cross-entropy whose target is tempered, against the overconfidence that few negatives breed.

Source: gSASRec, Petrov & Macdonald (2023, arXiv 2308.07192): sigma(s_target)^beta with
beta = alpha ((1 - 1/alpha) t + 1/alpha) and the sampling rate alpha = m / (N - 1). As log sigma^beta = beta log sigma,
which is stable at any score, nothing here needs the float64 that the authors' way through a transformed logit does.

Many negatives cost patience: at first only popularity is learned, on ml-100k (SASRec, ID, default settings) for about 5
epochs with m = 32 and for more than 25 with the paper's 256.
"""

from __future__ import annotations

from ._base import Negatives, Probability
from .bce import BCE


class GBCE(BCE):
    """`BCE` with the target's log-probability times beta = 1 - ``t`` (1 - alpha).

    ``t`` from 0 (plain BCE) to 1 (probabilities calibrated as under BCE with all negatives). Where m exceeds N - 1,
    alpha is 1: draws with replacement cover no more than everything. Raises ValueError where t lies outside [0, 1].
    """

    def __init__(self, n_items: int, *, m: Negatives = 256, t: Probability = 0.75) -> None:
        super().__init__(n_items, m=m)
        if not 0 <= t <= 1:
            raise ValueError(f"t is {t}; it lies between 0 and 1")
        self.beta = 1 - t * (1 - min(m / (n_items - 1), 1))

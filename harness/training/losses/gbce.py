"""gBCE: binary cross-entropy with a tempered target, against the overconfidence caused by few negatives.

Source: gSASRec, Petrov & Macdonald (2023, arXiv 2308.07192): sigma(s_target)^beta with
beta = alpha ((1 - 1/alpha) t + 1/alpha) and the sampling rate alpha = m / (N - 1). Because log sigma^beta = beta log
sigma is stable at any score, this needs no float64, unlike the transformed logit in the authors' code.

Many negatives slow the start: at first only popularity is learned, on ml-100k (SASRec, ID, default settings) for about
5 epochs with m = 32 and for more than 25 with the paper's 256.
"""

from __future__ import annotations

from ._base import Negatives, Probability
from .bce import BCE


class GBCE(BCE):
    """`BCE` with the target's log-probability multiplied by beta = 1 - ``t`` (1 - alpha).

    ``t`` from 0 (plain BCE) to 1 (probabilities calibrated as under BCE with all negatives). alpha is capped at 1, for
    m above N - 1. Negatives are always uniform, as the sampling rate assumes. Raises ValueError if t is outside [0, 1].
    """

    implied = ()

    def __init__(self, n_items: int, *, m: Negatives = 256, t: Probability = 0.75) -> None:
        super().__init__(n_items, m=m)
        if not 0 <= t <= 1:
            raise ValueError(f"t is {t}; it must be between 0 and 1")
        self.beta = 1 - t * (1 - min(m / (n_items - 1), 1))

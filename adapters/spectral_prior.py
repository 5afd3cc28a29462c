"""A spectral map of the text as the prior mean of an item, and a residual that an item earns by its events.

Source: ours; the shrinkage is that of empirical Bayes (Efron and Morris 1973), the start that of `svd_whiten`.

Derivation. Let x_i be the whitened text of item i and e_i its vector, with prior e_i ~ N(M x_i, t^2 I). If an
event tells about e_i with precision p, the posterior mean after n_i events is M x_i + s_i (m_i - M x_i), where m_i is
what the events alone say and s_i = n_i / (n_i + kappa), kappa = 1 / (p t^2).
Early stopped gradient descent on a residual that starts at zero shrinks alike, because an item's gradient grows with
its events. Adam divides that size out: a rare item moves as far per step as a popular one, mostly by being a negative.
Multiplying the residual by s_i restores the shrinkage, as Adam's step on row i is then s_i times the learning rate.

At the start M selects the d leading components, so the table is that of `svd_whiten`. Without shrinkage (``kappa`` = 0)
and with M at its start it would be its trainable copy; with s_i = 0 for all items it is `linear_whiten` without bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, NonNegative, Spectrum
from .svd import COPY_STD


class SpectralPrior(Adapter):
    """T_i = 0.05 x_i M + s_i r_i, (N, d): x_i (r,) of features(whiten), M (r, d), r_i a residual that starts at zero.

    ``kappa``: number of training events at which half of the residual counts, s_i = n_i / (n_i + kappa); 0: s_i = 1.
    ``tail``: M reads all components; otherwise the d leading ones.
    Items without text start at zero and have s_i = 1.
    Raises ValueError if d exceeds the rank.
    """

    fuses = True
    uses_interactions = True
    by_name_only = True

    features: Tensor
    share: Tensor

    def __init__(self, spectrum: Spectrum, d: int, *, kappa: NonNegative = 3.0, tail: bool = True) -> None:
        super().__init__(spectrum, d)
        if d > spectrum.rank:
            raise ValueError(f"SpectralPrior starts at d={d} components, but the text has rank {spectrum.rank}")
        X = spectrum.features("whiten")
        self.frozen("features", X if tail else X[:, :d])
        counts = spectrum.interactions.counts(self.n).float()
        has_text = (spectrum.E != 0).any(1)
        share = counts / (counts + kappa) if kappa else torch.ones(self.n)
        self.frozen("share", share.where(has_text, 1.0).unsqueeze(1))
        self.map = nn.Parameter(torch.eye(self.features.shape[1], d))
        self.residual = nn.Parameter(torch.zeros(self.n, d))

    def forward(self) -> Tensor:
        return COPY_STD * self.features @ self.map + self.share * self.residual

    def rows(self, ids: Tensor) -> Tensor:
        return COPY_STD * self.features[ids] @ self.map + self.share[ids] * F.embedding(ids, self.residual)

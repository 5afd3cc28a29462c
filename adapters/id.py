"""ID: a free embedding per item, without text; the control that every text adapter has to beat.

Source: the item embedding of SASRec (Kang & McAuley 2018, arXiv 1808.09781); normal initialisation as in RecBole
(Zhao et al. 2021).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import Adapter, Positive, Spectrum


class ID(Adapter):
    """A trainable table (N, d) with initial entries N(0, ``init_std``^2).

    The seam applies no gain to it, so ``init_std`` is the scale that the backbone sees. `IDGain` is the same with the
    gain of a method that reads text.
    """

    uses_text = False

    def __init__(self, spectrum: Spectrum, d: int, *, init_std: Positive = 0.02) -> None:
        super().__init__(spectrum, d)
        self.table = nn.Parameter(torch.randn(self.n, d) * init_std)

    def forward(self) -> Tensor:
        return self.table

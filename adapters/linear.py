"""Linear: an affine map of the frozen text, T = X W + b.

Source: the text branch of MoRec (Yuan et al. 2023, arXiv 2303.13835) and the evaluation head of LLM2Rec (He et al.
2025): Xavier-normal weight, zero bias, nothing after the map.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Adapter, Preprocess, Spectrum


class Linear(Adapter):
    """T = features(``preprocess``) W + b, (N, d); the row of an item without text is b.

    Raises ValueError if ``preprocess`` is unknown.
    """

    draws = True

    features: Tensor

    def __init__(self, spectrum: Spectrum, d: int, *, preprocess: Preprocess = "raw") -> None:
        super().__init__(spectrum, d)
        self.preprocess = preprocess
        self.frozen_text("features", preprocess)
        self.map = nn.Linear(self.features.shape[1], d)
        nn.init.xavier_normal_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self) -> Tensor:
        return self.map(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.map(self.read("features", ids))

    def linear_map(self) -> tuple[Tensor, Tensor]:
        W, b = self.spectrum.affine(self.preprocess, self.map.weight.T)
        return W, b + self.map.bias.detach().cpu()

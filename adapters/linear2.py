"""Linear2: two linear layers without an activation between them, the adapter of LLM-ESR and LLMEmb.

Sources: Liu et al. 2024, arXiv 2405.20646 (LLM-ESR), and Liu et al. 2025, arXiv 2409.19925 (LLMEmb): Linear(D, D / 2),
then Linear(D / 2, d), Xavier-normal weights. Like `Linear` it is a linear map of rank at most d; it differs in its
factorisation, which changes the course of training. Biases start at zero (the authors' initialisation skips theirs). In
some of their set-ups the text is trained too or reduced by PCA; here it is frozen, and ``preprocess`` is searched.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Preprocess, Spectrum


class Linear2(Adapter):
    """T = (X W_1 + b_1) W_2 + b_2, (N, d), X = features(``preprocess``), hidden width half that of X.

    Computed as X (W_1 W_2) + (b_1 W_2 + b_2), which is equal and costs a fraction. The row of an item without text is
    b_1 W_2 + b_2.
    Raises ValueError if ``preprocess`` is unknown.
    """

    draws = True

    features: Tensor

    def __init__(self, spectrum: Spectrum, d: int, *, preprocess: Preprocess = "raw") -> None:
        super().__init__(spectrum, d)
        self.preprocess = preprocess
        self.frozen_text("features", preprocess)
        width = self.features.shape[1]
        self.first = nn.Linear(width, max(width // 2, 1))
        self.second = nn.Linear(self.first.out_features, d)
        for layer in (self.first, self.second):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def product(self) -> tuple[Tensor, Tensor]:
        """(B, b) with T = X B + b: B (features, d), b (d,)."""
        return (self.second.weight @ self.first.weight).T, self.second(self.first.bias)

    def forward(self) -> Tensor:
        return self._mapped(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self._mapped(self.read("features", ids))

    def _mapped(self, X: Tensor) -> Tensor:
        B, b = self.product()
        return F.linear(X, B.T, b)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        B, bias = self.product()
        W, b = self.spectrum.affine(self.preprocess, B)
        return W, b + bias.detach().cpu()

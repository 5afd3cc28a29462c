"""WhitenRec: a feed-forward projection of fully whitened text.

Source: Zhang et al. 2024, arXiv 2402.10602: Z = X Phi with the ZCA whitening Phi = V diag(lambda)^-1/2 V^T of the
covariance, which makes Z the white matrix closest to X, then a projection head trained with the backbone. PCA
whitening, X V diag(lambda)^-1/2, differs from Z by the rotation V. The head follows the code of the authors' companion
paper (Zhang et al. 2024, AAAI, DWSRec): two layers, ReLU, dropout 0.2 before each. Ours: the hidden width is searched
as in `MLP` (theirs is d, 300), no ReLU after the last layer (it would make the whole table non-negative), and
Xavier-uniform weights.

The score is not part of the adapter: the authors score by cosine / 0.07 over the whole catalogue, while here all rows
of a bench share one score, by default the dot product under a softmax over all items.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Adapter, Count, Rate, Spectrum


class WhitenRec(Adapter):
    """T = W_2 relu(W_1 z + b_1) + b_2, (N, d), for rows z of Z = sqrt(N_text - 1) U V^T, (N, D), with ``hidden``
    units and ``dropout`` on the input of each layer. Items without text have z = 0.

    Z leaves out directions below the rank cut of the spectrum.
    """

    draws = True

    features: Tensor

    def __init__(self, spectrum: Spectrum, d: int, *, hidden: Count = 256, dropout: Rate = 0.2) -> None:
        super().__init__(spectrum, d)
        self.frozen_text("features", "whiten", lambda Z: Z @ spectrum.V.T)
        first, last = nn.Linear(self.features.shape[1], hidden), nn.Linear(hidden, d)
        for layer in (first, last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.head = nn.Sequential(nn.Dropout(dropout), first, nn.ReLU(), nn.Dropout(dropout), last)

    def forward(self) -> Tensor:
        return self.head(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.head(self.read("features", ids))

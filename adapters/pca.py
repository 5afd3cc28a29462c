"""PCA adaptor: a projection that starts as the principal components of the text and is trained, then an MLP.

Source: RecTools 0.19 (MTS, 2026), `rectools.fast_transformers` UniSRec, whose adaptor takes the place of the whitening
experts of UniSRec (Hou et al. 2022, arXiv 2206.05941): ``pca`` is MLP((x - b) P) with b the mean and P the leading
principal directions, both trained; ``bn`` is MLP(BatchNorm(x)). The MLP is Linear, GELU, Dropout, Linear. Equal to its
code but for: Xavier-uniform weights instead of N(0, 0.02^2), as in the other adapters; b is trained as a shift of the
centred text, so items without text stand at the mean; the hidden width of ``bn`` is ``hidden`` (there d).

RecTools has one batch norm over the items of the batch, padding included, for the encoder's input and another over the
catalogue for the scores. Here a bench has one table for both, so the batch is always the catalogue. Its statistics are
those of the frozen text of the items with text: constants, equal in training and evaluation, for some rows and for all.
Left out: the projection without MLP (a linear map, see `linear`), several texts an item, learning rates per layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Count, Rate, Spectrum

ADAPTORS = ("pca", "bn")
EPSILON = 1e-5  # added to the variances by batch norm


class PCA(Adapter):
    """T = W_2 gelu(W_1 z + b_1) + b_2, (N, d), with ``dropout`` before W_2.

    ``adaptor``: ``pca``, z = P^T (x - mean - shift) with P (D, k) trained from the k = min(``hidden``, rank) leading
    columns of V, shift (D,) trained from 0 and W_1 (k, k); or ``bn``, z = scale * (x - mean) / std + shift with scale
    and shift (D,) trained from 1 and 0 and W_1 (``hidden``, D). There is no activation between the two linear maps, so
    they are multiplied first. The row of an item without text is that of the mean text.
    Raises ValueError if ``adaptor`` is unknown or the text has rank 0.
    """

    draws = True

    features: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        adaptor: Literal["pca", "bn"] = "pca",
        hidden: Count = 256,
        dropout: Rate = 0.2,
    ) -> None:
        super().__init__(spectrum, d)
        if adaptor not in ADAPTORS:
            raise ValueError(f"adaptor is '{adaptor}'; it must be one of: {', '.join(ADAPTORS)}")
        if spectrum.rank == 0:
            raise ValueError("PCA needs text of rank 1 or more, but all items have the same text or none")
        self.adaptor = adaptor
        X = spectrum.features("center")
        width = X.shape[1]
        self.frozen_text("features", "center", (lambda X: X) if adaptor == "pca" else _standardiser(X, spectrum.E))
        self.shift = nn.Parameter(torch.zeros(width))
        if adaptor == "pca":
            self.projection = nn.Parameter(spectrum.V[:, :hidden].clone())
            self.first = nn.Linear(self.projection.shape[1], self.projection.shape[1])
        else:
            self.scale = nn.Parameter(torch.ones(width))
            self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(self.first.out_features, d)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.first, self.last):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self) -> Tensor:
        return self._mapped(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self._mapped(self.read("features", ids))

    def _mapped(self, X: Tensor) -> Tensor:
        return self.last(self.dropout(F.gelu(F.linear(X, *self._product()))))

    def _product(self) -> tuple[Tensor, Tensor]:
        """(W, b) with W_1 z + b_1 = W x + b for features x: W (hidden, D), b (hidden,)."""
        if self.adaptor == "pca":
            W = self.first.weight @ self.projection.T
            return W, self.first.bias - W @ self.shift
        return self.first.weight * self.scale, self.first(self.shift)


def _standardiser(X: Tensor, E: Tensor) -> Callable[[Tensor], Tensor]:
    """The map that gives columns of X (N, D) mean 0 and variance 1, up to `EPSILON`, over the items with text.

    Zero rows, those of items without text, stay zero.
    """
    rows = X[(E != 0).any(1)].double()
    mean, std = rows.mean(0), (rows.var(0, correction=0) + EPSILON).sqrt()

    def standardised(X: Tensor) -> Tensor:
        return ((X.double() - mean) / std).float() * (X != 0).any(1, keepdim=True)

    return standardised

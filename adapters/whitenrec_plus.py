"""WhitenRec+: fully whitened and relaxed whitened text through one projection head, summed.

Source: Zhang et al. 2024, arXiv 2402.10602: full whitening may break the neighbourhoods of similar texts, so a second,
relaxed copy is whitened only within each of G groups of neighbouring dimensions and keeps the correlations between
groups. Both go through the same head and are added. G is 4 to 128 in the authors' code (of the companion paper DWSRec,
AAAI 2024), which requires that G divides D; here group sizes differ by one if it does not.

As in `whitenrec`, the score is shared by all rows of a bench, by default the dot product under a softmax over all
items; the authors score by cosine / 0.07 over the whole catalogue.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._base import Count, Rate, Spectrum
from .whitenrec import WhitenRec

FLOOR = 1e-12  # smallest eigenvalue relative to the largest of its group: the basis' cut, 1e-6 of S[0], squared


class WhitenRecPlus(WhitenRec):
    """T = h(Z) + h(Z_G), (N, d): h the head and Z the whitened text of `WhitenRec`, Z_G (N, D) its relaxed copy in
    min(``groups``, D) groups.

    Raises ValueError if ``groups`` is below 1.
    """

    relaxed: Tensor

    def __init__(
        self, spectrum: Spectrum, d: int, *, groups: Count = 4, hidden: Count = 256, dropout: Rate = 0.2
    ) -> None:
        super().__init__(spectrum, d, hidden=hidden, dropout=dropout)
        if groups < 1:
            raise ValueError(f"WhitenRec+ needs at least 1 group, groups is {groups}")
        X = spectrum.features("center")
        groups = min(groups, X.shape[1])
        maps = [_whitening(part.double(), spectrum.unit) for part in X.tensor_split(groups, 1)]

        def relaxed(X: Tensor) -> Tensor:
            parts = zip(X.tensor_split(groups, 1), maps, strict=True)
            return torch.cat([(part.double() @ A @ B).float() for part, (A, B) in parts], 1)

        self.frozen_text("relaxed", "center", relaxed)

    def forward(self) -> Tensor:
        return self.head(self.read("features")) + self.head(self.read("relaxed"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.head(self.read("features", ids)) + self.head(self.read("relaxed", ids))


def _whitening(X: Tensor, unit: float) -> tuple[Tensor, Tensor]:
    """(A, B) such that X A B is the ZCA-whitened X, centred float64 columns (N, D_g), unit = sqrt(N_text - 1);
    directions below the floor become zero."""
    eigenvalues, V = torch.linalg.eigh(X.T @ X / unit**2)
    kept = eigenvalues > FLOOR * eigenvalues[-1]
    return V[:, kept] * eigenvalues[kept].rsqrt(), V[:, kept].T

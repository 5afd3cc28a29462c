"""SVD truncation: the d leading spectral components, weighted by a power of the singular values.

Sources: PCA scores of the text (Pearson 1901), frozen; the trainable copy is the text-initialised ID table of LLM2X
(Harte et al. 2023) and LLMInit (Zhang et al. 2025).
"""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Adapter, NonNegative, Spectrum

COPY_STD = 0.05  # standard deviation of a trainable copy: that of an ID embedding, which the learning rates suit


class SVD(Adapter):
    """T = sqrt(N_text - 1) U_d diag(S_d / S_0)^``power``, (N, d): PCA scores up to a factor at power 1, whitened
    (unit covariance) at power 0.

    ``trainable``: a free table initialised with T, scaled to standard deviation 0.05 (the seam's gain compensates), so
    an optimiser step changes it by as much as an ID embedding.
    Raises ValueError if d exceeds the rank.
    """

    weights: Tensor
    components: Tensor

    def __init__(self, spectrum: Spectrum, d: int, *, power: NonNegative = 1.0, trainable: bool = False) -> None:
        super().__init__(spectrum, d)
        if d > spectrum.rank:
            raise ValueError(f"SVD keeps d={d} components, but the text has rank {spectrum.rank}")
        self.trainable = trainable
        self.frozen("weights", spectrum.unit * (spectrum.S[:d] / spectrum.S[0]) ** power)
        table = spectrum.U[:, :d] * self.weights
        if trainable:
            self.table = nn.Parameter(table * (COPY_STD / table.std()))
        else:
            self.frozen("table", table)

    def forward(self) -> Tensor:
        return self.table

    def linear_map(self) -> tuple[Tensor, Tensor] | None:
        if self.trainable:
            return None
        selection = self.spectrum.S.new_zeros(self.spectrum.rank, self.d)
        selection.diagonal().copy_(self.weights.cpu() / self.spectrum.unit)
        return self.spectrum.affine("whiten", selection)

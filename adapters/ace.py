"""ACE: a free table initialised from text with a softened spectrum, between whitened and plain truncation.

Source: Lee, Kim & Lee 2026, arXiv 2605.29322 (SIGIR). A linear autoencoder that predicts each item from all items by
ridge regression, min_B ||X^T - X^T B||^2 + lambda ||B||^2, has the solution

    B = (X X^T + lambda I)^-1 X X^T = U diag(s^2 / (s^2 + lambda)) U^T.

The table starts as U_d diag(g(S_d)), g(s) = sqrt(s^2 / (s^2 + lambda)), whose inner products are those of B on the d
leading components: lambda = 0 is whitening, a large lambda plain truncation up to scale. Their lambda, 0 to 5000, is in
units of S^2 and so depends on the encoder and the number of items; ours is in units of the median of S^2. Their overall
scale is the seam's gain here.
"""

from __future__ import annotations

from torch import Tensor, nn

from ._base import Adapter, NonNegative, Spectrum
from .svd import COPY_STD


class ACE(Adapter):
    """A trainable table (N, d) that starts as U_d diag(g(S_d)), lambda = ``softness`` times the median of S^2.

    It is scaled to standard deviation 0.05, so an optimiser step changes it by as much as an ID embedding.
    Raises ValueError if ``softness`` is negative or d exceeds the rank.
    """

    fuses = True  # an ID embedding added to a free table would be the same free table

    def __init__(self, spectrum: Spectrum, d: int, *, softness: NonNegative = 10.0) -> None:
        super().__init__(spectrum, d)
        if softness < 0:
            raise ValueError(f"softness is {softness}; it must be at least 0")
        if d > spectrum.rank:
            raise ValueError(f"ACE keeps d={d} components, but the text has rank {spectrum.rank}")
        energy = spectrum.S.square()
        softened = energy / (energy + softness * energy.quantile(0.5))
        table = spectrum.U[:, :d] * softened[:d].sqrt()
        self.table = nn.Parameter(table * (COPY_STD / table.std()))

    def forward(self) -> Tensor:
        return self.table

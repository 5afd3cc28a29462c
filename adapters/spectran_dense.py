"""Dense SpecTran: the same basis, start and position encoding without sparsity, the control for its Softshrink.

Source: ours, for SpecTran (arXiv 2601.21986, 2026): P = Q K^T / sqrt(d_k). From d_k >= d on the rank of P is bounded by
nothing, and the table is any linear map of the whitened text: what is left of the method is where it starts and how it
is parametrised.
"""

from __future__ import annotations

from ._base import Count, Degree, Kept, NonNegative, Pos, Positive, Spectrum, Start
from .spectran import SpecTran


class SpecTranDense(SpecTran):
    """`SpecTran` with ``phi`` fixed to identity, and no threshold. Raises ValueError where it does."""

    by_name_only = True

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        pos: Pos = "taylor",
        degree: Degree = 2,
        start: Start = "whiten",
        value_power: NonNegative = 0.0,
        d_k: Count = 128,
        rho: Positive = 0.3,
        rank: Kept | None = None,
    ) -> None:
        super().__init__(
            spectrum,
            d,
            phi="identity",
            pos=pos,
            degree=degree,
            start=start,
            value_power=value_power,
            d_k=d_k,
            rho=rho,
            rank=rank,
        )

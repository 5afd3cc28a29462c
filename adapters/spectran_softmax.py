"""SpecTran with Softmax: attention weights that are positive and sum to one in place of sparse ones of either sign.

Source: the Softmax ablation of SpecTran (arXiv 2601.21986, 2026): P = softmax(Q K^T / sqrt(d_k)). While the scores are
small every row of P is nearly uniform, so that all columns of the table get the same average of the components: without
the position encoding the table starts near rank 1.
"""

from __future__ import annotations

from ._base import Count, Degree, Kept, NonNegative, Pos, Positive, Spectrum, Start
from .spectran import SpecTran


class SpecTranSoftmax(SpecTran):
    """`SpecTran` with ``phi`` fixed to softmax, and no threshold. Raises ValueError where it does."""

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
            phi="softmax",
            pos=pos,
            degree=degree,
            start=start,
            value_power=value_power,
            d_k=d_k,
            rho=rho,
            rank=rank,
        )

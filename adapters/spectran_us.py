"""SpecTran over scores: the values of its attention are U diag(S), not U.

Source: the other reading of SpecTran (arXiv 2601.21986, 2026), whose "U" may stand for the principal component scores:
E_s = U diag(s) [phi(Q K^T) + A]^T. It starts as plain SVD truncation where SpecTran starts as whitened.
"""

from __future__ import annotations

from ._base import Count, Degree, Kept, NonNegative, Phi, Pos, Positive, Spectrum, Start
from .spectran import SpecTran


class SpecTranUS(SpecTran):
    """`SpecTran` with ``value_power`` fixed to 1. Raises ValueError where it does."""

    by_name_only = True

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        phi: Phi = "softshrink",
        pos: Pos = "taylor",
        degree: Degree = 2,
        start: Start = "whiten",
        d_k: Count = 128,
        c: NonNegative = 1.0,
        rho: Positive = 0.3,
        lam_learnable: bool = True,
        rank: Kept | None = None,
    ) -> None:
        super().__init__(
            spectrum,
            d,
            phi=phi,
            pos=pos,
            degree=degree,
            start=start,
            value_power=1.0,
            d_k=d_k,
            c=c,
            rho=rho,
            lam_learnable=lam_learnable,
            rank=rank,
        )

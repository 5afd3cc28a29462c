"""SpecTran without its spectral position encoding: the attention alone mixes the components.

Source: the ablation without position encoding of SpecTran (arXiv 2601.21986, 2026): E_s = U phi(Q K^T)^T. Nothing then
says which components come first.
"""

from __future__ import annotations

from typing import Literal

from ._base import Count, Kept, NonNegative, Positive, Spectrum
from .spectran import SpecTran


class SpecTranWithoutPosition(SpecTran):
    """`SpecTran` with ``pos`` fixed to none, and no parameter of the encoding. Raises ValueError where it does."""

    by_name_only = True

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        phi: Literal["softshrink", "softmax", "identity"] = "softshrink",
        value_power: NonNegative = 0.0,
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
            pos="none",
            value_power=value_power,
            d_k=d_k,
            c=c,
            rho=rho,
            lam_learnable=lam_learnable,
            rank=rank,
        )

"""SpecTran without attention: SVD truncation whose spectral weights are learned.

Source: the ablation without global attention of SpecTran (arXiv 2601.21986, 2026): E_s = U A^T. The components behind
the first d are then read by nothing.
"""

from __future__ import annotations

from typing import Literal

from ._base import Degree, NonNegative, Spectrum, Start
from .spectran import SpecTran


class SpecTranWithoutAttention(SpecTran):
    """`SpecTran` with ``phi`` fixed to none, and no parameter of the attention. Raises ValueError where it does."""

    by_name_only = True

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        pos: Literal["taylor", "free_diag"] = "taylor",
        degree: Degree = 2,
        start: Start = "whiten",
        value_power: NonNegative = 0.0,
    ) -> None:
        super().__init__(spectrum, d, phi="none", pos=pos, degree=degree, start=start, value_power=value_power)

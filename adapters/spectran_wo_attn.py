"""SpecTran without attention: SVD truncation with learned spectral weights.

Source: the ablation without global attention of SpecTran (arXiv 2601.21986, 2026): E_s = U A^T. Components after the
first d are then not used.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranWithoutAttention(SpecTran):
    """`SpecTran` with ``phi`` fixed to none and without the attention's parameters. Raises ValueError as it does."""

    by_name_only = True
    fixed = {"phi": "none", "d_k": 128, "c": 1.0, "rho": 0.3, "lam_learnable": True, "rank": None}
    choices = {"pos": ("taylor", "free_diag")}

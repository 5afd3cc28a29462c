"""Dense SpecTran: the same basis, start and position encoding without sparsity, the control for its Softshrink.

Source: ours, for SpecTran (arXiv 2601.21986, 2026): P = Q K^T / sqrt(d_k). From d_k >= d on the rank of P is bounded by
nothing, and the table is any linear map of the whitened text: what is left of the method is where it starts and how it
is parametrised.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranDense(SpecTran):
    """`SpecTran` with ``phi`` fixed to identity, and no threshold. Raises ValueError where it does."""

    by_name_only = True
    fixed = {"phi": "identity", "c": 0.0, "lam_learnable": False}

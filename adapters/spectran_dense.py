"""Dense SpecTran: the same basis, start and position encoding without sparsity; the control for its Softshrink.

Source: ours, for SpecTran (arXiv 2601.21986, 2026): P = Q K^T / sqrt(d_k). If d_k >= d, nothing bounds the rank of P,
and the table can be any linear map of the whitened text: only the method's initialisation and parametrisation remain.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranDense(SpecTran):
    """`SpecTran` with ``phi`` fixed to identity and without a threshold. Raises ValueError as it does."""

    by_name_only = True
    fixed = {"phi": "identity", "c": 0.0, "lam_learnable": False}

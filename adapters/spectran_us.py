"""SpecTran over scores: the values of its attention are U diag(S) instead of U.

Source: the other reading of SpecTran (arXiv 2601.21986, 2026), whose "U" may stand for the principal component scores:
E_s = U diag(s) [phi(Q K^T) + A]^T. It starts as plain SVD truncation where SpecTran starts as whitened truncation.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranUS(SpecTran):
    """`SpecTran` with ``value_power`` fixed to 1. Raises ValueError as it does."""

    by_name_only = True
    fixed = {"value_power": 1.0}

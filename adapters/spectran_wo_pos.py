"""SpecTran without its spectral position encoding: only the attention mixes the components.

Source: the ablation without position encoding of SpecTran (arXiv 2601.21986, 2026): E_s = U phi(Q K^T)^T. Nothing then
indicates the order of the components.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranWithoutPosition(SpecTran):
    """`SpecTran` with ``pos`` fixed to none and without the encoding's parameters. Raises ValueError as it does."""

    by_name_only = True
    fixed = {"pos": "none", "degree": 0, "start": "whiten"}
    choices = {"phi": ("softshrink", "softmax", "identity")}

"""SpecTran without its spectral position encoding: the attention alone mixes the components.

Source: the ablation without position encoding of SpecTran (arXiv 2601.21986, 2026): E_s = U phi(Q K^T)^T. Nothing then
says which components come first.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranWithoutPosition(SpecTran):
    """`SpecTran` with ``pos`` fixed to none, and no parameter of the encoding. Raises ValueError where it does."""

    by_name_only = True
    fixed = {"pos": "none", "degree": 0, "start": "whiten"}
    choices = {"phi": ("softshrink", "softmax", "identity")}

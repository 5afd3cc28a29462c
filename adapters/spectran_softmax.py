"""SpecTran with Softmax: positive attention weights that sum to one instead of sparse weights of either sign.

Source: the Softmax ablation of SpecTran (arXiv 2601.21986, 2026): P = softmax(Q K^T / sqrt(d_k)). While the scores are
small every row of P is nearly uniform, so all columns of the table are the same average of the components: without the
position encoding the table starts near rank 1.
"""

from __future__ import annotations

from .spectran import SpecTran


class SpecTranSoftmax(SpecTran):
    """`SpecTran` with ``phi`` fixed to softmax and without a threshold. Raises ValueError as it does."""

    by_name_only = True
    fixed = {"phi": "softmax", "c": 0.0, "lam_learnable": False}

"""Linear on PCA-whitened text: the same function class as SpecTran, without its attention and position encoding.

Source: WhitenRec (Zhang et al. 2024, arXiv 2402.10602). Its ZCA whitening differs from the PCA whitening used here by a
rotation, which the linear map absorbs.
"""

from __future__ import annotations

from .linear import Linear


class LinearWhiten(Linear):
    """T = sqrt(N_text - 1) U W + b, (N, d): `Linear` with ``preprocess`` fixed to whiten."""

    fixed = {"preprocess": "whiten"}

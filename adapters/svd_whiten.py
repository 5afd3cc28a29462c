"""Whitened SVD truncation: the d leading spectral components at unit variance.

Sources: the standardised language embedding of AlphaFuse (Hu et al. 2025, arXiv 2504.19218). Equal to `SVD` at power 0,
which is also the initial table of SpecTran.
"""

from __future__ import annotations

from .svd import SVD


class SVDWhiten(SVD):
    """T = sqrt(N_text - 1) U_d, (N, d): `SVD` with ``power`` fixed to 0."""

    fixed = {"power": 0.0}

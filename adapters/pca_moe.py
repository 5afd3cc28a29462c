"""PCA-MoE: the leading principal components of the text through a mixture of experts.

Source: RecXplore (Shi et al. 2025, arXiv 2509.14979), whose comparison of adapters ranked PCA followed by a mixture of
experts best. The mixture is UniSRec's (Hou et al. 2022, arXiv 2206.05941), see `UniSRecMoE` and its differences (one
draw of noise and dropout per item and step). The paper's number of components, and whether it scales them to unit
variance, were not available to us: both are searched.
"""

from __future__ import annotations

import dataclasses

from ._base import Count, Rate, Spectrum
from .unisrec_moe import UniSRecMoE


class PCAMoE(UniSRecMoE):
    """`UniSRecMoE` over the ``k`` leading principal component scores, U_k diag(S_k), or sqrt(N_text - 1) U_k under
    ``whiten``; over all components if the text has fewer than k.

    Raises ValueError if ``k`` or ``experts`` is below 1 or ``dropout`` outside [0, 1).
    """

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        k: Count = 256,
        whiten: bool = False,
        experts: Count = 8,
        noisy: bool = True,
        dropout: Rate = 0.2,
    ) -> None:
        if k < 1:
            raise ValueError(f"PCA needs at least 1 component, k is {k}")
        scores = spectrum.U[:, :k] * (spectrum.unit if whiten else spectrum.S[:k])
        texts = spectrum.variant_features("whiten")
        if texts is not None:
            texts = texts[..., :k] * (1.0 if whiten else spectrum.S[:k] / spectrum.unit)
        # the mixture reads these scores as its text
        reduced = dataclasses.replace(spectrum, E=scores, variants=texts)
        super().__init__(reduced, d, experts=experts, noisy=noisy, dropout=dropout, preprocess="raw")
        self.spectrum = spectrum

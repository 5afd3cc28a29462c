"""LLMInit: a free table initialised with selected columns of the text.

Source: Zhang et al. 2025, arXiv 2503.01814: the table of a collaborative filter starts as E[:, J], where J are the d
columns of largest variance over the most popular 20 % of the items (``var``), every floor(D / d)-th column (``uni``),
or random ones (``rand``). Their models are graph models whose users start from the mean of their items; only the item
table is used here. Popularity is counted on training events, among the items with text; random columns are drawn
without repetition, while their code may draw one twice. ``pca``, the d leading principal components, is the LLMInit of
AlphaFuse's comparison (Hu et al. 2025, arXiv 2504.19218).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ._base import Adapter, Preprocess, Spectrum
from .svd import COPY_STD

HOW = ("var", "uni", "rand", "pca")
POPULAR = 0.2  # share of the items over which ``var`` measures variance


class LLMInit(Adapter):
    """A trainable table (N, d) that starts as d columns of features(``preprocess``), selected by ``how`` (above).

    It is scaled to standard deviation 0.05, so an optimiser step changes it by as much as an ID embedding. The
    principal components (``pca``) have unit variance under whiten and are the scores U_d diag(S_d) otherwise.
    Raises ValueError if ``how`` or ``preprocess`` is unknown or there are fewer than d columns.
    """

    uses_interactions = True
    fuses = True  # an ID embedding added to a free table would be the same free table

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        how: Literal["var", "uni", "rand", "pca"] = "var",
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if how not in HOW:
            raise ValueError(f"how is '{how}'; it must be one of: {', '.join(HOW)}")
        columns = spectrum.features(preprocess)
        if how == "pca" and preprocess != "whiten":
            columns = spectrum.U * spectrum.S
        if d > columns.shape[1]:
            raise ValueError(f"LLMInit needs d={d} columns of the text, but there are {columns.shape[1]}")
        table = columns[:, _chosen(how, columns, spectrum, d)]
        self.table = nn.Parameter(table * (COPY_STD / table.std().clamp_min(1e-12)))

    def forward(self) -> Tensor:
        return self.table


def _chosen(how: str, columns: Tensor, spectrum: Spectrum, d: int) -> Tensor:
    """Indices of the columns that initialise the table, (d,) int64."""
    width = columns.shape[1]
    if how == "rand":
        return torch.randperm(width)[:d]
    if how == "var":
        return columns[_popular(spectrum)].var(0).argsort(descending=True, stable=True)[:d]
    if how == "uni":
        return torch.arange(d) * (width // d)
    return torch.arange(d)  # components are already in order


def _popular(spectrum: Spectrum) -> Tensor:
    """The items with text that have the most training events, ties in item order; at least two."""
    with_text = (spectrum.E != 0).any(1).nonzero().squeeze(1)
    counts = spectrum.interactions.counts(spectrum.n)[with_text]
    return with_text[counts.argsort(descending=True, stable=True)[: max(int(POPULAR * len(with_text)), 2)]]

"""LLMInit: a free table that starts from some of the text's own columns.

Source: Zhang et al. 2025, arXiv 2503.01814: the table of a collaborative filter starts as E[:, J], with J the d columns
of largest variance over the most popular 20 % of the items (``var``), every floor(D / d)-th one (``uni``), or random
ones (``rand``). Theirs are graph models whose users start from the mean of their items; only the item table is taken
here. Popularity is counted in training, among the items with text; random columns are drawn without repetition, while
their code may draw one twice. ``pca``, the d leading principal components, is the LLMInit of AlphaFuse's comparison
(Hu et al. 2025, arXiv 2504.19218).
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
    """A trainable table (N, d) that starts as d columns of features(``preprocess``), chosen by ``how`` (above), scaled
    to standard deviation 0.05 so that a step of the optimiser moves it as far as it would an ID embedding.

    The principal components (``pca``) are of unit variance under whiten and are the scores U_d diag(S_d) otherwise.
    Raises ValueError where ``how`` or ``preprocess`` is unknown or there are fewer than d columns.
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
            raise ValueError(f"how is '{how}'; it takes: {', '.join(HOW)}")
        columns = spectrum.features(preprocess)
        if how == "pca" and preprocess != "whiten":
            columns = spectrum.U * spectrum.S
        if d > columns.shape[1]:
            raise ValueError(f"LLMInit starts from d={d} columns of the text, but there are {columns.shape[1]}")
        table = columns[:, _chosen(how, columns, spectrum, d)]
        self.table = nn.Parameter(table * (COPY_STD / table.std().clamp_min(1e-12)))

    def forward(self) -> Tensor:
        return self.table


def _chosen(how: str, columns: Tensor, spectrum: Spectrum, d: int) -> Tensor:
    """Which columns the table starts from, (d,) int64."""
    width = columns.shape[1]
    if how == "rand":
        return torch.randperm(width)[:d]
    if how == "var":
        return columns[_popular(spectrum)].var(0).argsort(descending=True, stable=True)[:d]
    if how == "uni":
        return torch.arange(d) * (width // d)
    return torch.arange(d)  # components stand in order


def _popular(spectrum: Spectrum) -> Tensor:
    """The items with text that have most events in training, of equal ones those that come first; at least two."""
    with_text = (spectrum.E != 0).any(1).nonzero().squeeze(1)
    counts = spectrum.interactions.counts(spectrum.n)[with_text]
    return with_text[counts.argsort(descending=True, stable=True)[: max(int(POPULAR * len(with_text)), 2)]]

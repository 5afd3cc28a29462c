"""AlphaFuse: the leading components of the text, with the ID embedding learned in the weakest of them.

Source: Hu et al. 2025, arXiv 2504.19218: the text X is written in its singular basis, its d leading components are kept
and put to unit variance (standardisation, X V_d diag(lambda)^-1/2), and the ID embedding of width d_n is learned in the
null space, the trailing d_n of these d columns: added to the text there, or in its place (their ``cover``). The null
space is given by its width and not by their threshold on the eigenvalues, items weigh alike in mean and covariance, and
the whole is brought to the scale of an ID embedding, all ours: there, unit variance meets IDs of N(0, 1).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Share, Spectrum
from .svd import COPY_STD

ID_INIT = ("zeros", "normal")


class AlphaFuse(Adapter):
    """T = L + [0, ID], (N, d): L frozen text of standard deviation 0.05; ID trained, (N, d_n), in the last d_n =
    round(``null_share`` d) columns.

    ``whiten``: the columns of L are U_d, of equal variance; otherwise U_d diag(S_d), plain truncation. ``cover``: the
    last d_n columns of L are left out, so that T = [L_{d - d_n}, ID]. ``id_init``: ID starts as zeros, or normal at the
    standard deviation of L.
    Raises ValueError where ``id_init`` is unknown, text or ID would have no column, or the rank gives too few.
    """

    fuses = True
    text: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        null_share: Share = 0.5,
        whiten: bool = True,
        cover: bool = False,
        id_init: Literal["zeros", "normal"] = "zeros",
    ) -> None:
        super().__init__(spectrum, d)
        null = round(null_share * d)
        kept = d - null if cover else d
        if id_init not in ID_INIT:
            raise ValueError(f"id_init is '{id_init}'; it takes: {', '.join(ID_INIT)}")
        if not 0 < null < d:
            raise ValueError(f"null_share {null_share} gives the ID {null} of d={d} columns; it takes 1 to {d - 1}")
        if kept > spectrum.rank:
            raise ValueError(f"AlphaFuse keeps {kept} components at d={d}, but the text has rank {spectrum.rank}")
        text = spectrum.U[:, :kept] if whiten else spectrum.U[:, :kept] * spectrum.S[:kept]
        text = text * (COPY_STD / text.std())
        self.frozen("text", F.pad(text, (0, d - kept)))
        start = torch.randn(self.n, null) if id_init == "normal" else torch.zeros(self.n, null)
        self.id = nn.Parameter(start * COPY_STD)

    def forward(self) -> Tensor:
        return self.text + self._placed(self.id)

    def rows(self, ids: Tensor) -> Tensor:
        return self.text[ids] + self._placed(F.embedding(ids, self.id))

    def _placed(self, id: Tensor) -> Tensor:
        """[0, ID], (m, d), of rows of the ID embedding (m, d_n)."""
        return F.pad(id, (self.d - id.shape[1], 0))

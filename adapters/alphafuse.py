"""AlphaFuse: the leading components of the text, with an ID embedding learned in the weakest of them.

Source: Hu et al. 2025, arXiv 2504.19218. The text X is projected onto its d leading singular directions and
standardised to unit variance, X V_d diag(lambda)^-1/2. The ID embedding, of width d_n, is learned in the null space,
the last d_n of these d columns: added to the text there, or in its place (their ``cover``). Ours: the null space is set
by its width instead of their threshold on the eigenvalues; all items weigh equally in mean and covariance; and the
table is scaled to the size of an ID embedding, where theirs combines unit variance with IDs of N(0, 1).
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
    """T = L + [0, ID], (N, d): L is frozen text of standard deviation 0.05; ID, (N, d_n), is trained and fills the last
    d_n = round(``null_share`` d) columns.

    ``whiten``: the columns of L are U_d, of equal variance; otherwise U_d diag(S_d), plain truncation. ``cover``: the
    last d_n columns of L are dropped, T = [L_{d - d_n}, ID]. ``id_init``: ID starts as zeros, or normal with the
    standard deviation of L.
    Raises ValueError if ``id_init`` is unknown, text or ID would have no column, or the rank is too small.
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
            raise ValueError(f"id_init is '{id_init}'; it must be one of: {', '.join(ID_INIT)}")
        if not 0 < null < d:
            raise ValueError(f"null_share {null_share} gives the ID {null} of d={d} columns; it needs 1 to {d - 1}")
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
        """Pad rows of the ID embedding (m, d_n) to [0, ID], (m, d)."""
        return F.pad(id, (self.d - id.shape[1], 0))

"""ID with a gain: a free embedding per item times one trained factor; the control of text methods with a free table.

Source: the item embedding of SASRec (Kang & McAuley 2018, arXiv 1808.09781), as in `id`. Ours: the gain, which the seam
gives to every method that reads text (`ItemTable`), and not to `id`. It multiplies the free tables of `rlmrec_con`,
`rlmrec_gen`, `llminit`, `ace`, `faerec`, `llmesr` and `svd[trainable=true]`, among others.

The gain g scales the step: Adam (Kingma & Ba 2015, arXiv 1412.6980) moves an entry of the free table by about the
learning rate, whatever the scale of its gradient, and so the entry that the backbone reads by g times the learning
rate. What such a method gains over `id` is partly this; what it gains over `id_gain` is not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Positive, Spectrum
from .svd import COPY_STD


class IDGain(Adapter):
    """T = g A, (N, d): A trainable, initial entries N(0, 0.05^2); log g trained, initially such that the entries of T
    have standard deviation ``out_std``, the seam's parameter of that name.

    Equal to a text method without fusion whose table A ignores the text.
    """

    uses_text = False
    by_name_only = True
    note = "control without text: an ID embedding with the trained gain that free tables of text methods have."

    def __init__(self, spectrum: Spectrum, d: int, *, out_std: Positive = 0.05) -> None:
        super().__init__(spectrum, d)
        self.table = nn.Parameter(torch.randn(self.n, d) * COPY_STD)
        self.log_gain = nn.Parameter((out_std / self.table.detach().std()).log())

    def forward(self) -> Tensor:
        return self.table * self.log_gain.exp()

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.table) * self.log_gain.exp()

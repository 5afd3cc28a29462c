"""Content kNN: items whose text is close to that of the last few items of the history. No training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters._base import Spectrum
from harness.data.splits import Queries, Split

LAST, DECAY = 5, 0.7
SQUARES = (1e-10, 1e15)  # range of entries whose squares fit float32 and are not lost in F.normalize


class ContentKNN:
    """score(j) = cos(profile, x_j), profile = sum over the last 5 items of 0.7^(steps back) x_i.

    x: the centred text scaled to length 1, so an item weighs by its recency only; 0 for items without text.
    """

    version = 1
    uses_text = True

    def __init__(self, split: Split, spectrum: Spectrum) -> None:
        self.split = split
        self.items = _unit(spectrum.features("center"))

    def scores(self, queries: Queries) -> Tensor:
        """(queries, n_items) float32, higher is better."""
        profile = torch.zeros(len(queries.users), self.items.shape[1])
        for back in range(LAST):
            has = np.flatnonzero(queries.ends > back)
            at = self.split.offsets[queries.users[has]] + queries.ends[has] - 1 - back
            seen = torch.from_numpy(self.split.items[at].astype(np.int64) - 1)
            profile[torch.from_numpy(has)] += DECAY**back * self.items[seen]
        return F.normalize(profile, dim=1) @ self.items.T


def _unit(X: Tensor) -> Tensor:
    """The rows of X (N, D) scaled to length 1, (N, D) float32; zero rows stay zero.

    Rows of huge or tiny numbers are first divided by their largest entry, because their squares do not fit float32.
    """
    largest = X.abs().amax(1, keepdim=True)
    odd = ((largest > SQUARES[1]) | (largest < SQUARES[0])) & (largest > 0)
    return F.normalize(torch.where(odd, X / largest, X), dim=1)

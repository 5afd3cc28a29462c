"""Content kNN: items whose text is near the text of the last few items of the history. Trains nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters._base import Spectrum
from harness.data.splits import Queries, Split

LAST, DECAY = 5, 0.7
SQUARES = (1e-10, 1e15)  # entries whose squares float32 holds, and F.normalize sees


class ContentKNN:
    """score(j) = cos(profile, x_j), profile = sum over the last 5 items of 0.7^(steps back) x_i, x the centred text."""

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
    """The rows of X (N, D) brought to length 1, zero rows as they are; (N, D) float32.

    Very large and very small rows are first divided by their largest entry: their squares are no float32.
    """
    largest = X.abs().amax(1, keepdim=True)
    odd = ((largest > SQUARES[1]) | (largest < SQUARES[0])) & (largest > 0)
    return F.normalize(torch.where(odd, X / largest, X), dim=1)

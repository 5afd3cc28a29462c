"""Content kNN: items whose text is near the text of the last few items of the history. Trains nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters._base import Spectrum
from harness.data import Queries, Split

LAST, DECAY = 5, 0.7


class ContentKNN:
    """score(j) = cos(profile, x_j), profile = sum over the last 5 items of 0.7^(steps back) x_i, x the centred text."""

    version = 1
    uses_text = True

    def __init__(self, split: Split, spectrum: Spectrum) -> None:
        self.split = split
        self.items = F.normalize(spectrum.features("center"), dim=1)

    def scores(self, queries: Queries) -> Tensor:
        """(queries, n_items) float32, higher is better."""
        profile = torch.zeros(len(queries.users), self.items.shape[1])
        for back in range(LAST):
            has = np.flatnonzero(queries.ends > back)
            at = self.split.offsets[queries.users[has]] + queries.ends[has] - 1 - back
            seen = torch.from_numpy(self.split.items[at].astype(np.int64) - 1)
            profile[torch.from_numpy(has)] += DECAY**back * self.items[seen]
        return F.normalize(profile, dim=1) @ self.items.T

"""Popularity: items by number of training events. The minimum that every row should beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from adapters._base import Spectrum
from harness.data.splits import Queries, Split
from harness.training.baselines._train import training_mask


class Popularity:
    """Scores are training counts, the same for every query."""

    version = 1
    uses_text = False

    def __init__(self, split: Split, spectrum: Spectrum) -> None:
        items = split.items[training_mask(split)]
        counts = np.bincount(items - 1, minlength=split.n_items)
        self.counts = torch.from_numpy(counts.astype(np.float32))

    def scores(self, queries: Queries) -> Tensor:
        """(queries, n_items) float32, higher is better."""
        return self.counts.expand(len(queries.users), -1)

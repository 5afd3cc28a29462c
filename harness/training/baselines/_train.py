"""The training part of a split, for baselines."""

from __future__ import annotations

import numpy as np

from harness.data.splits import Split


def users_of_events(split: Split) -> np.ndarray:
    """The user of each event, int64 (events,)."""
    return np.repeat(np.arange(len(split.train_ends)), np.diff(split.offsets))


def training_mask(split: Split) -> np.ndarray:
    """True for training events, bool (events,)."""
    users = users_of_events(split)
    return np.arange(len(split.items)) - split.offsets[users] < split.train_ends[users]

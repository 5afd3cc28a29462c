"""MRR@k: 1 / rank if the target ranks within k."""

import numpy as np


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """Per-user MRR@k, float64 (users,), from whole ranks (users,) from 1."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)

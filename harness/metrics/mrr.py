"""MRR@k: 1 / rank if the target is in the top k, else 0."""

import numpy as np


def mrr(ranks: np.ndarray, k: int) -> np.ndarray:
    """MRR@k per user, float64 (users,), from whole ranks (users,) starting at 1."""
    return np.where(ranks <= k, 1.0 / ranks, 0.0)

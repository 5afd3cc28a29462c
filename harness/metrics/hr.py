"""HR@k (hit ratio, equal to Recall@k with one relevant item): 1 if the target is in the top k."""

import numpy as np


def hr(ranks: np.ndarray, k: int) -> np.ndarray:
    """HR@k per user, float64 (users,), from whole ranks (users,) starting at 1."""
    return (ranks <= k).astype(np.float64)

"""HR@k (hit ratio, equal to Recall@k with one relevant item): 1 if the target ranks within k."""

import numpy as np


def hr(ranks: np.ndarray, k: int) -> np.ndarray:
    """Per-user HR@k, float64 (users,), from whole ranks (users,) from 1."""
    return (ranks <= k).astype(np.float64)

"""NDCG@k with one relevant item: 1 / log2(rank + 1) if the target is in the top k, else 0."""

import numpy as np


def ndcg(ranks: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k per user, float64 (users,), from whole ranks (users,) starting at 1."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0)

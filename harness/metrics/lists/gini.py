"""Gini index of how often items are recommended, over the whole catalogue (0: all equally often, near 1: few items).

sum_i (2 i - N - 1) c_i / (N sum_i c_i), where c_1 <= ... <= c_N are the numbers of lists that contain each of the N
items, 0 included. Sun et al., "Debiasing the human-recommender system feedback loop", WWW Companion 2019; the formula
of RecBole's GiniIndex.
"""

import numpy as np

from harness.metrics.lists._base import Catalogue, counts


def gini(items: np.ndarray, catalogue: Catalogue) -> float:
    """Gini index of lists (q, K); NaN without any item."""
    sorted_counts = np.sort(counts(items, len(catalogue.events)))
    n, total = len(sorted_counts), sorted_counts.sum()
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(weights @ sorted_counts / (n * total)) if total else float("nan")

"""Average recommendation popularity, the mean number of training events of the listed items.

Yin et al., "Challenging the long tail recommendation", VLDB 2012; Abdollahpouri et al., "The unfairness of popularity
bias in recommendation", 2019. An unseen item counts 0. A
repeated event counts again, unlike in novelty, which counts users.
"""

import numpy as np

from harness.metrics.lists._base import Catalogue, mean_of_lists


def arp(items: np.ndarray, catalogue: Catalogue) -> float:
    """Mean over lists (q, K) of their items' mean popularity; NaN without any item."""
    return mean_of_lists(catalogue.events.astype(np.float64), items)

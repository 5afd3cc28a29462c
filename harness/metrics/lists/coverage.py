"""Share of the catalogue that is in at least one list (0 to 1).

Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy", RecSys 2010. The catalogue are all items of the prepared data,
including those without a training event.
"""

import numpy as np

from harness.metrics.lists._base import Catalogue, counts


def coverage(items: np.ndarray, catalogue: Catalogue) -> float:
    """Coverage of lists (q, K)."""
    n_items = len(catalogue.events)
    return float((counts(items, n_items) > 0).mean())

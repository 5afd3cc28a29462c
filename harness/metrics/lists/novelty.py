"""Mean self-information of the listed items in bits, -log2(users with a training event of it / all users).

Zhou et al., "Solving the apparent diversity-accuracy dilemma of
recommender systems", PNAS 2010; "mean inverse user frequency" of Vargas and Castells, RecSys 2011. An item that no user
trained on counts as one with a single user, as in RecTools.
"""

import numpy as np

from harness.metrics.lists._base import Catalogue, mean_of_lists


def novelty(items: np.ndarray, catalogue: Catalogue) -> float:
    """Mean over lists (q, K) of their items' mean novelty; NaN without any item."""
    return mean_of_lists(np.log2(catalogue.n_users / np.maximum(catalogue.users, 1)), items)

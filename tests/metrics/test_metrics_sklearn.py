"""Ranks and NDCG against scikit-learn, whose NDCG is the exact mean over all orders of a tie."""

import numpy as np
import pytest
from sklearn.metrics import coverage_error, ndcg_score
from small_splits import a_split, random_histories, rows_of

from harness.metrics._all import CUTOFFS, per_user
from harness.training.ranking import ranks

N_ITEMS, USERS = 50, 200
HISTORIES = random_histories(USERS, N_ITEMS, seed=3)
TIED = np.random.default_rng(4).integers(0, 9, (USERS, N_ITEMS)).astype(np.float32)
UNTIED = np.stack([np.random.default_rng(user).permutation(N_ITEMS) for user in range(USERS)]).astype(np.float32)


def candidates(scores, filter_seen):
    """For each user: which candidate is the target, and the candidates' scores, both of shape (1, candidates)."""
    for own, (*seen, target) in zip(scores, HISTORIES, strict=True):
        kept = [item for item in range(1, N_ITEMS + 1) if item == target or not (filter_seen and item in seen)]
        yield np.array([[item == target for item in kept]]), own[np.array(kept) - 1][None]


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("scores", [TIED, UNTIED], ids=["tied", "untied"])
def test_every_user_has_the_ndcg_of_scikit_learn(scores, filter_seen):
    split, queries = a_split(HISTORIES, N_ITEMS)
    found = ranks(rows_of(scores), split, queries, filter_seen=filter_seen)
    for k in CUTOFFS:
        expected = [ndcg_score(wanted, given, k=k) for wanted, given in candidates(scores, filter_seen)]
        np.testing.assert_allclose(per_user(found, "ndcg", k), expected, rtol=0, atol=1e-9, err_msg=f"NDCG@{k}")


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_bounds_of_a_tie_are_the_ranks_that_scikit_learn_gives_the_target_and_its_opposite(filter_seen):
    split, queries = a_split(HISTORIES, N_ITEMS)
    found = ranks(rows_of(TIED), split, queries, filter_seen=filter_seen)
    for user, (wanted, given) in enumerate(candidates(TIED, filter_seen)):
        last = coverage_error(wanted, given)  # counts every equal score as better
        first = wanted.size + 1 - coverage_error(wanted, -given)
        assert (found.low[user], found.high[user]) == (first, last)

"""Ranks and metrics against trec_eval and MS MARCO's evaluation, as ir-measures runs them: code that is not ours."""

import numpy as np
import pytest
from small_splits import a_split, random_histories, rows_of

from harness.metrics._all import CUTOFFS, means, per_user
from harness.training.ranking import ranks

ir_measures = pytest.importorskip("ir_measures", reason="trec_eval has no wheel here; see test_metrics_sklearn.py")
RR, Success, nDCG = ir_measures.RR, ir_measures.Success, ir_measures.nDCG
N_ITEMS, USERS = 60, 400
ORACLES = {"hr": Success, "ndcg": nDCG, "mrr": RR}  # a user has one relevant item, the target


@pytest.fixture(scope="module")
def histories():
    return random_histories(USERS, N_ITEMS, seed=7)


def scores_without_ties():
    rng = np.random.default_rng(1)
    return np.stack([rng.permutation(N_ITEMS) for _ in range(USERS)]).astype(np.float32)


def scores_with_ties():
    return np.random.default_rng(2).integers(0, 12, (USERS, N_ITEMS)).astype(np.float32)


def ours(scores, histories, filter_seen):
    split, queries = a_split(histories, N_ITEMS)
    return ranks(rows_of(scores), split, queries, filter_seen=filter_seen)


def theirs(measures, scores, histories, filter_seen, name="{:03}".format):
    """{measure: its values, a user each}; `name`: of an item; trec_eval orders ties by it, descending."""
    run = {}
    for user, (own, (*seen, target)) in enumerate(zip(scores, histories, strict=True)):
        out = set(seen) - {target} if filter_seen else set()
        run[str(user)] = {name(item): float(own[item - 1]) for item in range(1, N_ITEMS + 1) if item not in out}
    wanted = {str(user): {name(history[-1]): 1} for user, history in enumerate(histories)}
    found = {(m.query_id, m.measure): m.value for m in ir_measures.iter_calc(measures, wanted, run)}
    return {measure: np.array([found[str(user), measure] for user in range(len(histories))]) for measure in measures}


@pytest.mark.parametrize("filter_seen", [True, False])
def test_every_user_scores_what_other_evaluations_say_where_nothing_is_tied(histories, filter_seen):
    scores = scores_without_ties()
    found = ours(scores, histories, filter_seen)
    measures = {(name, k): oracle @ k for name, oracle in ORACLES.items() for k in CUTOFFS}
    expected = theirs(list(measures.values()), scores, histories, filter_seen)
    for (name, k), measure in measures.items():
        assert 0.02 < expected[measure].mean() < 0.5, "some users hit and some do not"
        np.testing.assert_allclose(per_user(found, name, k), expected[measure], rtol=0, atol=1e-9, err_msg=f"{measure}")
        assert means(found)[f"{name.upper()}@{k}"] == pytest.approx(expected[measure].mean(), abs=1e-9)


@pytest.mark.parametrize("filter_seen", [True, False])
def test_the_bounds_of_a_tie_are_the_two_orders_that_trec_eval_can_give_it(histories, filter_seen):
    scores = scores_with_ties()
    orders = ["{:03}".format, lambda item: f"{N_ITEMS - item:03}"]
    last, first = (1 / theirs([RR], scores, histories, filter_seen, name)[RR] for name in orders)
    assert (first != last).mean() > 0.8, "most targets are tied"
    # the two orders of items are each other's reverse: what stands above the target in one stands below it in the other
    found = ours(scores, histories, filter_seen)
    np.testing.assert_allclose(found.low + found.high, first + last, rtol=0, atol=1e-9)
    assert (found.low <= np.minimum(first, last) + 1e-9).all()


def test_a_tied_target_scores_the_mean_of_what_other_evaluations_say_of_every_order_of_its_tie(histories):
    """trec_eval breaks ties by the items' names, so names are permuted: 100 orders of all items, for 100 users."""
    users = 100
    scores, histories, rng = scores_with_ties()[:users], histories[:users], np.random.default_rng(5)
    found = ours(scores, histories, True)
    measures = {(name, k): oracle @ k for name, oracle in ORACLES.items() for k in (5, 20)}
    sums = {key: np.zeros(users) for key in measures}
    rounds = 100
    for _ in range(rounds):
        places = rng.permutation(N_ITEMS + 1)
        drawn = theirs(list(measures.values()), scores, histories, True, lambda item: f"{places[item]:03}")  # noqa: B023
        for key, measure in measures.items():
            sums[key] += drawn[measure] / rounds
    for (name, k), mean in sums.items():
        # 100 users x 100 orders: the standard error of the mean is at most 0.005 for values in [0, 1]
        assert per_user(found, name, k).mean() == pytest.approx(mean.mean(), abs=0.01)


def test_where_only_others_are_tied_every_user_still_scores_what_other_evaluations_say(histories):
    scores = scores_with_ties()
    for user, history in enumerate(histories):
        scores[user, history[-1] - 1] += 0.5
    found = ours(scores, histories, True)
    measures = {(name, k): oracle @ k for name, oracle in ORACLES.items() for k in CUTOFFS}
    expected = theirs(list(measures.values()), scores, histories, True)
    for (name, k), measure in measures.items():
        np.testing.assert_allclose(per_user(found, name, k), expected[measure], rtol=0, atol=1e-9, err_msg=f"{measure}")

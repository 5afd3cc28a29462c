"""Ranks against an independent loop over plain Python numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import Queries, Split
from harness.metrics._all import means, per_user
from harness.ranking import ranks


def a_split(histories, n_items):
    offsets = np.cumsum([0, *map(len, histories)]).astype(np.int64)
    items = np.concatenate([np.asarray(h, np.int32) for h in histories])
    users = np.arange(len(histories), dtype=np.int32)
    ends = np.asarray([len(h) - 1 for h in histories], np.int64)
    queries = Queries(users, ends)
    return Split(n_items, items, offsets, None, ends, queries, queries), queries


def slow_rank(scores, history, target, filter_seen):
    rank = 1.0
    for item, score in enumerate(scores, 1):
        if item == target or (filter_seen and item in history):
            continue
        rank += 1.0 if score > scores[target - 1] else 0.5 if score == scores[target - 1] else 0.0
    return rank


@settings(max_examples=60, deadline=None)
@given(st.data(), st.booleans(), st.integers(1, 4))
def test_ranks_are_those_of_a_plain_loop(data, filter_seen, block):
    n = data.draw(st.integers(1, 9))
    histories = data.draw(st.lists(st.lists(st.integers(1, n), min_size=1, max_size=6), min_size=1, max_size=5))
    scores = data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=n, max_size=n), min_size=5, max_size=5))
    split, queries = a_split(histories, n)
    table = torch.tensor(scores, dtype=torch.float32)
    found = ranks(lambda q: table[q.users.astype(np.int64)], split, queries, filter_seen=filter_seen, block=block)
    expected = [slow_rank(scores[u], set(h[:-1]), h[-1], filter_seen) for u, h in enumerate(histories)]
    assert found.tolist() == expected


def test_a_constant_scorer_gets_the_middle_rank_not_the_first():
    split, queries = a_split([[1, 2]], 101)
    found = ranks(lambda q: torch.zeros(1, 101), split, queries, filter_seen=False)
    assert found.tolist() == [51.0]


def test_rounding_noise_between_equal_scores_is_a_tie():
    split, queries = a_split([[1, 2]], 3)
    found = ranks(lambda q: torch.tensor([[0.0, 1.0, 1.0 + 1e-7]]), split, queries, filter_seen=True)
    assert found.tolist() == [1.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(bad):
    split, queries = a_split([[1, 2]], 3)
    with pytest.raises(FloatingPointError):
        ranks(lambda q: torch.tensor([[bad, 1.0, 2.0]]), split, queries, filter_seen=False)


def test_metrics_by_hand():
    found = np.array([1.0, 2.0, 10.0, 10.5, 30.0])
    assert per_user(found, "hr", 10).tolist() == [1, 1, 1, 0, 0]
    assert per_user(found, "mrr", 10) == pytest.approx([1, 0.5, 0.1, 0, 0])
    assert per_user(found, "ndcg", 10) == pytest.approx([1, 0.6309297535714575, 0.2890648263178879, 0, 0])
    assert means(found)["HR@20"] == pytest.approx(0.8)

"""List metrics against plain loops over Python numbers and values worked out by hand."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_splits import a_split

from harness import registry
from harness.metrics.lists import _all
from harness.metrics.lists._base import NOTHING, Catalogue, TopLists
from harness.training import list_scores


def value(metric, items, catalogue):
    return registry.load(registry.LIST_METRICS, metric)(np.asarray(items, np.int32), catalogue)


def slow_coverage(lists, catalogue):
    return len({item for own in lists for item in own}) / len(catalogue.events)


def slow_gini(lists, catalogue):
    """Half the mean absolute difference between two items' counts, over the mean count."""
    counts = [sum(own.count(item) for own in lists) for item in range(len(catalogue.events))]
    n, total = len(counts), sum(counts)
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n * total) if total else math.nan


def slow_mean(of_item):
    def metric(lists, catalogue):
        means = [sum(of_item(item, catalogue) for item in own) / len(own) for own in lists if own]
        return sum(means) / len(means) if means else math.nan

    return metric


def slow_ild(lists, catalogue):
    means = []
    for own in lists:
        vectors = [catalogue.text[item].tolist() for item in own if catalogue.text[item].any()]
        pairs = [1 - cosine(a, b) for a, b in itertools.combinations(vectors, 2)]
        means += [sum(pairs) / len(pairs)] if pairs else []
    return sum(means) / len(means) if means else math.nan


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


SLOW = {
    "coverage": slow_coverage,
    "gini": slow_gini,
    "novelty": slow_mean(lambda item, c: math.log2(c.n_users / max(c.users[item], 1))),
    "arp": slow_mean(lambda item, c: c.events[item]),
    "ild": slow_ild,
}


@st.composite
def cases(draw):
    """A catalogue of n items and lists of up to K different ones, K up to n."""
    n = draw(st.integers(1, 12))
    users = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    more = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    text = draw(st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=n, max_size=n))
    events = np.array(users) + np.array(more) * (np.array(users) > 0)
    order = st.permutations(range(n))
    k = draw(st.integers(1, n))
    lists = [draw(order)[: draw(st.integers(0, k))] for _ in range(draw(st.integers(1, 6)))]
    return lists, k, Catalogue(events, np.array(users), 9, np.array(text, np.float32))


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_metric_is_that_of_a_plain_loop(case):
    lists, k, catalogue = case
    items = [own + [NOTHING] * (k - len(own)) for own in lists]
    assert set(SLOW) == set(registry.names(registry.LIST_METRICS))
    for metric, slow in SLOW.items():
        expected = slow([list(own) for own in lists], catalogue)
        assert value(metric, items, catalogue) == pytest.approx(expected, abs=1e-12, nan_ok=True), metric


def test_known_values():
    catalogue = Catalogue(np.array([8, 4, 0, 3]), np.array([8, 4, 0, 2]), 8, np.eye(4, 2, dtype=np.float32))
    assert value("coverage", [[0, 1], [1, 0]], catalogue) == 0.5
    assert value("gini", [[0, 1], [2, 3]], catalogue) == 0.0, "all equally often"
    assert value("gini", [[0], [0], [0]], catalogue) == pytest.approx(3 / 4), "only one of 4 items"
    assert value("novelty", [[0, 3]], catalogue) == pytest.approx((0 + 2) / 2)
    assert value("novelty", [[2]], catalogue) == 3.0, "an unseen item as one with a single user"
    assert value("arp", [[0, 1], [2, 3]], catalogue) == pytest.approx((6 + 1.5) / 2)
    assert value("ild", [[0, 1], [0, 2]], catalogue) == 1.0, "item 2 has no text, so its list has no pair"


def test_scores_use_ten_places_and_leave_out_what_is_undefined():
    catalogue = Catalogue(np.arange(30), np.arange(30), 40)
    items = np.arange(30, dtype=np.int32).reshape(2, 15)
    found = _all.scores(TopLists(items, np.zeros_like(items, np.float32)), catalogue)
    assert set(found) == {"coverage@10", "gini@10", "novelty@10", "arp@10"}, "no text, no distance"
    assert found["coverage@10"] == 20 / 30
    assert found["arp@10"] == pytest.approx(np.r_[0:10, 15:25].mean())


def test_blocks_of_lists_do_not_change_the_distance(monkeypatch):
    module = __import__("harness.metrics.lists.ild", fromlist=["BLOCK"])
    rng = np.random.default_rng(0)
    catalogue = Catalogue(np.ones(50), np.ones(50), 9, rng.normal(size=(50, 8)).astype(np.float32))
    items = np.stack([rng.permutation(50)[:10] for _ in range(33)])
    whole = value("ild", items, catalogue)
    monkeypatch.setattr(module, "BLOCK", 5 * 10 * 8)
    assert value("ild", items, catalogue) == pytest.approx(whole, abs=1e-14)


def test_the_catalogue_counts_only_training_events():
    split, _ = a_split([[1, 1, 2, 3], [2, 3], [4, 1, 4]], 5)  # the last of each is the target
    found = list_scores.catalogue(split, np.zeros((5, 0), np.float32))
    assert found.events.tolist() == [3, 2, 0, 1, 0]
    assert found.users.tolist() == [2, 2, 0, 1, 0]
    assert found.n_users == 3
    assert found.text is None

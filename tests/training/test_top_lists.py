"""Top lists against a plain sort, and their agreement with the ranks."""

from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_splits import a_split, random_histories, rows_of
from small_trials import a_trial, spectrum_of

from harness.metrics.lists._base import NOTHING
from harness.training import ranking, trial
from harness.training.ranking import ranks_and_lists


def slow_list(scores, history, target, filter_seen, k):
    out = {*history} - {target} if filter_seen else set()
    candidates = [item for item in range(1, len(scores) + 1) if item not in out]
    return [item - 1 for item in sorted(candidates, key=lambda item: (-scores[item - 1], item))[:k]]


def padded(items, k):
    return items + [NOTHING] * (k - len(items))


@st.composite
def catalogues(draw):
    n = draw(st.integers(1, 23))
    histories = draw(st.lists(st.lists(st.integers(1, n), min_size=1, max_size=8), min_size=1, max_size=6))
    row = st.lists(st.integers(-2, 2), min_size=n, max_size=n)
    return n, histories, draw(st.lists(row, min_size=len(histories), max_size=len(histories)))


@settings(max_examples=200, deadline=None)
@given(catalogues(), st.booleans(), st.integers(1, 12), st.integers(1, 4), st.integers(1, 60))
def test_lists_are_a_plain_sort_by_score_and_item(catalogue, filter_seen, k, block, tile):
    n, histories, rows = catalogue
    split, queries = a_split(histories, n)
    scorer = rows_of(np.asarray(rows, np.float32))
    with mock.patch.multiple(ranking, QUERIES=block, TILE={"cpu": tile}):
        _, lists = ranks_and_lists(scorer, split, queries, k, filter_seen=filter_seen)
    expected = [slow_list(own, h[:-1], h[-1], filter_seen, k) for own, h in zip(rows, histories, strict=True)]
    assert lists.items.tolist() == [padded(items, k) for items in expected]
    for own, items, scores in zip(rows, expected, lists.scores, strict=True):
        assert scores.tolist() == [own[item] for item in items] + [-np.inf] * (k - len(items))


@pytest.mark.parametrize("filter_seen", [True, False])
@pytest.mark.parametrize("k", [1, 10, 50])
def test_a_target_without_ties_is_at_the_place_of_its_rank(filter_seen, k):
    n_items, rng = 2_000, np.random.default_rng(k)
    histories = random_histories(1_500, n_items)
    states, table = (torch.from_numpy(rng.normal(size=(n, 8)).astype(np.float32)) for n in (1_500, n_items))
    states += 2 * table[torch.tensor([history[-1] - 1 for history in histories])]  # many targets near the top
    split, queries = a_split(histories, n_items)
    ranks, lists = ranks_and_lists(rows_of(states), split, queries, k, filter_seen=filter_seen, table=table)
    targets = np.array([history[-1] - 1 for history in histories])
    clear = ~ranks.tied
    inside = clear & (ranks.low <= k)
    assert inside.sum() > 50
    assert (lists.items[inside, ranks.low[inside].astype(int) - 1] == targets[inside]).all()
    assert not (lists.items[clear & (ranks.low > k)] == targets[clear & (ranks.low > k), None]).any()
    assert (np.diff(lists.scores, axis=1) <= 0).all()


def test_the_first_places_do_not_depend_on_the_length(split):
    training = trial.Training(a_trial("id"), split, spectrum_of(split))
    short, long = (training.ranks_and_lists(split.test, k)[1] for k in (10, 25))
    assert (long.cut(10).items == short.items).all()
    assert (long.cut(10).scores == short.scores).all()


@pytest.mark.parametrize("adapter", ["svd_whiten", "popularity"])
def test_a_confirmation_scores_its_lists_and_keeps_them_only_on_request(split, adapter):
    own = a_trial("linear", epochs=1)
    spectrum, names = spectrum_of(split), {"coverage@10", "gini@10", "novelty@10", "arp@10", "ild@10"}
    if adapter == "popularity":
        cell = type(own.cell)("toy", "none", "none", "popularity")
        own = type(own)(cell, "confirm", 0, 0, 0, {}, own.protocol, own.inputs)
        spectrum, names = trial.spectrum({}, split.n_items), names - {"ild@10"}
        (result, without), (longer, kept) = (trial.run_baseline(own, split, spectrum, top_k=k) for k in (0, 15))
    else:
        finished = []
        for k in (0, 15):
            training = trial.Training(own, split, spectrum)
            training.epoch()
            finished.append(training.finish(k))
        (result, without), (longer, kept) = finished
    assert without.lists is None
    assert kept.lists.items.shape == (len(split.test.users), 15)
    assert {name for name in result.info if name.endswith("@10") and not name.startswith("test_")} == names
    assert {name: result.info[name] for name in names} == {name: longer.info[name] for name in names}
    assert result.test == longer.test
    hits = (kept.lists.items[:, :10] == targets(split)[:, None]).any(1)
    if not kept.ranks.tied.any():
        assert hits.mean() == pytest.approx(result.test["HR@10"])


def targets(split):
    return split.items[split.offsets[split.test.users] + split.test.ends] - 1


def test_a_search_trial_scores_no_lists(split):
    training = trial.Training(a_trial("linear", role="search", epochs=1), split.sealed(), spectrum_of(split))
    training.epoch()
    result, left = training.finish(20)
    assert left.lists is None
    assert not [name for name in result.info if name.endswith("@10")]

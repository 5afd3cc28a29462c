"""Ranks against independent loops over plain Python numbers and over float64."""

import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from dataset_files import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from small_splits import a_split, random_histories, rows_of

from harness.data import preparation, reader, splits
from harness.data.splits import Queries
from harness.metrics._all import means, per_user
from harness.search import spaces
from harness.training import ranking, trial
from harness.training.ranking import ranks
from harness.types import Cell, Inputs, PrepSpec, Protocol, Trial


def slow_rank(scores, history, target, filter_seen):
    low = high = 1.0
    for item, score in enumerate(scores, 1):
        if item == target or (filter_seen and item in history):
            continue
        low += score > scores[target - 1]
        high += score >= scores[target - 1]
    return low, high


def slow_ranks(scores, histories, filter_seen):
    return [slow_rank(scores[u], set(h[:-1]), h[-1], filter_seen) for u, h in enumerate(histories)]


def bounds(found):
    return list(zip(found.low.tolist(), found.high.tolist(), strict=True))


def cut_into(queries, tile):
    """Blocks of so many queries and tiles of so many scores, whatever the scorer."""
    return mock.patch.multiple(ranking, QUERIES=queries, TILE={"cpu": tile})


@st.composite
def catalogues(draw, width):
    """n items, some histories, and of each user `width(n)` small whole numbers."""
    n = draw(st.integers(1, 23))
    histories = draw(st.lists(st.lists(st.integers(1, n), min_size=1, max_size=8), min_size=1, max_size=6))
    row = st.lists(st.integers(-2, 2), min_size=width(n), max_size=width(n))
    rows = draw(st.lists(row, min_size=len(histories), max_size=len(histories)))
    return n, histories, rows


@settings(max_examples=100, deadline=None)
@given(catalogues(lambda n: n), st.booleans(), st.integers(1, 4), st.integers(1, 60))
def test_ranks_of_whole_rows_are_those_of_a_plain_loop(catalogue, filter_seen, block, tile):
    n, histories, rows = catalogue
    split, queries = a_split(histories, n)
    with cut_into(block, tile):
        found = ranks(rows_of(np.asarray(rows, np.float32)), split, queries, filter_seen=filter_seen)
    assert bounds(found) == slow_ranks(rows, histories, filter_seen)


@settings(max_examples=150, deadline=None)
@given(st.data(), catalogues(lambda n: 3), st.booleans(), st.integers(1, 4), st.integers(1, 60))
def test_ranks_of_states_against_a_table_are_those_of_a_plain_loop(given_data, catalogue, filter_seen, block, tile):
    n, histories, states = catalogue
    row = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    table = given_data.draw(st.lists(row, min_size=n, max_size=n))
    scores = [[sum(a * b for a, b in zip(h, e, strict=True)) for e in table] for h in states]
    split, queries = a_split(histories, n)
    with cut_into(block, tile):
        scorer, items = rows_of(np.asarray(states, np.float32)), torch.tensor(table, dtype=torch.float32)
        found = ranks(scorer, split, queries, filter_seen=filter_seen, table=items)
    assert bounds(found) == slow_ranks(scores, histories, filter_seen)


@pytest.mark.parametrize("n_items", [7, 2_000])  # less than one tile, and several
def test_products_of_real_numbers_rank_as_in_float64(n_items):
    rng = np.random.default_rng(n_items)
    histories = random_histories(1_500, n_items)
    states, table = (rng.normal(size=(n, 64)).astype(np.float32) for n in (len(histories), n_items))
    split, queries = a_split(histories, n_items)
    found = ranks(rows_of(states), split, queries, filter_seen=True, table=torch.from_numpy(table))
    assert_ranks_up_to_rounding(found, states, table, split, queries)


def assert_ranks_up_to_rounding(found, states, table, split, queries):
    """Between the ranks with every near tie lost and with every one won, and equal where there is no near tie."""
    states, table, clear = states.astype(np.float64), table.astype(np.float64), 0
    for row, (user, end) in enumerate(zip(queries.users, queries.ends, strict=True)):
        *seen, target = split.history(int(user), int(end) + 1) - 1
        terms = states[row] * table[target]
        gaps = np.delete(table @ states[row] - terms.sum(), list({*seen, target}))
        near = 5e-6 * np.abs(terms).sum()
        assert 1 + (gaps > near).sum() <= found.low[row] <= found.high[row] <= 1 + (gaps > -near).sum()
        if np.abs(gaps).min(initial=np.inf) > near:
            clear += 1
            assert found.low[row] == found.high[row] == 1 + (gaps > 0).sum()
    assert clear > 0.5 * len(found)


@pytest.mark.parametrize("d", [2, 64, 256])
@pytest.mark.parametrize("spread", [0.0, 2.0, 5.0])  # of the logarithm of a dimension's scale
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
@pytest.mark.parametrize("n_queries", [1, 70])  # one row takes another way through the library of products
def test_exact_duplicates_of_the_target_are_ties_at_any_scale(d, spread, scale, n_queries):
    """Terms cancel, so that what rounding leaves of the scores is all there is to them."""
    rng = np.random.default_rng(d)
    sizes = scale * np.exp(spread * rng.normal(size=d))
    item, states = rng.normal(size=d) * sizes, rng.normal(size=(n_queries, d)) * sizes
    largest = np.abs(item).argmax()
    states[:, largest] -= states @ item / item[largest]
    copies = np.tile(item.astype(np.float32), (2_001, 1))
    better, worse = (np.sign(x) * np.abs(item).max() for x in (states, -states))
    for row in range(n_queries):
        copies[5 * row], copies[5 * row + 1] = better[row], worse[row]
    split, queries = a_split((2_001 - 3 * np.arange(n_queries))[:, None].tolist(), 2_001)
    found = ranks(rows_of(states.astype(np.float32)), split, queries, filter_seen=True, table=torch.from_numpy(copies))
    scores = states @ copies[: 5 * n_queries].T.astype(np.float64)
    others = np.stack([scores[:, 5 * row + k] for row in range(n_queries) for k in (0, 1)], 1)
    better = 1 + (others > 0).sum(1)
    assert (found.low.tolist(), found.high.tolist()) == (better.tolist(), (better + 2_000 - 2 * n_queries).tolist())


def test_a_constant_scorer_ties_the_target_with_every_other_item():
    split, queries = a_split([[1, 2]], 101)
    assert bounds(ranks(rows_of(torch.zeros(1, 101)), split, queries, filter_seen=False)) == [(1, 101)]
    found = ranks(rows_of(torch.ones(1, 4)), split, queries, filter_seen=False, table=torch.zeros(101, 4))
    assert bounds(found) == [(1, 101)]


def test_rounding_noise_between_equal_scores_is_a_tie():
    split, queries = a_split([[1, 2]], 3)
    found = ranks(rows_of([[0.0, 1.0, 1.0 + 1e-7]]), split, queries, filter_seen=True)
    assert bounds(found) == [(1, 2)]


def test_an_item_seen_twice_is_left_out_once_and_a_target_seen_before_still_is_a_candidate():
    scores = torch.tensor([[9.0, 8.0, 7.0, 6.0]])
    split, queries = a_split([[1, 1, 3, 1, 3]], 4)
    assert bounds(ranks(rows_of(scores), split, queries, filter_seen=True)) == [(2, 2)]
    assert bounds(ranks(rows_of(scores), split, queries, filter_seen=False)) == [(3, 3)]


def test_a_catalogue_of_one_item_ranks_it_first():
    split, queries = a_split([[1, 1], [1]], 1)
    found = ranks(rows_of(torch.ones(2, 5)), split, queries, filter_seen=True, table=torch.ones(1, 5))
    assert bounds(found) == [(1, 1), (1, 1)]


def test_no_queries_have_no_ranks():
    split, _ = a_split([[1, 2]], 3)
    none = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
    assert ranks(rows_of(torch.ones(1, 2)), split, none, filter_seen=True, table=torch.ones(3, 2)).low.shape == (0,)


def test_what_the_scorer_gave_and_the_table_stay_as_they_were():
    split, queries = a_split([[1, 2], [2, 3]], 3)
    given = torch.randn(1, 3).expand(2, 3)
    before, table = given.clone(), torch.randn(3, 3, requires_grad=True)
    kept = table.detach().clone()
    ranks(lambda _: given, split, queries, filter_seen=True)
    ranks(lambda _: given, split, queries, filter_seen=True, table=table)
    assert torch.equal(given, before)
    assert torch.equal(table.detach(), kept)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["scores", "states", "table"])
def test_scores_that_are_not_finite_are_refused(bad, where):
    split, queries = a_split([[1, 2], [3, 1]], 3)
    spoilt, fine = torch.ones(2, 3), torch.ones(3, 3)
    (fine if where == "table" else spoilt)[1, 0] = bad
    table = None if where == "scores" else fine
    with pytest.raises(FloatingPointError, match="not finite"):
        ranks(rows_of(spoilt), split, queries, filter_seen=True, table=table)


def test_products_that_overflow_are_refused():
    split, queries = a_split([[1, 2]], 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        ranks(rows_of(torch.full((1, 4), 1e20)), split, queries, filter_seen=True, table=torch.full((3, 4), -1e20))


def test_a_scorer_of_whole_rows_is_asked_for_few_at_a_time_where_the_catalogue_is_large():
    n_items, asked = 200_000, []
    split, queries = a_split([[1, 2]] * 300, n_items)

    def scorer(part):
        asked.append(len(part.users))
        return torch.zeros(1, n_items).expand(len(part.users), -1)

    found = ranks(scorer, split, queries, filter_seen=True)
    assert sum(asked) == 300
    assert max(asked) * n_items * 4 <= 32 * 2**20
    assert set(bounds(found)) == {(1, n_items - 1)}


CHILD = """
from pathlib import Path
import numpy as np, torch
from harness.data.splits import Queries, Split
from harness.training.ranking import ranks

def memory(field):
    return int(Path("/proc/self/status").read_text().partition(field)[2].split()[0]) * 1024

def rank(users, n_items):
    items = (np.arange(4 * users) * 7919 % n_items + 1).astype(np.int32)
    queries = Queries(np.arange(users, dtype=np.int32), np.full(users, 3))
    split = Split(n_items, items, np.arange(users + 1) * 4, None, queries.ends, queries, queries)
    states, table = torch.randn(users, 16), torch.randn(n_items, 16)
    before = memory("VmRSS:")
    ranks(lambda q: states[q.users.astype(np.int64)], split, queries, filter_seen=True, table=table)
    return memory("VmHWM:") - before

rank(1024, 512)
print(rank(1024, 200_000))
"""


def test_ranking_a_large_catalogue_needs_little_memory_beside_the_table():
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 24 * 2**20, "all scores of the 1,024 queries would be 800 MB"


@pytest.mark.parametrize("loss", ["softmax", "infonce"])
def test_a_model_ranks_by_the_scores_it_is_trained_on(dataset, home, loss):
    split = splits.split(preparation.prepare(reader.open_dataset(str(dataset), home), PrepSpec(), home), Protocol())
    cell = Cell("toy", "none", "sasrec", "id")
    params = spaces.of_cell(cell, spaces.SpaceSource(fixed={"train.loss": loss})).default
    params |= {"train.d": 16, "train.max_len": 6}
    training = trial.Training(
        Trial(cell, "search", 1, 1, 0, params, Protocol(), Inputs()), split, trial.spectrum({}, split.n_items)
    )
    training.epoch()
    with torch.no_grad():
        for weight in training.model.table.parameters():  # lengths that differ, so that cosine and dot product do
            weight *= torch.linspace(0.5, 2, split.n_items)[:, None]
        states, table = states_one_by_one(training, split.valid), training.model.table()[1:].numpy()
    if loss == "infonce":
        states, table = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (states, table))
    with mock.patch.object(trial, "POSITIONS", {"cpu": 20}):
        found = training.ranks(split.valid)
    assert_ranks_up_to_rounding(found, states, table, split, split.valid)


def states_one_by_one(training, queries):
    """The state after each query's last max_len events, one sequence at a time: no padding, no blocks."""
    model, max_len = training.model.eval(), training.train["max_len"]
    asked = zip(queries.users.tolist(), queries.ends.tolist(), strict=True)
    histories = [training.split.history(user, end)[-max_len:] for user, end in asked]
    return np.stack([model.states(torch.tensor(h)[None].long(), model.table())[0, -1].numpy() for h in histories])


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not beside this checkout")
@pytest.mark.parametrize("name", ["ml-100k", "amazon2014-office"])
def test_ranks_on_real_histories_are_those_of_float64(home, name):
    prepared = preparation.prepare(reader.open_dataset(str(SHARED / name), home), PrepSpec(), home)
    split = splits.split(prepared, Protocol())
    rng = np.random.default_rng(0)
    states = rng.normal(size=(len(split.train_ends), 64)).astype(np.float32)
    table = (rng.normal(size=(split.n_items, 64)) * np.geomspace(1, 1e-3, 64)).astype(np.float32)  # as trained ones
    some = Queries(split.test.users[::5], split.test.ends[::5])
    found = ranks(rows_of(states), split, some, filter_seen=True, table=torch.from_numpy(table))
    assert_ranks_up_to_rounding(found, states[some.users], table, split, some)


def test_metrics_by_hand():
    found = np.array([1.0, 2.0, 10.0, 10.5, 30.0])
    assert per_user(found, "hr", 10).tolist() == [1, 1, 1, 0, 0]
    assert per_user(found, "mrr", 10) == pytest.approx([1, 0.5, 0.1, 0, 0])
    assert per_user(found, "ndcg", 10) == pytest.approx([1, 0.6309297535714575, 0.2890648263178879, 0, 0])
    assert means(found)["HR@20"] == pytest.approx(0.8)

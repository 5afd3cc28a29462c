"""Statistics against simulations with a known truth, and against small recomputations written here."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry
from harness.metrics._all import CUTOFFS, per_user
from harness.stats import resampling
from harness.types import HarnessError


def scores(rng: np.random.Generator, shape: tuple[int, int], user: float, seed: float, both: float) -> np.ndarray:
    """Scores of true mean 0 with random effects of users, of seeds, and of each user under each seed."""
    users, seeds = shape
    effects = rng.normal(0, user, (users, 1)) + rng.normal(0, seed, (1, seeds))
    return effects + rng.normal(0, both, shape)


# --- intervals -------------------------------------------------------------------------------------------------


def interval(values, rounds=1000, seed=0):
    """What slices and comparisons over data sets show of scores (U, S)."""
    users, seeds = (
        resampling.user_draws(len(values), rounds, seed),
        resampling.seed_draws(values.shape[1], rounds, seed + 1),
    )
    return resampling.percentile(values.mean(), resampling.bootstrap(values, users, seeds))


@pytest.mark.parametrize(
    ("seeds", "seed_sd"), [(1, 0.0), (5, 0.0), (5, 0.02), (5, 0.04)], ids=["one seed", "users", "mostly users", "equal"]
)
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, seed_sd):
    """The standard error of the mean is .017 by users; by seeds 0, .009 and .018."""
    rng, rounds, hits = np.random.default_rng(1), 300, 0
    for number in range(rounds):
        found = interval(scores(rng, (150, seeds), 0.2, seed_sd, 0.15), rounds=400, seed=number)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / rounds <= 0.99


def test_the_interval_of_one_seed_is_that_of_the_plain_bootstrap():
    values = np.random.default_rng(0).random((500, 1)) ** 4
    found = interval(values, rounds=4000)
    error = values.std(ddof=1) / math.sqrt(500)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_seeds_that_differ_widen_the_interval():
    values = np.random.default_rng(0).random((200, 1)) * np.ones((1, 5))
    shifted = values + np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    narrow, wide = interval(values), interval(shifted)
    assert wide.mean == pytest.approx(narrow.mean)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_seed_draws_have_the_unbiased_variance_of_a_mean():
    means = np.array([0.1, 0.4, 0.2, 0.35, 0.0])
    resampled = resampling.seed_draws(5, rounds=200_000) @ means
    assert resampled.mean() == pytest.approx(means.mean(), abs=1e-3)
    assert resampled.var() == pytest.approx(means.var(ddof=1) / 5, rel=0.02)


@given(users=st.integers(1, 300), rounds=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_round_draws_as_many_users_as_there_are(users, rounds, seed):
    draws = resampling.user_draws(users, rounds, seed)
    assert draws.shape == (rounds, users)
    assert (draws.sum(1, dtype=np.int64) == users).all()
    assert np.array_equal(draws, resampling.user_draws(users, rounds, seed))


def test_user_draws_are_multinomial():
    draws = resampling.user_draws(20, rounds=20_000).astype(np.float64)
    assert draws.mean(0) == pytest.approx(np.ones(20), abs=0.04)
    assert draws.var(0) == pytest.approx(np.full(20, 0.95), rel=0.06)


def test_the_bootstrap_is_the_weighted_mean_of_each_level():
    """One column at a time, by loops: users of the seed mean, moved by seeds of the user mean."""
    rng = np.random.default_rng(3)
    values, users, seeds = rng.random((7, 3, 2)), resampling.user_draws(7, 11), resampling.seed_draws(3, 11)
    found = resampling.bootstrap(values, users, seeds)
    assert found.shape == (11, 2)
    for r, m in itertools.product(range(11), range(2)):
        by_users = sum(users[r, u] * values[u, s, m] for u in range(7) for s in range(3)) / 21
        by_seeds = sum(seeds[r, s] * values[u, s, m] for u in range(7) for s in range(3)) / 7
        assert found[r, m] == pytest.approx(by_users + by_seeds - values[:, :, m].mean())


# --- letters, effects -------------------------------------------------------------------------------


@given(st.integers(0, 9), st.floats(0, 1), st.integers(0, 10_000))
def test_rows_share_a_letter_exactly_if_they_do_not_differ(n, share, seed):
    differs = np.triu(np.random.default_rng(seed).random((n, n)) < share, 1)
    differs |= differs.T
    found = resampling.letters(differs)
    assert len(found) == n
    for i, j in itertools.combinations(range(n), 2):
        assert bool(set(found[i]) & set(found[j])) == (not differs[i, j])
    for letter in set("".join(found)):  # none can be left out, nor be given to another row
        group = {i for i in range(n) if letter in found[i]}
        assert not any(group < {i for i in range(n) if other in found[i]} for other in set("".join(found)))
    assert not found or "a" in found[0]


def test_letters_do_not_run_out():
    differs = ~np.eye(60, dtype=bool)
    assert len(set(resampling.letters(differs))) == 60
    assert resampling.letters(differs)[26:28] == ["a'", "b'"]


def test_the_effect_is_that_of_the_paired_t_statistic():
    from scipy.stats import ttest_1samp

    differences = np.random.default_rng(13).normal(0.1, 0.4, 50)
    assert resampling.effect(differences) == pytest.approx(ttest_1samp(differences, 0).statistic / math.sqrt(50))
    assert resampling.effect(np.full(9, 0.25)) is None
    assert resampling.effect(np.array([0.2])) is None


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentiles_are_numpys_to_the_last_bit(values):
    found = resampling.percentile(0.0, np.array(values))
    assert (found.low, found.high) == tuple(
        np.quantile(values, [(1 - resampling.LEVEL) / 2, (1 + resampling.LEVEL) / 2])
    )


# --- the best of k trials --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expected_best_of_k_is_the_mean_over_all_subsets(values, data):
    k = data.draw(st.integers(1, len(values)))
    subsets = [max(chosen) for chosen in itertools.combinations(values, k)]
    assert resampling.expected_best(np.array(values), k) == pytest.approx(np.mean(subsets), abs=1e-12)
    tuples = [max(chosen) for chosen in itertools.product(values, repeat=min(k, 4))]
    found = resampling.expected_best_with_replacement(np.array(values), min(k, 4))
    assert found == pytest.approx(np.mean(tuples), abs=1e-12)


def test_the_expected_best_is_unbiased_where_drawing_with_replacement_is_too_low():
    """The best of 8 uniform draws is 8 / 9 in the mean."""
    tables = np.random.default_rng(15).random((4000, 10))
    found = np.mean([resampling.expected_best(values, 8) for values in tables])
    replaced = np.mean([resampling.expected_best_with_replacement(values, 8) for values in tables])
    assert found == pytest.approx(8 / 9, abs=0.005)
    assert replaced < 8 / 9 - 0.02


def test_the_expected_best_of_hundreds_of_trials_is_exact():
    values = np.random.default_rng(17).random(750)
    for k in (1, 16, 512, 750):
        weights = [Fraction(math.comb(i, k - 1), math.comb(750, k)) for i in range(750)]
        exact = sum(w * Fraction(v) for w, v in zip(weights, sorted(values.tolist()), strict=True))
        assert resampling.expected_best(values, k) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("k", [1, 4])
def test_the_interval_of_the_expected_best_covers_it(k):
    rng, rounds, hits = np.random.default_rng(16), 300, 0
    truth = rng.beta(4, 2, (20_000, k)).max(1).mean()
    for number in range(rounds):
        (found,) = resampling.expected_best_intervals(rng.beta(4, 2, (16, 1)), k, rounds=300, seed=number)
        hits += found.low <= truth <= found.high
    assert 0.85 <= hits / rounds <= 0.99


def test_the_best_of_more_trials_than_there_are_is_refused():
    with pytest.raises(HarnessError, match="The best of 5 trials cannot be estimated from 4"):
        resampling.expected_best(np.arange(4.0), 5)
    with pytest.raises(HarnessError, match="needs 8 trials, not 4"):
        resampling.expected_best_intervals(np.arange(4.0)[:, None], 2)


def test_the_intervals_of_many_searches_are_those_of_resampled_trials():
    values, rng = np.random.default_rng(18).random((24, 3)), np.random.default_rng(19)
    found = resampling.expected_best_intervals(values, 6)
    for own, interval in zip(values.T, found, strict=True):
        draws = [resampling.expected_best(rng.choice(own, 24), 6) for _ in range(2000)]
        assert interval.mean == pytest.approx(resampling.expected_best(own, 6), abs=1e-12)
        assert (interval.low, interval.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.02)


# --- Holm ------------------------------------------------------------------------------------------------------


def test_holm_agrees_with_a_hand_example():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04, and none below the one before it."""
    assert resampling.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p):
    adjusted = resampling.holm(np.array(p))
    rejected = set()
    for step, index in enumerate(np.argsort(p, kind="stable")):
        if p[index] * (len(p) - step) > 0.05:
            break
        rejected.add(int(index))
    assert set(np.flatnonzero(adjusted <= 0.05)) == rejected
    assert ((adjusted >= np.array(p)) & (adjusted <= 1)).all()


# --- metrics ---------------------------------------------------------------------------------------------------


def by_the_book(metric: str, rank: float, k: int) -> float:
    """The definitions over a ranked list of k places with one relevant item."""
    places = [1.0 if place == rank else 0.0 for place in range(1, k + 1)]
    if metric == "hr":
        return max(places)
    if metric == "mrr":
        return sum(hit / place for place, hit in enumerate(places, 1))
    gain = sum(hit / math.log2(place + 1) for place, hit in enumerate(places, 1))
    return gain / (1 / math.log2(2))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_metrics_are_what_the_book_says_of_each_user(ranks):
    for metric, k in itertools.product(("ndcg", "hr", "mrr"), CUTOFFS):
        found = per_user(np.array(ranks, np.float64), metric, k)
        assert found == pytest.approx([by_the_book(metric, rank, k) for rank in ranks], abs=1e-15)


@given(st.lists(st.floats(1, 60), min_size=2, max_size=30), st.sampled_from(CUTOFFS))
def test_every_metric_lies_in_0_to_1_and_never_rises_with_the_rank(ranks, k):
    ordered = np.sort(np.array(ranks))
    for metric in registry.names(registry.METRICS):
        found = per_user(ordered, metric, k)
        assert ((found >= 0) & (found <= 1)).all()
        assert (np.diff(found) <= 0).all()


# --- what is refused -------------------------------------------------------------------------------------------


def test_draws_of_another_size_are_refused():
    with pytest.raises(HarnessError, match=r"values of \(5, 2\) users and seeds, but draws for \(6, 2\)"):
        resampling.bootstrap(np.zeros((5, 2)), resampling.user_draws(6, 10), resampling.seed_draws(2, 10))

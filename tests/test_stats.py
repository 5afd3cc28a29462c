"""Statistics against simulations with a known truth, and against small recomputations written here."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import registry, stats
from harness.metrics._all import CUTOFFS, per_user
from harness.types import HarnessError


def scores(rng: np.random.Generator, shape: tuple[int, int], user: float, seed: float, both: float) -> np.ndarray:
    """Scores of true mean 0 with random effects of users, of seeds, and of each user under each seed."""
    users, seeds = shape
    effects = rng.normal(0, user, (users, 1)) + rng.normal(0, seed, (1, seeds))
    return effects + rng.normal(0, both, shape)


# --- intervals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seeds", "seed_sd"), [(1, 0.0), (5, 0.0), (5, 0.02), (5, 0.04)], ids=["one seed", "users", "mostly users", "equal"]
)
def test_the_interval_covers_the_truth_about_as_often_as_it_says(seeds, seed_sd):
    """The standard error of the mean is .017 by users; by seeds 0, .009 and .018."""
    rng, rounds, hits = np.random.default_rng(1), 300, 0
    for number in range(rounds):
        found = stats.interval(scores(rng, (150, seeds), 0.2, seed_sd, 0.15), rounds=400, seed=number)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / rounds <= 0.99


def test_the_interval_of_one_seed_is_that_of_the_plain_bootstrap():
    values = np.random.default_rng(0).random((500, 1)) ** 4
    found = stats.interval(values, rounds=4000)
    error = values.std(ddof=1) / math.sqrt(500)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_seeds_that_differ_widen_the_interval():
    values = np.random.default_rng(0).random((200, 1)) * np.ones((1, 5))
    shifted = values + np.array([-0.2, -0.1, 0.0, 0.1, 0.2])
    narrow, wide = stats.interval(values), stats.interval(shifted)
    assert wide.mean == pytest.approx(narrow.mean)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_seed_draws_have_the_unbiased_variance_of_a_mean():
    means = np.array([0.1, 0.4, 0.2, 0.35, 0.0])
    resampled = stats.seed_draws(5, rounds=200_000) @ means
    assert resampled.mean() == pytest.approx(means.mean(), abs=1e-3)
    assert resampled.var() == pytest.approx(means.var(ddof=1) / 5, rel=0.02)


@given(users=st.integers(1, 300), rounds=st.integers(1, 40), seed=st.integers(0, 9))
def test_every_round_draws_as_many_users_as_there_are(users, rounds, seed):
    draws = stats.user_draws(users, rounds, seed)
    assert draws.shape == (rounds, users)
    assert (draws.sum(1, dtype=np.int64) == users).all()
    assert np.array_equal(draws, stats.user_draws(users, rounds, seed))


def test_user_draws_are_multinomial():
    draws = stats.user_draws(20, rounds=20_000).astype(np.float64)
    assert draws.mean(0) == pytest.approx(np.ones(20), abs=0.04)
    assert draws.var(0) == pytest.approx(np.full(20, 0.95), rel=0.06)


def test_the_bootstrap_is_the_weighted_mean_of_each_level():
    """One column at a time, by loops: users of the seed mean, moved by seeds of the user mean."""
    rng = np.random.default_rng(3)
    values, users, seeds = rng.random((7, 3, 2)), stats.user_draws(7, 11), stats.seed_draws(3, 11)
    found = stats.bootstrap(values, users, seeds)
    assert found.shape == (11, 2)
    for r, m in itertools.product(range(11), range(2)):
        by_users = sum(users[r, u] * values[u, s, m] for u in range(7) for s in range(3)) / 21
        by_seeds = sum(seeds[r, s] * values[u, s, m] for u in range(7) for s in range(3)) / 7
        assert found[r, m] == pytest.approx(by_users + by_seeds - values[:, :, m].mean())


# --- tests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0.0), (5, 0.0), (5, 0.03)])
def test_equal_models_are_called_different_about_one_time_in_twenty_or_less(seeds, seed_sd):
    rng, rounds, claims = np.random.default_rng(2), 300, 0
    for number in range(rounds):
        shared = rng.normal(0, 0.2, (100, 1))
        a, b = (shared + scores(rng, (100, seeds), 0.1, seed_sd, 0.1) for _ in "ab")
        claims += stats.compare(a, b, rounds=5, seed=number).p < 0.05
    assert claims / rounds < 0.09


def test_with_one_seed_the_level_is_exact_and_not_merely_safe():
    rng = np.random.default_rng(5)
    p = np.array([stats.sign_flip(rng.normal(0, 1, (60, 1)), flips=999, seed=n)[0] for n in range(600)])
    assert 0.03 < (p < 0.05).mean() < 0.075
    assert p.mean() == pytest.approx(0.5, abs=0.04)


def test_a_test_over_users_alone_would_take_a_lucky_seed_for_a_better_model():
    """Why the test knows of seeds: the same equal models, with and without the noise of seeds."""
    rng, rounds, with_seeds, without = np.random.default_rng(7), 150, 0, 0
    for number in range(rounds):
        a, b = (scores(rng, (150, 5), 0.1, 0.04, 0.1) for _ in "ab")
        with_seeds += stats.compare(a, b, rounds=5, seed=number).p < 0.05
        without += stats.sign_flip((a - b).mean(1)[:, None], seed=number)[0] < 0.05
    assert without / rounds > 0.2
    assert with_seeds / rounds < 0.1


def test_pairs_of_many_rows_have_the_p_values_that_each_pair_has_alone():
    rng = np.random.default_rng(5)
    users = rng.normal([0, 0.1, 0.25, 0.4], 1, (80, 4))
    noise = np.stack([stats.seed_noise(rng.normal(0, 0.05, 3), seed=n) for n in range(4)], 1)
    p = stats.pairwise(users, noise)
    assert np.diag(p).tolist() == [1] * 4
    assert (p == p.T).all()
    for i, j in [(0, 1), (0, 3), (1, 2)]:
        alone = stats.sign_flip((users[:, i] - users[:, j])[:, None], (noise[:, i] - noise[:, j])[:, None])[0]
        assert p[i, j] == pytest.approx(alone, abs=1e-3)
    assert p[0, 3] < 0.05 < p[0, 1]


def test_the_sign_flip_p_value_is_that_of_all_sign_patterns():
    d = np.array([0.9, 0.3, -0.1, 0.7, 0.5, 0.0, 0.4, -0.2, 0.6, 0.1])
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=10)]
    exact = np.mean(np.array(sums) >= abs(d.sum()) - 1e-12)
    assert stats.sign_flip(d[:, None], flips=100_000)[0] == pytest.approx(exact, abs=0.002)


def test_columns_are_tested_each_for_itself():
    rng = np.random.default_rng(4)
    many = rng.normal(0, 1, (80, 3)) + np.array([0.0, 0.1, 1.0])
    together = stats.sign_flip(many)
    assert together[2] == pytest.approx(1e-4)
    for column in range(3):
        assert stats.sign_flip(many[:, [column]])[0] == pytest.approx(together[column], abs=1e-12)


def test_identical_rows_differ_by_nothing_with_certainty():
    values = np.random.default_rng(0).random((50, 1))
    found = stats.compare(values, values)
    assert found == stats.Comparison(stats.Interval(0.0, 0.0, 0.0), 1.0)


def test_pairing_by_user_finds_what_separate_intervals_hide():
    rng = np.random.default_rng(6)
    a = rng.random((400, 1))
    b = a - 0.02 + rng.normal(0, 0.05, (400, 1))
    found = stats.compare(a, b)
    assert found.p < 0.001
    assert 0 < found.difference.low < 0.02 < found.difference.high
    assert stats.interval(a).low < stats.interval(b).high


def test_swapping_the_rows_turns_the_difference_round():
    rng = np.random.default_rng(8)
    a, b = rng.random((300, 3)), rng.random((300, 2)) + 0.05
    one, other = stats.compare(a, b), stats.compare(b, a)
    assert one.difference.mean == pytest.approx(-other.difference.mean)
    assert one.p == pytest.approx(other.p, abs=0.02)


# --- all pairs, letters, effects -------------------------------------------------------------------------------


def test_all_pairs_of_equal_models_hold_a_false_claim_in_one_table_of_twenty_or_less():
    """The family of six pairs, adjusted after Holm, seeds included."""
    rng, rounds, wrong = np.random.default_rng(12), 200, 0
    for number in range(rounds):
        shared = rng.normal(0, 0.2, (100, 1))
        models = [shared + scores(rng, (100, 4), 0.1, 0.02, 0.1) for _ in range(4)]
        users = np.stack([model.mean(1) for model in models], 1)
        noise = np.stack([stats.seed_noise(m.mean(0), 999, seed=9 * number + i) for i, m in enumerate(models)], 1)
        wrong += (stats.holm_pairs(stats.pairwise(users, noise, seed=number)) < 0.05).any()
    assert wrong / rounds < 0.09


@given(st.integers(0, 9), st.floats(0, 1), st.integers(0, 10_000))
def test_rows_share_a_letter_exactly_if_they_do_not_differ(n, share, seed):
    differs = np.triu(np.random.default_rng(seed).random((n, n)) < share, 1)
    differs |= differs.T
    found = stats.letters(differs)
    assert len(found) == n
    for i, j in itertools.combinations(range(n), 2):
        assert bool(set(found[i]) & set(found[j])) == (not differs[i, j])
    for letter in set("".join(found)):  # none can be left out, nor be given to another row
        group = {i for i in range(n) if letter in found[i]}
        assert not any(group < {i for i in range(n) if other in found[i]} for other in set("".join(found)))
    assert not found or "a" in found[0]


def test_letters_do_not_run_out():
    differs = ~np.eye(60, dtype=bool)
    assert len(set(stats.letters(differs))) == 60
    assert stats.letters(differs)[26:28] == ["a'", "b'"]


def test_the_effect_is_that_of_the_paired_t_statistic():
    from scipy.stats import ttest_1samp

    differences = np.random.default_rng(13).normal(0.1, 0.4, 50)
    assert stats.effect(differences) == pytest.approx(ttest_1samp(differences, 0).statistic / math.sqrt(50))
    assert stats.effect(np.full(9, 0.25)) is None
    assert stats.effect(np.array([0.2])) is None


def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_tables():
    """The size as one table of it says, the power over many others."""
    rng, rounds, found = np.random.default_rng(14), 200, 0

    def table(shift):
        shared = rng.normal(0, 0.2, (200, 1))
        return (shared + scores(rng, (200, 4), 0.1, 0.01, 0.1) + move for move in (shift, 0.0))

    def size():
        a, b = table(0.0)
        users = stats.user_draws(200)
        draws = [stats.bootstrap(x, users, stats.seed_draws(4, seed=i)) for i, x in enumerate((a, b))]
        return stats.detectable(draws[0] - draws[1])

    shift = float(np.mean([size() for _ in range(20)]))
    for number in range(rounds):
        found += stats.compare(*table(shift), rounds=5, seed=number).p < 0.05
    assert 0.68 < found / rounds < 0.92
    assert stats.detectable(np.arange(9.0), tests=10) > 1.2 * stats.detectable(np.arange(9.0))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_percentiles_are_numpys_to_the_last_bit(values):
    found = stats.percentile(0.0, np.array(values))
    assert (found.low, found.high) == tuple(np.quantile(values, [(1 - stats.LEVEL) / 2, (1 + stats.LEVEL) / 2]))


# --- the best of k trials --------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7), st.data())
def test_the_expected_best_of_k_is_the_mean_over_all_subsets(values, data):
    k = data.draw(st.integers(1, len(values)))
    subsets = [max(chosen) for chosen in itertools.combinations(values, k)]
    assert stats.expected_best(np.array(values), k) == pytest.approx(np.mean(subsets), abs=1e-12)
    tuples = [max(chosen) for chosen in itertools.product(values, repeat=min(k, 4))]
    found = stats.expected_best_with_replacement(np.array(values), min(k, 4))
    assert found == pytest.approx(np.mean(tuples), abs=1e-12)


def test_the_expected_best_is_unbiased_where_drawing_with_replacement_is_too_low():
    """The best of 8 uniform draws is 8 / 9 in the mean."""
    tables = np.random.default_rng(15).random((4000, 10))
    found = np.mean([stats.expected_best(values, 8) for values in tables])
    replaced = np.mean([stats.expected_best_with_replacement(values, 8) for values in tables])
    assert found == pytest.approx(8 / 9, abs=0.005)
    assert replaced < 8 / 9 - 0.02


def test_the_expected_best_of_hundreds_of_trials_is_exact():
    values = np.random.default_rng(17).random(750)
    for k in (1, 16, 512, 750):
        weights = [Fraction(math.comb(i, k - 1), math.comb(750, k)) for i in range(750)]
        exact = sum(w * Fraction(v) for w, v in zip(weights, sorted(values.tolist()), strict=True))
        assert stats.expected_best(values, k) == pytest.approx(float(exact), rel=1e-12)


@pytest.mark.parametrize("k", [1, 4])
def test_the_interval_of_the_expected_best_covers_it(k):
    rng, rounds, hits = np.random.default_rng(16), 300, 0
    truth = rng.beta(4, 2, (20_000, k)).max(1).mean()
    for number in range(rounds):
        (found,) = stats.expected_best_intervals(rng.beta(4, 2, (16, 1)), k, rounds=300, seed=number)
        hits += found.low <= truth <= found.high
    assert 0.85 <= hits / rounds <= 0.99


def test_the_best_of_more_trials_than_there_are_is_refused():
    with pytest.raises(HarnessError, match="The best of 5 trials cannot be had from 4"):
        stats.expected_best(np.arange(4.0), 5)
    with pytest.raises(HarnessError, match="takes 8 of them, not 4"):
        stats.expected_best_intervals(np.arange(4.0)[:, None], 2)


def test_the_intervals_of_many_searches_are_those_of_resampled_trials():
    values, rng = np.random.default_rng(18).random((24, 3)), np.random.default_rng(19)
    found = stats.expected_best_intervals(values, 6)
    for own, interval in zip(values.T, found, strict=True):
        draws = [stats.expected_best(rng.choice(own, 24), 6) for _ in range(2000)]
        assert interval.mean == pytest.approx(stats.expected_best(own, 6), abs=1e-12)
        assert (interval.low, interval.high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.02)


# --- Holm ------------------------------------------------------------------------------------------------------


def test_holm_agrees_with_a_hand_example():
    """Sorted .005, .01, .03, .04 times 4, 3, 2, 1: .02, .03, .06, .04, and none below the one before it."""
    assert stats.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_rejects_what_stepping_down_rejects(p):
    adjusted = stats.holm(np.array(p))
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


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((0, 2)), np.array([[0.1], [np.nan]])])
def test_scores_that_are_no_finite_table_are_refused(values):
    with pytest.raises(HarnessError, match="Scores are finite numbers of shape"):
        stats.interval(values)


def test_rows_of_different_users_are_not_compared():
    with pytest.raises(HarnessError, match="needs the same users; it is given 5 and 6"):
        stats.compare(np.zeros((5, 1)), np.zeros((6, 1)))


def test_draws_of_another_size_are_refused():
    with pytest.raises(HarnessError, match=r"values of \(5, 2\) users and seeds, but draws for \(6, 2\)"):
        stats.bootstrap(np.zeros((5, 2)), stats.user_draws(6, 10), stats.seed_draws(2, 10))

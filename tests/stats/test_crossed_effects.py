"""Crossed random effects against simulations with a known truth, scipy, and recomputations written here."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from harness.stats import crossed_effects, resampling, sign_flips, student_t
from harness.stats.crossed_effects import CrossedRows, ScoreSummary, compare, summary
from harness.types import HarnessError

GAINS = 1 / np.log2(2 + np.arange(10))


def hits(rng: np.random.Generator, n: int, shape: tuple[int, int], seed_sd: float, noise: float) -> list[np.ndarray]:
    """Scores (U, S) of n equally good rows that resemble NDCG@10: most users have no hit. `seed_sd` / .05: standard
    deviation of a seed's factor on all chances; `noise`: share of a user's luck that each seed draws afresh."""
    users, seeds = shape
    chance = rng.beta(0.25, 4, users).astype(np.float32)
    factor = np.maximum(1 + rng.normal(0, seed_sd / 0.05, (n, seeds, 1)), 0).astype(np.float32)
    luck = rng.random((n, seeds, users), np.float32)
    if noise < 1:
        kept = rng.random((n, 1, users), np.float32)
        luck = np.where(rng.random((n, seeds, users), np.float32) < noise, luck, kept)
    reach = np.minimum(chance * factor, 1)
    scores, hit = np.zeros(luck.shape), luck < reach
    scores[hit] = GAINS[(10 * luck[hit] / reach[hit]).astype(int).clip(max=9)]
    return list(scores.transpose(0, 2, 1))


def normal(
    rng: np.random.Generator, n: int, shape: tuple[int, int], seed_sd: float, own: float = 0.1
) -> list[np.ndarray]:
    """Scores (U, S) of n rows of true mean 1: users' effects common to the rows, those of row and user, of seeds, and
    noise of a user under a seed of standard deviation .1."""
    users, seeds = shape
    common = 1 + rng.normal(0, 0.2, (users, 1))
    return [
        common + rng.normal(0, own, (users, 1)) + rng.normal(0, seed_sd, seeds) + rng.normal(0, 0.1, shape)
        for _ in range(n)
    ]


def section(rows: list[np.ndarray]) -> CrossedRows:
    return CrossedRows([summary(row) for row in rows])


# --- level and coverage ----------------------------------------------------------------------------------------

GRID = [
    (seeds, seed_sd, noise)
    for seeds, seed_sd, noise in itertools.product((1, 2, 5), (0.0, 0.01, 0.03), (0.3, 1.0))
    if seeds > 1 or not seed_sd  # how much seeds differ cannot be known from one
]


@pytest.mark.parametrize(("seeds", "seed_sd", "noise"), GRID)
def test_equal_rows_are_called_different_in_one_of_twenty_pairs(seeds, seed_sd, noise):
    """300 users, of whom 18 have a hit in the mean. `benchmarks/significance.py` has 5,000 as well."""
    rng, above = np.random.default_rng(5), np.triu_indices(12, 1)
    claims = [section(hits(rng, 12, (300, seeds), seed_sd, noise)).p[above] < 0.05 for _ in range(400)]
    assert 0.035 <= np.mean(claims) <= 0.055


def drawn(rng: np.random.Generator, n: int, shape: tuple[int, int], sds: tuple[float, float, float]) -> CrossedRows:
    """A section of n equal rows with normal effects, from sufficient statistics; sds: of a row's users, of its seeds
    and of users under seeds."""
    (users, seeds), (own, seed, both) = shape, sds
    wide, df = rng.normal(0, math.hypot(own, both / math.sqrt(seeds)), (n, users)), seeds - 1
    wide += rng.normal(0, seed / math.sqrt(seeds), (n, 1))
    if not df:
        return CrossedRows([ScoreSummary(row, 1) for row in wide])
    parts = (seed**2 + both**2 / users) / seeds * rng.chisquare(df, n) / df
    many = (users - 1) * df
    noise = both**2 / users / seeds * rng.chisquare(many, n) / many
    return CrossedRows([ScoreSummary(row, seeds, p, r) for row, p, r in zip(wide, parts, noise, strict=True)])


@pytest.mark.parametrize(("seeds", "seed_sd", "noise"), GRID)
def test_the_level_is_that_of_5000_users_too(seeds, seed_sd, noise):
    rng, above = np.random.default_rng(2), np.triu_indices(12, 1)
    sds = 0.12 * math.sqrt(1 - noise), seed_sd, 0.12 * math.sqrt(noise)
    claims = [drawn(rng, 12, (5000, seeds), sds).p[above] < 0.05 for _ in range(300)]
    assert 0.035 <= np.mean(claims) <= 0.055


@pytest.mark.parametrize(("own", "seed_sd"), [(0.0, 0.0), (0.1, 0.01), (0.1, 0.1)])
@pytest.mark.parametrize("seeds", [2, 5])
def test_two_rows_that_are_all_there_is_keep_the_level(seeds, own, seed_sd):
    """Two seeds of two rows are the least that a prior can have: by integration, levels lie between .037 and .058."""
    rng = np.random.default_rng(3)
    claims = [drawn(rng, 2, (200, seeds), (own, seed_sd, 0.1)).p[0, 1] < 0.05 for _ in range(1500)]
    assert 0.03 <= np.mean(claims) <= 0.062


@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.1])
@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_intervals_cover_the_truth_in_95_of_100_cases(seeds, seed_sd):
    rng, means, gains, differences = np.random.default_rng(4), [], [], []
    for _ in range(300):
        found = section(normal(rng, 8, (200, seeds), seed_sd if seeds > 1 else 0.0))
        means += [one.low <= 1 <= one.high for one in found.intervals()]
        above = np.triu_indices(8, 1)
        for ends, into in ((found.bounds, differences), (found.gains, gains)):
            into.append((ends[0][above] <= 0) & (ends[1][above] >= 0))
    assert 0.935 <= np.mean(means) <= 0.965
    assert 0.935 <= np.mean(differences) <= 0.965
    assert 0.935 <= np.mean(gains) <= 0.965


def test_rows_whose_seeds_differ_unequally_are_not_pooled():
    rng = np.random.default_rng(4)
    calm, wild = normal(rng, 10, (100, 5), 0.0), normal(rng, 2, (100, 5), 0.3)
    found = section(calm + wild)
    assert found.prior is not None
    assert np.isfinite(found.prior.df)
    assert found.seed[:10].max() < found.seed[10:].min() / 10


# --- the closed form -------------------------------------------------------------------------------------------


def by_hand(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Variance of a difference and its degrees of freedom, by loops, the seeds' parts pooled."""
    users, parts, residuals, seeds = len(a), [], [], [a.shape[1], b.shape[1]]
    for x, many in zip((a, b), seeds, strict=True):
        column = [x[:, s].mean() for s in range(many)]
        noise = sum((x[u, s] - x[u].mean() - column[s] + x.mean()) ** 2 for u in range(users) for s in range(many))
        parts.append(sum((one - x.mean()) ** 2 for one in column) / (many - 1) / many)
        residuals.append(noise / (users - 1) / (many - 1) / users / many)
    df = sum(seeds) - 2
    excess = sum((s - 1) * s * (p - r) for s, p, r in zip(seeds, parts, residuals, strict=True)) / df
    expected = [r + max(excess, 0) / s for s, r in zip(seeds, residuals, strict=True)]
    scale = sum((s - 1) * p / e for s, p, e in zip(seeds, parts, expected, strict=True)) / df
    seed = scale * sum(expected)
    differences = [a[u].mean() - b[u].mean() for u in range(users)]
    user = sum((d - a.mean() + b.mean()) ** 2 for d in differences) / (users - 1) / users - sum(residuals)
    total = max(user, 0) + seed
    return total, 1 / (max(user, 0) / total / (users - 1) + seed / total / df)


@pytest.mark.parametrize("seeds", [(5, 5), (2, 5), (3, 2)])
def test_a_difference_is_what_the_formulas_say(seeds):
    rng = np.random.default_rng(5)
    a, b = (normal(rng, 1, (60, s), 0.02)[0] for s in seeds)
    found, (variance, df) = compare(a, b), by_hand(a, b)
    assert found.mean == pytest.approx(a.mean() - b.mean())
    assert found.error == pytest.approx(math.sqrt(variance))
    assert found.df == pytest.approx(df)
    assert found.p == pytest.approx(2 * reference.t.sf(abs(found.mean) / found.error, df))
    half = reference.t.ppf(0.975, df) * found.error
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half))


@given(users=st.integers(30, 200), shift=st.floats(-1, 1), seed=st.integers(0, 99))
def test_with_one_seed_the_test_is_the_paired_t_test(users, shift, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.random((users, 1)), rng.random((users, 1)) + shift
    found, t = compare(a, b), reference.ttest_rel(a[:, 0], b[:, 0])
    assert found.p == pytest.approx(t.pvalue, rel=1e-6)
    ends = t.confidence_interval()
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high), abs=1e-9)


def test_with_one_seed_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).random((500, 1))
    (found,) = CrossedRows([summary(values)]).intervals()
    half = reference.t.ppf(0.975, 499) * values.std(ddof=1) / math.sqrt(500)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


def test_the_order_of_users_of_seeds_and_of_rows_is_nothing():
    rng = np.random.default_rng(6)
    rows = hits(rng, 4, (300, 5), 0.01, 0.5)
    order, turned = rng.permutation(300), [3, 1, 0, 2]
    one, other = section(rows), section([rows[i][order][:, ::-1] for i in turned])
    assert other.p == pytest.approx(one.p[np.ix_(turned, turned)], rel=1e-9)
    assert np.array(other.gains) == pytest.approx(np.array(one.gains)[:, turned][:, :, turned], rel=1e-8, nan_ok=True)


@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 10_000))
def test_an_interval_leaves_out_0_exactly_where_p_is_below_5_percent(users, seeds, seed):
    rng = np.random.default_rng(seed)
    found = section([rng.random((users, seeds)) + rng.choice([0, 0.1, 0.2]) for _ in range(4)])
    for low, high in (found.bounds, found.gains):
        left_out = (low > 0) | (high < 0)
        known = np.isfinite(low)
        assert (left_out == (found.p < 0.05))[known].all()
    assert found.p == pytest.approx(found.p.T)
    assert np.isfinite(found.p).all()


def test_gains_are_the_ratios_that_a_test_does_not_reject():
    """Fieller: at each end theta, mean(a) - theta mean(b) is t standard errors from 0."""
    rng = np.random.default_rng(7)
    a, b = rng.random((200, 1)) + 0.1, rng.random((200, 1))
    low, high = (ends[0, 1] / 100 + 1 for ends in section([a, b]).gains)
    assert low < a.mean() / b.mean() < high
    for theta in (low, high):
        left = (a - theta * b)[:, 0]
        assert abs(left.mean()) / (left.std(ddof=1) / math.sqrt(200)) == pytest.approx(
            reference.t.ppf(0.975, 199), rel=1e-6
        )


def test_a_gain_over_a_row_that_may_be_nothing_has_no_bound():
    rng = np.random.default_rng(8)
    nothing, rare = np.zeros((100, 2)), (rng.random((100, 2)) < 0.01).astype(float)
    low, high = section([rng.random((100, 2)), nothing, rare]).gains
    assert np.isnan(low[0, 1])
    assert np.isnan(high[0, 2])
    assert np.isfinite(low[1, 0])


# --- one seed beside several, and none that differ -----------------------------------------------------------------


def firsts(users: int, *seeds: range) -> np.ndarray:
    """Scores (U, S) of a row that ranks the targets of these users first, and no others."""
    scores = np.zeros((users, len(seeds)))
    for s, found in enumerate(seeds):
        scores[list(found), s] = 1
    return scores


def test_equal_totals_of_all_seeds_do_not_say_that_seeds_agree():
    """Few hits, of other users in each seed: 4 against 10 of 120 are no difference (Fisher's exact test: p = .17)."""
    rows = [firsts(60, range(2), range(2, 4)), firsts(60, range(10, 15), range(20, 25))]
    found = CrossedRows([summary(scores) for scores in rows])
    assert found.difference(1, 0).p > 0.1
    assert all(interval.high - interval.low > 0.05 for interval in found.intervals())
    alone = CrossedRows([summary(rows[0]), summary(np.zeros((60, 1)), deterministic=True)])
    assert alone.difference(0, 1).p > 0.02, "also beside a baseline"


def test_a_gain_lies_within_its_interval_and_a_score_within_0_and_1():
    """Rows of few hits, whose clipped variances can be impossible together."""
    outside = 0
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        rates = (0.03, 0.15)
        scores = [(rng.random((60, 2)) < rate) * GAINS[rng.integers(0, 10, (60, 2))] for rate in rates]
        found = CrossedRows([summary(row) for row in scores])
        low, high = (bound[1, 0] for bound in found.gains)
        if np.isfinite(low):
            outside += not low <= 100 * (found.means[1] / found.means[0] - 1) + 1e-9 <= high + 2e-9
    assert not outside
    few = CrossedRows([summary(firsts(8, range(7)))])
    assert few.intervals()[0].high == 1


def test_a_row_with_one_seed_borrows_what_seeds_of_the_others_differ_by():
    rng = np.random.default_rng(10)
    rows = normal(rng, 6, (300, 5), 0.1)
    several, single = section(rows), section([*rows[:5], rows[5][:, :1]])
    assert single.seed[5] == pytest.approx(5 * several.seed[5], rel=0.5)
    assert single.difference(0, 5).error > 1.3 * several.difference(0, 5).error
    assert section([row[:, :1] for row in rows]).seed.tolist() == [0] * 6


def test_a_row_with_one_seed_beside_others_with_five_keeps_the_level():
    rng, claims = np.random.default_rng(11), []
    for _ in range(400):
        rows = hits(rng, 8, (300, 5), 0.03, 0.5)
        claims.append(section([rows[0][:, :1], *rows[1:]]).p[0, 1:] < 0.05)
    assert 0.03 <= np.mean(claims) <= 0.065


def test_a_row_with_one_seed_beside_a_single_row_with_several_does_not_take_seeds_for_equal():
    """The excess is estimated from four degrees of freedom, so the level is kept only roughly."""
    rng, claims, pairs = np.random.default_rng(14), [], []
    for _ in range(400):
        rows = normal(rng, 3, (300, 5), 0.02, 0.0)
        claims.append(section([rows[0][:, :1], rows[1]]).p[0, 1] < 0.05)
        pairs.append(section([rows[0][:, :1], rows[1], rows[2][:, :1]]).p[0, 2] < 0.05)
    assert np.mean(claims) <= 0.12
    assert np.mean(pairs) <= 0.12


def test_a_baseline_neither_borrows_nor_lends():
    rng = np.random.default_rng(12)
    rows, baseline = normal(rng, 4, (100, 5), 0.1), rng.random((100, 1))
    found = CrossedRows([*(summary(row) for row in rows), summary(baseline, deterministic=True)])
    assert found.seed[4] == 0
    assert found.prior == section(rows).prior
    assert summary(np.repeat(baseline, 3, 1)).deterministic


def test_a_row_does_not_differ_from_itself_or_from_its_like():
    rng = np.random.default_rng(13)
    a = rng.random((300, 5))
    found = section([a, a.copy(), a[:, ::-1], rng.random((300, 5))])
    assert (found.p[:3, :3] == 1).all()
    assert found.difference(0, 1).mean == 0
    assert found.difference(2, 2).low <= 0 <= found.difference(2, 2).high


def test_rows_that_differ_alike_for_all_users_differ():
    a = np.random.default_rng(14).random((300, 1))
    found = section([a + 0.01, a, a])
    assert found.p[0, 1] < 1e-80
    assert found.p[1, 2] == 1
    assert [float(x) for x in found.difference(0, 1).__dict__.values()][-2:] == pytest.approx([0.01, 0.01])


def test_rows_that_differ_in_one_of_5000_users_are_told_apart_from_equal_ones_by_their_variance():
    """The variance of the difference is a 1e-8th of the rows': subtracting covariances would lose it."""
    a = 1000 * np.random.default_rng(15).random((5000, 1))
    b = a.copy()
    b[7] += 0.5
    assert section([a, b]).difference(0, 1).error == pytest.approx(0.5 / 5000, rel=1e-6)
    assert compare(a, b).p == pytest.approx(reference.ttest_rel(a[:, 0], b[:, 0]).pvalue, rel=1e-6)


# --- tails and families ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [32, 33, 60, 400])
def test_rows_that_all_differ_have_letters_of_their_own(n):
    rng = np.random.default_rng(16)
    users = rng.normal(0, 0.2, (800, 1))
    rows = [users + 0.01 * i + rng.normal(0, 0.01, (800, 2)) for i in range(n)]
    found = section(rows)
    above = np.triu_indices(n, 1)
    assert found.p[above].max() < 1e-12
    letters = resampling.letters(resampling.holm_pairs(found.p) < 0.05)
    assert len(set(letters)) == n
    assert letters[0] == "a"
    assert found.too_few(len(above[0])) == ""


def test_tails_are_those_of_exact_arithmetic():
    import mpmath

    mpmath.mp.dps = 40
    for t, df in itertools.product((1.0, 7.0, 30.0, 36.0), (2.5, 8.0, 299.0, 4999.0)):
        z = mpmath.mpf(df) / (df + mpmath.mpf(t) ** 2)
        exact = mpmath.betainc(mpmath.mpf(df) / 2, mpmath.mpf(1) / 2, 0, z, regularized=True)
        if exact > 1e-300:
            assert student_t.two_sided(np.array(t), np.array(df)) == pytest.approx(float(exact), rel=1e-9)


def test_p_values_below_the_smallest_float_are_0_and_stay_so():
    p = student_t.two_sided(np.array([30.0, 37.0, 1000.0]), np.array([1e6, np.inf, 1e5]))
    assert (np.diff(p) < 0).all()
    assert p[-1] == 0
    assert resampling.holm(np.array([0.0, 1e-300, 0.5])).tolist() == [0, pytest.approx(2e-300), 0.5]


@given(st.floats(1, 1e12), st.sampled_from([0.8, 0.975, 1 - 0.025 / 79_800]))
def test_quantiles_are_where_the_tail_begins(df, p):
    q = student_t.quantile(p, np.array(df))
    assert student_t.two_sided(q, np.array(df)) == pytest.approx(2 * (1 - p), rel=1e-6)


# --- few users -------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=8))
def test_sign_flips_of_few_users_are_all_tried(values):
    d = np.array(values, np.float64)
    sums = [abs(np.dot(signs, d)) for signs in itertools.product((-1, 1), repeat=len(d))]
    exact = np.mean(np.array(sums) >= abs(d.sum()))
    p, _, _ = sign_flips.test(sign_flips.means(d[:, None]), 0.05)
    assert p[0] == pytest.approx(exact)


@given(st.integers(6, 20), st.integers(0, 10_000))
def test_the_interval_of_sign_flips_holds_the_centres_that_they_do_not_reject(users, seed):
    d = np.random.default_rng(seed).normal(0.3, 1, (users, 1))
    _, low, high = sign_flips.test(sign_flips.means(d), 0.05)
    step = 1e-6
    for end, outwards in ((low, -step), (high, step)):
        assert sign_flips.test(sign_flips.means(d - end[0]), 0.05)[0][0] >= 0.05
        assert sign_flips.test(sign_flips.means(d - end[0] - outwards), 0.05)[0][0] < 0.05


def test_few_users_need_both_tests_to_agree():
    rng, level = np.random.default_rng(17), []
    for _ in range(400):
        a, b = rng.random((12, 1)) ** 4, rng.random((12, 1)) ** 4
        found = compare(a, b)
        assert found.p >= reference.ttest_rel(a[:, 0], b[:, 0]).pvalue - 1e-9
        level.append(found.p < 0.05)
    assert np.mean(level) < 0.06


def test_one_or_two_users_show_nothing():
    one, two = section([np.ones((1, 2)), np.zeros((1, 2))]), section([np.ones((2, 2)), np.zeros((2, 2))])
    assert one.p[0, 1] == 1
    assert two.p[0, 1] == 0.5
    for found in (one, two):
        assert np.isnan([found.difference(0, 1).low, found.difference(0, 1).high]).all()
        assert [interval.mean for interval in found.intervals()] == [1, 0]
    assert "2 test users cannot resolve 1 tests: the smallest p-value is 0.5" in two.too_few(1)


def test_a_family_too_large_for_its_users_says_so():
    rows = [np.full((20, 1), 0.1 * i) for i in range(40)]
    found = section(rows)
    assert "20 test users cannot resolve 780 tests" in found.too_few(780)
    assert found.too_few(39) == ""
    assert section([np.zeros((30, 1))] * 2).too_few(10**6) == ""


# --- stability, detectable differences -----------------------------------------------------------------------------


def test_how_often_a_row_stays_first_is_the_chance_that_its_mean_is_highest():
    """Two independent rows: P(first) is that of a normal difference beyond 0."""
    rng = np.random.default_rng(18)
    a, b = rng.normal(0.02, 0.2, (400, 1)), rng.normal(0, 0.2, (400, 1))
    found = section([a, b])
    shares = found.firsts(resampling.user_draws(400, 4000), [1, 2])
    one = found.difference(0, 1)
    assert shares.sum() == pytest.approx(1)
    assert shares[0] == pytest.approx(reference.norm.cdf(one.mean / one.error), abs=0.03)
    assert np.array_equal(shares, found.firsts(resampling.user_draws(400, 4000), [1, 2]))


def test_seeds_count_towards_how_often_a_row_stays_first():
    rng = np.random.default_rng(19)
    rows = [row + shift for row, shift in zip(normal(rng, 2, (400, 3), 0.0, 0.0), (0.02, 0.0), strict=True)]
    wild = [row + np.array([-0.1, 0.0, 0.1]) for row in rows]
    draws = resampling.user_draws(400)
    assert section(rows).firsts(draws, [1, 2])[0] > 0.99
    assert 0.5 < section(wild).firsts(draws, [1, 2])[0] < 0.9
    tied = section([rows[0], rows[0], rows[1]])
    assert CrossedRows([ScoreSummary(row.users, 1) for row in tied.rows]).firsts(draws, [1, 2, 3]) == pytest.approx(
        [0.5, 0.5, 0], abs=0.01
    )


@pytest.mark.parametrize("tests", [1, 45])
def test_a_difference_of_the_detectable_size_is_found_in_four_of_five_tables(tests):
    rng, rounds, found = np.random.default_rng(20), 300, 0
    size = np.mean([section(normal(rng, 6, (100, 4), 0.01)).difference(0, 1).detectable(tests) for _ in range(50)])
    for _ in range(rounds):
        rows = normal(rng, 6, (100, 4), 0.01)
        found += section([rows[0] + size, *rows[1:]]).p[0, 1] < 0.05 / tests
    assert 0.73 < found / rounds < 0.87


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [np.zeros(5), np.zeros((0, 2)), np.array([[0.1], [np.nan]])])
def test_scores_that_are_no_finite_table_are_refused(values):
    with pytest.raises(HarnessError, match="Scores must be finite numbers of shape"):
        summary(values)


def test_rows_of_different_users_are_refused():
    with pytest.raises(HarnessError, match="must have the same users"):
        compare(np.zeros((5, 1)), np.zeros((6, 1)))
    with pytest.raises(HarnessError, match="at least one row"):
        CrossedRows([])
    assert crossed_effects.fit_prior([]) is None


@pytest.mark.parametrize("seeds", [1, 2, 5, 9])
def test_rows_that_are_summarised_together_are_those_of_each(seeds):
    scores = np.random.default_rng(0).random((40, 7, seeds)).round(3)
    scores[:, 3] = scores[:, 3, :1]  # all seeds alike
    for at, row in enumerate(crossed_effects.summaries(scores)):
        alone = crossed_effects.summary(np.ascontiguousarray(scores[:, at]))
        assert np.array_equal(row.users, alone.users)
        assert (row.seeds, row.seed, row.residual) == (alone.seeds, alone.seed, alone.residual)
        assert (row.deterministic, row.mean) == (alone.deterministic, alone.mean)

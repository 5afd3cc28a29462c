"""Statistics over test windows, against simulations with a known truth and recomputations written here."""

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from harness.stats.fold_effects import FoldRows, compare, summary
from harness.stats.folds import FOLD, Folds
from harness.types import HarnessError


def layout(rng, folds, users, share):
    """The keys of `folds` folds in which each of `users` users has a target with the chance `share`."""
    chosen = [np.flatnonzero(rng.random(users) < share) for _ in range(folds)]
    return Folds.of(np.concatenate([fold * FOLD + one for fold, one in enumerate(chosen)]))


def simulated(rng, folds, rows=2, fold_sd=0.05, user_sd=0.3):
    """Scores (U, 2) of rows of true mean 1: effects of row and fold, of row and user, of seeds in a fold, and noise."""
    k, users = len(folds.counts), folds.user.max() + 1
    common = rng.normal(0, 0.1, k)[folds.fold] + rng.normal(0, 0.3, users)[folds.user]
    for _ in range(rows):
        own = rng.normal(0, fold_sd, k)[folds.fold] + rng.normal(0, user_sd, users)[folds.user]
        seeds = rng.normal(0, 0.02, (k, 2))[folds.fold]
        yield 1 + (common + own)[:, None] + seeds + rng.normal(0, 0.3, (len(folds.fold), 2))


@pytest.mark.parametrize(
    ("k", "fold_sd", "share"), [*itertools.product((2, 3, 5), (0.0, 0.1), (0.3,)), (3, 0.0, 1.0), (5, 0.02, 1.0)]
)
def test_intervals_cover_the_truth_and_equal_rows_rarely_differ(k, fold_sd, share):
    rng = np.random.default_rng(k)
    covered, rejected, rounds = 0, 0, 600
    for _ in range(rounds):
        folds = layout(rng, k, 100, share)
        rows = FoldRows([summary(scores, folds) for scores in simulated(rng, folds, fold_sd=fold_sd)])
        mean = rows.intervals()[0]
        covered += mean.low <= 1 <= mean.high
        rejected += rows.p[0, 1] < 0.05
    assert 0.93 <= covered / rounds <= 1
    assert rejected / rounds <= 0.07


@pytest.mark.parametrize("k", [2, 4])
def test_with_other_users_in_every_fold_it_is_the_paired_t_test_of_the_fold_means(k):
    rng = np.random.default_rng(1)
    folds = Folds.of(np.concatenate([fold * FOLD + np.arange(20) + 20 * fold for fold in range(k)]))
    a, b = simulated(rng, folds)
    means = [np.array([x[folds.fold == fold].mean() for fold in range(k)]) for x in (a, b)]
    found = compare(a, b, folds)
    assert found.mean == pytest.approx(means[0].mean() - means[1].mean(), abs=1e-11)
    assert found.p == pytest.approx(reference.ttest_rel(*means).pvalue, rel=1e-6)
    assert found.df == pytest.approx(k - 1)


@pytest.mark.parametrize(("k", "known"), [(2, False), (3, False), (5, True)])
def test_how_often_a_row_is_first_needs_five_folds(k, known):
    """Resamples of k - 1 of three folds take six values: they would call one of two equal rows the first in all."""
    rng = np.random.default_rng(k)
    folds = layout(rng, k, 100, 0.3)
    rows = FoldRows([summary(scores, folds) for scores in simulated(rng, folds)])
    first = rows.firsts(folds.draws(), [1, 2])
    assert np.isnan(first).all() != known
    assert not known or first.sum() == pytest.approx(1)


def test_two_folds_have_one_degree_of_freedom_and_a_wide_interval():
    folds = layout(np.random.default_rng(2), 2, 200, 0.2)
    a, b = simulated(np.random.default_rng(3), folds)
    found = compare(a, b, folds)
    assert found.df == 1
    assert found.high - found.low > 12 * found.error


def test_users_in_several_folds_widen_the_interval():
    rng = np.random.default_rng(4)
    same = Folds.of(np.concatenate([fold * FOLD + np.arange(50) for fold in range(3)]))
    apart = Folds.of(np.concatenate([fold * FOLD + np.arange(50) + 50 * fold for fold in range(3)]))
    a, b = simulated(rng, same, fold_sd=0.0, user_sd=0.5)
    variances = [FoldRows([summary(x, folds) for x in (a, b)]).pairs[0][0, 1] for folds in (same, apart)]
    assert variances[0] > 1.5 * variances[1]


def test_every_fold_has_equal_weight_whatever_its_users():
    folds = Folds.of(np.array([0, 1, 2, FOLD]))
    assert summary(np.array([[0.0], [0.0], [0.0], [1.0]]), folds).mean == 0.5
    draws = folds.draws(1000)
    assert draws.shape == (1000, 4)
    means = draws @ np.array([0.0, 0.0, 0.0, 1.0]) / 4
    assert set(means.round(9)) == {0.0, 1.0}
    assert means.mean() == pytest.approx(0.5, abs=0.06)


def test_equal_rows_do_not_differ_and_one_fold_is_refused():
    folds = layout(np.random.default_rng(5), 3, 50, 0.5)
    [a] = simulated(np.random.default_rng(6), folds, rows=1)
    found = compare(a, a, folds)
    assert (found.mean, found.p, found.low, found.high) == (0, 1, 0, 0)
    with pytest.raises(HarnessError, match="at least two folds"):
        compare(a[folds.fold == 0], a[folds.fold == 0], Folds.of(folds.user[folds.fold == 0]))

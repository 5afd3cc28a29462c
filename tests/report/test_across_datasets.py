"""Comparisons over data sets: on common cells alone, and no more claimed than a few data sets can carry."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_results import cell, results, targets

from harness.report.tables import build, render
from harness.report.tables._across import across, common, critical_difference, studentized_range
from harness.report.tables._scores import RowScores, metrics
from harness.stats.crossed_effects import summary
from harness.types import Cell

METHODS = ("id", "svd", "mlp")


def sampled(means: dict[str, float], noise: float, rng: np.random.Generator, dataset: str, rounds: int = 200):
    """Rows of one data set that scored so, with resampled means around it."""
    found = {}
    for adapter, mean in means.items():
        draws = mean + rng.normal(0, noise, rounds)
        scores = tuple(summary(np.full((3, 1), mean)) for _ in metrics())
        own = Cell(dataset, "none" if adapter == "id" else "minilm", "sasrec", adapter)
        found[adapter, own.encoder] = RowScores(own, scores, draws, 0)
    return found


def benches(datasets: int, rng: np.random.Generator, effects=(0.0, 0.02, 0.04), spread=0.01, noise=0.002):
    return {
        f"set{d:02d}": sampled(
            {name: 0.2 + e + rng.normal(0, spread) for name, e in zip(METHODS, effects, strict=True)},
            noise,
            rng,
            str(d),
        )
        for d in range(datasets)
    }


def test_mean_ranks_and_wins_are_those_of_the_means():
    made = benches(4, np.random.default_rng(0))
    found = across("sasrec", made)
    assert found is not None
    for standing in found.standings:
        key = (standing.adapter, standing.encoder)
        ranks = [1 + sum(o.headline > own[key].headline for o in own.values()) for own in made.values()]
        assert standing.rank.mean == pytest.approx(np.mean(ranks))
        assert standing.wins.mean == pytest.approx((3 - np.mean(ranks)) / 2)
        assert standing.rank.low <= standing.rank.mean <= standing.rank.high
    assert [s.rank.mean for s in found.standings] == sorted(s.rank.mean for s in found.standings)


def test_few_data_sets_get_no_elo_and_a_sentence_says_why():
    few = across("sasrec", benches(9, np.random.default_rng(1)))
    assert few is not None
    assert few.critical_difference is None
    assert {s.elo for s in few.standings} == {None}
    assert {s.group for s in few.standings} == {""}
    assert "they need 10 data sets, not 9" in few.too_few


def test_from_ten_data_sets_on_there_is_elo_and_a_critical_difference():
    found = across("sasrec", benches(12, np.random.default_rng(2)))
    assert found is not None
    assert found.too_few == ""
    assert found.critical_difference == pytest.approx(critical_difference(3, 12))
    elo = [s.elo.mean for s in found.standings]
    assert elo == sorted(elo, reverse=True)
    assert np.mean(elo) == pytest.approx(1000, abs=1e-6)
    assert all(np.isfinite([s.elo.low, s.elo.high]).all() for s in found.standings)
    for a, b in itertools.combinations(found.standings, 2):
        near = abs(a.rank.mean - b.rank.mean) <= found.critical_difference
        assert bool(set(a.group) & set(b.group)) == near


def test_elo_is_the_maximum_of_the_likelihood_of_the_wins():
    """By a plain search over the one free rating of two methods: 9 wins of 12, and a tie added."""
    rng = np.random.default_rng(3)
    made = {f"{d}": sampled({"id": 0.2, "svd": 0.21 if d < 9 else 0.19}, 1e-9, rng, str(d)) for d in range(12)}
    found = across("sasrec", made)
    best, other = (s.elo.mean for s in found.standings)
    grid = np.linspace(0, 600, 6001)
    p = 1 / (1 + 10 ** (-grid / 400))
    likelihood = 9.5 * np.log(p) + 3.5 * np.log(1 - p)
    assert best - other == pytest.approx(grid[likelihood.argmax()], abs=0.2)


@pytest.mark.parametrize("k", [2, 3, 10, 40])
def test_the_studentized_range_is_that_of_scipy(k):
    from scipy.stats import studentized_range as oracle

    assert studentized_range(k) == pytest.approx(oracle.ppf(0.95, k, np.inf), abs=1e-3)


def test_the_critical_difference_is_that_of_the_worked_example():
    """Demšar 2006, section 3.2.2: four classifiers on 14 data sets, 1.25 after q = 2.569."""
    assert critical_difference(4, 14) == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=2e-3)


def test_intervals_of_mean_ranks_cover_the_truth_about_as_often_as_they_say():
    """Data sets drawn from a population in which the three methods' effects vary; the truth by many draws."""
    rng = np.random.default_rng(4)
    many = 0.2 + np.array([0.0, 0.005, 0.02]) + rng.normal(0, 0.01, (20_000, 3))
    truth = dict(zip(METHODS, (1 + (many[:, :, None] < many[:, None, :]).sum(2)).mean(0), strict=True))
    hits = total = 0
    for _ in range(120):
        found = across("sasrec", benches(12, rng, effects=(0.0, 0.005, 0.02), spread=0.01))
        for s in found.standings:
            hits += s.rank.low <= truth[s.adapter] <= s.rank.high
            total += 1
    assert 0.87 <= hits / total <= 0.995


@given(st.dictionaries(st.sampled_from("wxyz"), st.sets(st.sampled_from("abcd").map(lambda n: (n, "none")))))
def test_what_is_compared_has_a_result_everywhere(known):
    datasets, methods = common(known)
    assert not datasets or (len(datasets) >= 2 and len(methods) >= 2)
    assert all(set(methods) <= known[name] for name in datasets)
    choices = [c for size in range(2, len(known) + 1) for c in itertools.combinations(known, size)]
    shared = [(names, set.intersection(*(known[name] for name in names))) for names in choices]
    most = max((len(names) * len(own) for names, own in shared if len(own) >= 2), default=0)
    assert len(datasets) * len(methods) == most


def test_holes_leave_the_comparison_and_are_named():
    rows = {}
    for name, shift in (("one", 0.0), ("two", 0.3), ("three", 0.1)):
        rows[name, "none", "sasrec", "id"] = [targets(shift + 0.2)]
        rows[name, "minilm", "sasrec", "svd"] = [targets(shift)]
    rows["one", "minilm", "sasrec", "mlp"] = [targets(0.1)]
    holes = [cell((name, "minilm", "sasrec", "mlp"), "pending", seeds_done=0) for name in ("two", "three")]
    table = build(results(rows, [*(cell(key) for key in rows), *holes]))
    [found] = table.across
    assert found.datasets == ("one", "three", "two")
    assert [s.adapter for s in found.standings] == ["svd", "id"]
    assert found.left_out == ("mlp · minilm (no result on three, two)",)
    for name in ("md", "terminal", "tex"):
        assert "no result on three, two" in render(table, name)
        assert "they need 10 data sets, not 3" in render(table, name)
    assert found.standings[0].gain.mean == pytest.approx(np.mean([r.vs_id.percent for r in svds(table)]))


def svds(table):
    return [row for section in table.sections for row in section.rows if row.cell.adapter == "svd"]


def test_one_data_set_is_no_comparison():
    rows = {("one", "none", "sasrec", "id"): [targets(0.2)], ("one", "minilm", "sasrec", "svd"): [targets(0.0)]}
    assert build(results(rows)).across == ()

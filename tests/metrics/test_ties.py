"""Tied targets: every metric is its expectation over the order of the tie, in trials, tables and records alike."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_results import HEADER, cell, results, seeds

from harness import registry
from harness.metrics._all import CUTOFFS, means, per_user, per_user_of_runs
from harness.metrics._ties import Ranks, expected
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report.ledger_frames import build as frames_of
from harness.report.tables import Results, build, formats, render
from harness.search import plan
from harness.types import HarnessError, digest

ID, SVD = ("beauty", "none", "sasrec", "id"), ("beauty", "minilm", "sasrec", "svd")
OLD = Path(__file__).parents[1] / "golden" / "ledgers" / "schema-1-with-opened.jsonl"


def over_all_orders(metric: str, low: int, high: int, k: int) -> float:
    """Brute force: the mean over every order of the tied items, the target one of them."""
    tied = range(high - low + 1)
    places = [low + order.index(0) for order in itertools.permutations(tied)]
    return float(np.mean(registry.load(registry.METRICS, metric)(np.array(places, float), k)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 24), st.integers(0, 5)), min_size=1, max_size=6))
def test_a_metric_is_its_mean_over_all_orders_of_the_tie(ties):
    low = np.array([first for first, _ in ties], float)
    ranks = Ranks(low, low + np.array([more for _, more in ties]))
    for metric, k in itertools.product(registry.names(registry.METRICS), CUTOFFS):
        oracle = [over_all_orders(metric, first, first + more, k) for first, more in ties]
        assert per_user(ranks, metric, k) == pytest.approx(oracle, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 3000))
def test_long_ties_are_the_plain_mean_over_their_places(low, more):
    ranks = Ranks(np.array([float(low)]), np.array([float(low + more)]))
    for metric, k in itertools.product(registry.names(registry.METRICS), CUTOFFS):
        places = registry.load(registry.METRICS, metric)(np.arange(low, low + more + 1.0), k)
        assert per_user(ranks, metric, k)[0] == pytest.approx(places.mean(), rel=1e-12, abs=1e-15)


def test_a_metric_without_a_cut_off_is_served_too():
    ranks = Ranks(np.array([3.0, 1.0]), np.array([8.0, 1.0]))
    assert expected(lambda places, k: 1 - places / 100, ranks, 10).tolist() == pytest.approx([0.945, 0.99])


@pytest.mark.parametrize(("metric", "span"), [(lambda p, k: 11 - p, "3 to 10"), (lambda p, k: -p / 8, "-1 to -0.125")])
def test_a_metric_outside_0_to_1_is_refused_since_intervals_end_there(metric, span):
    with pytest.raises(HarnessError, match=f"takes values from {span}; they must be from 0 to 1"):
        expected(metric, Ranks.untied(np.array([1.0, 8.0])), 10)


def test_nineteen_items_tied_at_the_top_are_a_hit_at_10_in_10_of_19_cases():
    top = Ranks(np.ones(1), np.full(1, 19.0))
    assert means(top)["HR@10"] == pytest.approx(10 / 19)
    assert means(Ranks.untied(top.middle))["HR@10"] == 1, "the rule of earlier versions"


@pytest.mark.parametrize("size", [2, 3, 5, 19, 39])
def test_a_model_does_not_gain_by_scoring_its_items_in_groups(size):
    """Groups of neighbours in a ranking, in random order within: what a coarse text does to scores."""
    places = np.random.default_rng(0).integers(1, 2000, 20_000).astype(float)
    low = np.floor((places - 1) / size) * size + 1
    coarse, fine = means(Ranks(low, low + size - 1)), means(places)
    for name in ("NDCG@10", "HR@10", "MRR@20"):
        assert coarse[name] <= fine[name] + 4 * np.sqrt(fine[name] / len(places))


def test_users_with_several_targets_get_the_mean_of_their_expectations():
    ranks, users = Ranks(np.array([1.0, 9.0, 1.0]), np.array([2.0, 12.0, 1.0])), np.array([0, 0, 3])
    assert per_user(ranks, "hr", 10, users).tolist() == [(1 + 0.5) / 2, 1.0]


def tied(shift: float, share: float) -> list[Ranks]:
    """Ranks of three seeds in which every other target of a share is tied with nine items."""
    found = []
    for low in seeds(shift):
        some = np.arange(len(low)) < share * len(low)
        found.append(Ranks(low, low + 9 * some))
    return found


def board(share: float) -> Results:
    made = results({ID: seeds(0.4), SVD: seeds(0.1)})
    ranks = pl.concat(
        pl.DataFrame({"trial": "|".join((*SVD, str(k))), "user": np.arange(len(r)), "low": r.low, "high": r.high})
        for k, r in enumerate(tied(0.1, share))
    )
    others = made.ranks.filter(~pl.col("trial").str.starts_with("|".join(SVD)))
    return Results(made.runs, pl.concat([others, ranks]), made.cells, made.header)


def test_a_table_counts_its_tied_targets_and_warns_from_one_percent():
    few, many = build(board(0.005)).sections[0], build(board(0.2)).sections[0]
    by_row = {row.cell.adapter: row.tied for row in many.rows}
    assert by_row == {"svd": pytest.approx(0.2), "id": 0}
    assert few.cautions == ()
    [caution] = many.cautions
    assert caution.startswith("Test targets tied with another item: svd · minilm 20.0 %.")
    for name in formats():
        if name not in ("csv", "parquet"):
            assert "tied with another item: svd" in render(build(board(0.2)), name).replace("{-}", "-")


def test_a_table_ranks_by_the_expectation():
    row = next(row for row in build(board(0.2)).sections[0].rows if row.cell.adapter == "svd")
    assert row.metrics["HR@10"].mean == pytest.approx(np.mean([means(r)["HR@10"] for r in tied(0.1, 0.2)]))


def test_results_of_an_earlier_version_are_named_as_measured_under_the_old_rule(home):
    (home / "ledger").mkdir()
    (home / "ledger" / f"20260101T000000-{OLD.stem}.jsonl").write_bytes(OLD.read_bytes())
    ledger = Ledger.open(home)
    users = np.arange(60)
    old = pl.DataFrame({"user": users.astype(np.int32), "rank": users / 2 + 1})
    table = build(frames_of(ledger, lambda trial_id: artifacts.parse_ranks(_parquet(old))))
    for section in table.sections:
        assert any(text.startswith("Measured with the tie rule of an earlier version") for text in section.cautions)
        assert all(row.metrics["HR@10"].mean == pytest.approx((old["rank"] <= 10).mean()) for row in section.rows)
    assert "ties mid-rank (earlier rule)" in render(table, "md")
    assert all(artifacts.mid_ranked(entry.trial) for entry in ledger.trials.values())


def test_old_and_new_results_never_stand_in_one_table(home):
    """What a bench of today writes has another key than the launches of the earlier rule, whose trials are others."""
    (home / "ledger").mkdir()
    (home / "ledger" / f"20260101T000000-{OLD.stem}.jsonl").write_bytes(OLD.read_bytes())
    [launch] = Ledger.open(home).launches.values()
    protocol, prep, engine, budget = launch.protocol, launch.prep, launch.engine, launch.budget
    was = [protocol.identity(), prep.identity(), budget.epochs, budget.patience, engine.identity()]
    assert digest(was) == launch.table, "the key of an earlier version"
    request = plan.Request(home=home, protocol=protocol, prep=prep, budget=budget, engine=engine)
    assert request.table_key != launch.table
    assert plan.CORE_VERSION >= artifacts.TIES_KEPT


def _parquet(frame: pl.DataFrame) -> bytes:
    import io

    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def test_a_new_table_says_how_it_measured_ties():
    made = results({ID: seeds(0.4)}, [cell(ID)], HEADER | {"ties": "expected"})
    assert "ties expectation over their order" in render(build(made), "terminal")


@pytest.mark.parametrize("block", [1, 7, 2**18])
@pytest.mark.parametrize("users", [None, np.arange(5), np.array([0, 0, 1, 2, 2])], ids=["targets", "users", "several"])
def test_runs_that_are_scored_together_have_the_scores_of_each(monkeypatch, block, users):
    monkeypatch.setattr("harness.metrics._all.BLOCK", block)
    rng = np.random.default_rng(0)
    low = rng.integers(1, 15, (6, 5)).astype(float)
    runs = [Ranks(ranks, ranks + rng.integers(0, 4, 5)) for ranks in low]
    for metric, k in itertools.product(registry.names(registry.METRICS), CUTOFFS):
        alone = np.stack([per_user(ranks, metric, k, users) for ranks in runs], 1)
        assert np.array_equal(per_user_of_runs(runs, metric, k, users), alone)

"""The leaderboard: what it ranks, compares and marks, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from synthetic_results import SCRIPT, cell, hostile, results, row_of, run, seeds, targets

from harness.report.tables import Results, Table, build, formats, render
from harness.report.tables import _captions as words
from harness.report.tables._parity import parity
from harness.types import HarnessError


@pytest.fixture(scope="module")
def table() -> Table:
    return build(hostile())


def test_metrics_are_the_registry_at_5_10_20_with_ndcg_first(table):
    ends = ("5", "10", "20")
    assert table.metrics[:9] == tuple(f"{name}@{k}" for name in ("NDCG", "HR", "MRR") for k in ends)
    assert table.headline == "NDCG@10"


def test_a_row_holds_the_means_that_its_ranks_have(table):
    ranks = hostile().ranks.filter(pl.col("trial").str.starts_with("beauty|minilm|sasrec|svd|"))["low"].to_list()
    oracle = {
        "NDCG@10": math.fsum(1 / math.log2(r + 1) for r in ranks if r <= 10) / len(ranks),
        "HR@20": sum(r <= 20 for r in ranks) / len(ranks),
        "MRR@5": math.fsum(1 / r for r in ranks if r <= 5) / len(ranks),
    }
    for name, mean in oracle.items():
        value = row_of(table, "svd").metrics[name]
        assert value.mean == pytest.approx(mean, rel=1e-9)
        assert value.low < value.mean < value.high


def test_rows_are_ranked_by_headline_with_holes_last(table):
    for section in table.sections:
        means = [row.metrics[table.headline].mean for row in section.rows if row.metrics]
        assert means == sorted(means, reverse=True)
        assert [row.rank for row in section.rows] == [
            *range(1, len(means) + 1),
            *[None] * (len(section.rows) - len(means)),
        ]


def test_there_is_a_section_a_dataset_and_backbone_and_baselines_stand_in_each(table):
    assert [(s.dataset, s.backbone) for s in table.sections] == [
        ("beauty", "gru4rec"),
        ("beauty", "sasrec"),
        ("toys", "sasrec"),
    ]
    for section in table.sections[:2]:
        assert [row.cell.adapter for row in section.rows].count("popularity") == 1
        assert [row.cell.adapter for row in section.rows].count("id") == 1


def test_gain_over_id_is_the_ratio_of_means_inside_its_interval(table):
    best, reference = row_of(table, "svd"), row_of(table, "id", encoder="none")
    expected = 100 * (best.metrics["NDCG@10"].mean / reference.metrics["NDCG@10"].mean - 1)
    assert best.vs_id is not None
    assert best.vs_id.percent == pytest.approx(expected)
    assert best.vs_id.low < expected < best.vs_id.high
    assert reference.vs_id is None


def test_best_rival_is_the_best_other_row_that_is_no_baseline(table):
    assert row_of(table, "svd").vs_rival.against.encoder == "e5"
    assert row_of(table, "svd", encoder="e5").vs_rival.against.encoder == "minilm"
    assert row_of(table, "popularity", encoder="none").vs_rival.against.adapter == "svd"
    assert row_of(table, "id", backbone="gru4rec", encoder="none").vs_rival is None


def test_a_baseline_that_wins_is_best_but_nobodys_rival():
    key = ("beauty", "none", "sasrec", "id")
    built = build(results({("beauty", "none", "none", "popularity"): seeds(0.0), key: seeds(2.0)}))
    first, second = built.sections[0].rows
    assert (first.cell.adapter, first.marks[0]) == ("popularity", "best")
    assert second.vs_rival is None


def test_marks_say_best_second_tied_short_and_differing(table):
    assert set(row_of(table, "svd").marks) == {"best", "differs"}
    assert set(row_of(table, "svd", encoder="e5").marks) == {"second", "tied", "differs"}
    assert "short" in row_of(table, SCRIPT).marks
    assert "tied" not in row_of(table, "popularity", encoder="none").marks


def test_identical_rows_share_the_first_rank_and_are_tied():
    twins = {("beauty", "none", "sasrec", "id"): seeds(0.1), ("beauty", "minilm", "sasrec", "svd"): seeds(0.1)}
    rows = build(results(twins)).sections[0].rows
    assert [row.rank for row in rows] == [1, 1]
    assert "tied" in rows[1].marks
    other = next(row for row in rows if row.cell.adapter == "svd")
    assert other.vs_id.percent == 0
    assert other.vs_id.p == 1


def test_a_gain_that_rests_on_one_lucky_seed_is_not_called_a_difference():
    lucky = [targets(0.0), targets(0.6), targets(0.6)]
    rows = {("beauty", "none", "sasrec", "id"): [targets(0.6)] * 3, ("beauty", "minilm", "sasrec", "svd"): lucky}
    best = build(results(rows)).sections[0].rows[0]
    assert best.cell.adapter == "svd"
    assert best.vs_id.percent > 5
    assert best.vs_id.low <= 0
    assert "differs" not in best.marks


def test_gain_over_a_row_that_scores_nothing_is_left_open():
    rows = {
        ("beauty", "none", "sasrec", "id"): [np.full(50, 900.0)],
        ("beauty", "e", "sasrec", "svd"): [np.full(50, 1.0)],
    }
    table = build(results(rows))
    first = table.sections[0].rows[0]
    assert first.metrics["NDCG@10"].mean == 1
    assert first.vs_id is None
    assert "differs" in first.marks
    assert "–\\*" in render(table, "md"), "no ratio, but its test"


def test_the_order_of_the_frames_does_not_matter(table):
    made = hostile()
    turned = Results(made.runs.reverse(), made.ranks.reverse(), made.cells.reverse(), made.header)
    assert build(turned) == table


def test_diagnostics_are_means_over_seeds_and_not_numbers_become_null():
    key = ("beauty", "none", "sasrec", "id")
    made = results({key: seeds(0.1, 2)})
    runs = [run(key, 0, info={"isotropy": 1.0, "note": "x"}), run(key, 1, info={"isotropy": 2.0, "note": "y"})]
    runs[0] |= {"effective_rank": float("nan"), "info": '{"isotropy": 1.0, "alignment": NaN, "note": "x"}'}
    fit = build(Results(pl.DataFrame(runs), made.ranks, made.cells, {})).sections[0].rows[0].fit
    assert fit.info == {"isotropy": 1.5, "alignment": None, "note": "x"}
    assert fit.effective_rank == 31.5
    assert fit.valid == pytest.approx(0.0505)


def test_a_section_says_what_its_backbone_asks_to_be_known_and_how_many_epochs_it_had(table):
    section = next(s for s in table.sections if s.backbone == "gru4rec")
    assert words.notes(section)[0] == "gru4rec: two epochs for <one>"
    assert "up to 16 epochs" in parity(table, section)
    other = next(s for s in table.sections if s.backbone == "sasrec")
    assert "two epochs" not in str(words.notes(other))
    assert "up to 8 epochs" in parity(table, other)


def test_users_of_several_targets_weigh_alike_where_the_protocol_asks_for_all_of_them():
    found = results({("toys", "none", "sasrec", "id"): [np.array([1.0, 100.0, 100.0, 100.0, 1.0, 1.0])]})
    users = pl.Series("user", [2, 2, 2, 0, 1, 1])
    several = Results(found.runs, found.ranks.with_columns(users), found.cells, {"protocol": {"target": "successive"}})
    table = build(several)
    row = table.sections[0].rows[0]
    assert row.metrics["HR@10"].mean == pytest.approx((0 + 1 + 1 / 3) / 3, abs=1e-6)
    assert table.sections[0].test_users == 3
    with pytest.raises(HarnessError, match="more than one rank for a user"):
        build(Results(found.runs, several.ranks, found.cells, {"protocol": {"target": "last"}}))


def test_a_bench_without_any_result_is_a_table_of_holes():
    made = results({("beauty", "none", "sasrec", "id"): seeds(0.0, 1)})
    cells = made.cells.with_columns(state=pl.lit("pending"))
    built = build(Results(made.runs.clear(), made.ranks.clear(), cells, {}))
    assert built.sections[0].rows[0].rank is None
    for name in formats():
        made = render(built, name)
        assert "pending" in (made if isinstance(made, str) else made.decode(errors="replace"))


def test_the_frame_has_a_row_a_row_with_the_numbers_and_null_where_none_is(table):
    frame = table.frame()
    assert frame.height == sum(len(section.rows) for section in table.sections)
    best = frame.row(by_predicate=(pl.col("rank") == 1) & (pl.col("backbone") == "sasrec"), named=True)
    row = row_of(table, "svd")
    assert (best["adapter"], best["NDCG@10"], best["vs_id_p"]) == ("svd", row.metrics["NDCG@10"].mean, row.vs_id.p)
    holes = frame.filter(pl.col("rank").is_null())
    assert sorted(holes["state"]) == ["failed", "pending", "skipped"]
    assert holes["NDCG@10"].null_count() == 3
    assert frame.schema["NDCG@10"] == frame.schema["vs_rival_low"] == pl.Float64


def test_the_data_line_counts_the_source_where_the_preparation_dropped_some(table):
    card = {"users": 3, "items": 5, "events": 9, "raw_users": 7, "raw_items": 5, "raw_events": 52}
    section = replace(table.sections[0], card=card)
    assert "users 3 · items 5 · events 9 · raw users 7 · raw events 52" in words.line("Data", words.data(section))
    section = replace(section, card=card | {"users": 7, "events": 52})
    assert "raw" not in words.line("Data", words.data(section))


# --- what is refused -------------------------------------------------------------------------------------------


def spoiled(made: Results, **frames: pl.DataFrame) -> Results:
    return Results(**{**vars(made), **frames})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: spoiled(r, runs=r.runs.rename({"seed": "sed"})), r"'runs' has no column 'seed'. Did you mean 'sed'"),
        (lambda r: spoiled(r, cells=r.cells.with_columns(state=pl.lit("don"))), r"state 'don'. Did you mean 'done'"),
        (
            lambda r: spoiled(r, cells=pl.concat([r.cells, r.cells])),
            r"'cells' contains beauty / none / sasrec / id 2 times",
        ),
        (lambda r: spoiled(r, cells=r.cells.filter(pl.col("adapter") == "id")), r"svd, which is not a planned cell"),
        (lambda r: spoiled(r, runs=pl.concat([r.runs, r.runs])), r"more than one run for a seed: 0, 0, 1, 1"),
        (lambda r: spoiled(r, ranks=r.ranks[1:]), r"of 400 users, other rows of beauty of 399"),
        (lambda r: spoiled(r, ranks=r.ranks.filter(~pl.col("trial").str.ends_with("1"))), r"seed 1, .* of 0 users"),
        (
            lambda r: spoiled(r, ranks=r.ranks.with_columns(low=pl.col("low") - 1)),
            r"has the rank 0.0; ranks must be .* at least 1",
        ),
        (lambda r: spoiled(r, ranks=r.ranks.with_columns(low=pl.col("high") + 1)), r"low \d+ above high \d+"),
        (lambda r: spoiled(r, ranks=pl.concat([r.ranks, r.ranks])), r"more than one rank for a user"),
        (lambda r: spoiled(r, runs=r.runs.with_columns(params=pl.lit("[1]"))), r"params is not a JSON object: \[1\]"),
        (
            lambda r: spoiled(r, runs=r.runs.with_columns(params=pl.format('{{"lr":{}}}', pl.col("seed")))),
            r"have different params",
        ),
    ],
)
def test_frames_that_contradict_themselves_are_refused_in_one_line(spoil, message):
    made = results({("beauty", "none", "sasrec", "id"): seeds(0.1, 2), ("beauty", "e", "sasrec", "svd"): seeds(0.2, 2)})
    with pytest.raises(HarnessError, match=message) as error:
        build(spoil(made))
    assert "\n" not in str(error.value)


def test_skipped_rows_are_no_part_of_what_was_planned_and_one_is_not_many():
    keys = [("beauty", "none", "sasrec", "id"), ("beauty", "minilm", "sasrec", "svd")]
    skipped = cell(keys[1], "skipped", "no text", trials_planned=0, seeds_planned=0, seeds_done=0)
    one = {"trials_planned": 1, "trials_done": 1, "trials_pruned": 0, "seeds_planned": 1, "seeds_done": 1}
    table = build(results({keys[0]: seeds(0.6, 1)}, [cell(keys[0], **one), skipped]))
    assert parity(table, table.sections[0]).startswith(
        "Parity: 1 trial, up to 8 epochs, 1 seed planned for each trained row; all other rows complete; 1 row skipped."
    )


def test_an_installed_package_says_nothing_of_a_repository():
    code = {"harness": "0.1.0", "git": "", "dirty": False, "date": "2026-11-01"}
    told = build(results({("beauty", "none", "sasrec", "id"): seeds(0.6)}, header={"provenance": code}))
    assert words.header(told, "code") == {"harness": "0.1.0", "date": "2026-11-01"}
    assert "git – " in words.header_lines(told, ("provenance",))[0]


def test_plans_of_earlier_launches_are_told_and_the_budget_is_not_said_to_be_that_of_every_cell():
    keys = [("beauty", "none", backbone, "id") for backbone in ("sasrec", "hstu", "gru4rec")]
    plans = [{"trials_planned": 16, "seeds_planned": 5}, {"trials_planned": 8, "seeds_planned": 3}]
    plans += [{"trials_planned": 1, "seeds_planned": 1}]
    cells = [cell(key, **plan) for key, plan in zip(keys, plans, strict=True)]
    runs = {key: seeds(0.6, 1) for key in keys}
    found = build(results(runs, cells, header={"budget": {"trials": 8, "seeds": 3}}))
    assert words.header(found, "budget")["other cells"] == "1 trial and 1 seed; 16 trials and 5 seeds"
    assert words.header_lines(found, ("budget",))[0].startswith("Budget of the newest launch: ")
    one = [cell(key, **(plan | {"trials_planned": 1})) for key, plan in zip(keys, plans, strict=True)]
    cut = build(results(runs, one, header={"budget": {"trials": 8, "seeds": 5}, "at_trials": 1}))
    assert cut.other_plans == "1 trial and 1 seed; 1 trial and 3 seeds", "with --at-trials no trial is missing"
    equal = build(results({keys[1]: runs[keys[1]]}, cells[1:2], header={"budget": {"trials": 8, "seeds": 3}}))
    assert "other cells" not in words.header(equal, "budget")
    assert words.header_lines(equal, ("budget",))[0].startswith("Budget of every cell: ")

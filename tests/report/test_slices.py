"""Slices of the test: what is known of the targets, and scores on each part."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from dataset_files import make_dataset
from synthetic_results import results, targets

from harness.data import preparation, reader, splits
from harness.data import slice_facts as facts
from harness.report.tables import Results, _slices, build, render, terminal
from harness.report.tables._slices import labels
from harness.stats.folds import FOLD
from harness.types import Cell, HarnessError, PrepSpec, Protocol

KEYS = [("beauty", "none", "sasrec", "id"), ("beauty", "minilm", "sasrec", "svd")]


def queries(users: int = 400) -> pl.DataFrame:
    n = np.arange(users)
    band = np.array(["head", "mid", "tail"])[n % 3]
    return pl.DataFrame(
        {
            **{"dataset": ["beauty"] * users, "user": n, "cold": n % 10 == 0, "popularity": n, "band": band},
            **{"history": n % 60, "tied": [None] * users, "words": n % 25},
        },
        schema_overrides={"tied": pl.Boolean},
    )


def made(frame: pl.DataFrame) -> Results:
    own = results({KEYS[0]: [targets(0.6)], KEYS[1]: [targets(0.0), targets(0.1)]})
    return Results(own.runs, own.ranks, own.cells, own.header, queries=frame)


def test_a_slice_holds_the_mean_of_its_own_targets():
    [section] = build(made(queries())).sections
    found = {(one.dimension, one.name): one for one in section.slices}
    ranks = (targets(0.0), targets(0.1))
    for (dimension, name), keep in {
        ("target", "cold"): lambda n: n % 10 == 0,
        ("popularity", "mid"): lambda n: n % 10 != 0 and n % 3 == 1,
        ("history", "6 to 10 events"): lambda n: 6 <= n % 60 <= 10,
        ("text", "no text"): lambda n: n % 25 == 0,
        ("text", "over 20 words"): lambda n: n % 25 > 20,
    }.items():
        chosen = [n for n in range(400) if keep(n)]
        values = [1 / math.log2(r[n] + 1) if r[n] <= 10 else 0.0 for r in ranks for n in chosen]
        one = found[dimension, name]
        own = next(score for score in one.scores if score.cell.adapter == "svd")
        assert (one.queries, one.users) == (len(chosen), len(chosen))
        assert own.score.mean == pytest.approx(np.mean(values))
        assert own.score.low <= own.score.mean <= own.score.high
        assert own.vs_id is None or own.vs_id.low <= own.vs_id.mean <= own.vs_id.high
    assert ("order", "tied") not in found  # times are not known


def test_the_slices_of_a_dimension_share_out_the_test():
    [section] = build(made(queries())).sections
    for dimension, whole in (("target", 400), ("history", 400), ("text", 400), ("popularity", 360)):
        assert sum(one.queries for one in section.slices if one.dimension == dimension) == whole


def test_the_interval_of_a_slice_covers_the_truth_about_as_often_as_it_says():
    """Ranks drawn anew each time, so that every user's expected score is known: a seed, 60 users."""
    rng, hits, rounds = np.random.default_rng(5), 0, 150
    scores = [1 / math.log2(r + 1) if r <= 10 else 0.0 for r in range(1, 21)]
    for _ in range(rounds):
        own = results({KEYS[0]: [rng.integers(1, 21, 60).astype(float)]})
        frame = queries(60).with_columns(cold=pl.Series(np.arange(60) < 30))
        table = build(Results(own.runs, own.ranks, own.cells, own.header, queries=frame))
        warm = next(one for one in table.sections[0].slices if one.name == "warm").scores[0].score
        hits += warm.low <= np.mean(scores) <= warm.high
    assert 0.87 <= hits / rounds <= 0.99


def test_no_interval_of_a_few_targets_leaves_what_a_score_can_be():
    """Three seeds so far apart that their spread alone reaches below 0 and above 1."""
    far = [np.where(np.arange(8) < hits, 1.0, 50.0) for hits in (0, 4, 8)]
    own = results({KEYS[0]: far, KEYS[1]: far[::-1]})
    [section] = build(Results(own.runs, own.ranks, own.cells, own.header, queries=queries(8))).sections
    intervals = [score.score for one in section.slices for score in one.scores]
    intervals += [row.metrics["NDCG@10"] for row in section.rows]
    assert any(one.low == 0 for one in intervals)
    assert all(0 <= one.low <= one.high for one in intervals)
    assert all(one.high <= 1 for one in intervals[:-2])


def test_slices_stand_in_every_format_that_holds_them():
    table = build(made(queries()))
    for name in ("md", "json", "csv", "html"):
        assert "over 20 words" in render(table, name)
    assert "6 to 10 & 11 to 20 & over 20" in render(table, "tex").replace(r"\scriptsize ", "")
    assert "text:over 20 words_low" in pl.read_parquet(render(table, "parquet")).columns
    assert "over 20 words" in terminal.slices(table)
    assert "over 20 words" not in render(table, "terminal")
    frame = table.wide()
    assert frame["target:cold"].null_count() == 0
    assert "no facts about the test targets" in terminal.slices(build(made(queries().clear())))


def test_a_part_of_few_users_comes_with_a_caution():
    caution = "Parts of the test with fewer than 30 users have intervals that are too narrow."
    few = queries().with_columns(cold=pl.col("user") < 29)
    assert caution in terminal.slices(build(made(few)))
    for name in ("md", "tex", "html", "json"):
        assert caution in render(build(made(few)), name)
    many = queries().with_columns(cold=pl.col("user") < 30, history=7, words=7, band=pl.lit("head"))
    assert caution not in render(build(made(many)), "md")


def test_facts_of_other_users_than_the_ranks_are_refused():
    with pytest.raises(HarnessError, match="the recorded test targets and the test ranks have different users"):
        build(made(queries(399)))


def test_labels_put_each_bound_into_the_lower_bin():
    frame = queries(4).with_columns(history=pl.Series([5, 6, 50, 51]), words=pl.Series([0, 5, 6, 21]))
    found = labels(frame)
    assert found["history"].to_list() == ["up to 5 events", "6 to 10 events", "21 to 50 events", "over 50 events"]
    assert found["text"].to_list() == ["no text", "up to 5 words", "6 to 10 words", "over 20 words"]


@pytest.mark.parametrize(
    "protocol", [Protocol(), Protocol("gts", target="successive", quantile=0.8, validation="last_train")]
)
def test_what_is_known_of_a_target_is_what_counting_by_hand_finds(tmp_path: Path, protocol: Protocol):
    folder = make_dataset(tmp_path / "toy", users=20, items=30, length=9)
    frame = pl.read_parquet(folder / "interactions.parquet")
    frame.with_columns(timestamp=pl.col("timestamp") // 3000).write_parquet(folder / "interactions.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    items[:29].write_parquet(folder / "items.parquet")  # one item without a text
    prepared = preparation.prepare(reader.open_dataset(str(folder), tmp_path), PrepSpec(kcore=0), tmp_path)
    split = splits.split(prepared, protocol)
    found = facts.describe(prepared, split)
    assert found["user"].to_list() == split.test.users.tolist()
    trained = [i for u in range(20) for i in split.history(u, split.train_ends[u]).tolist()]
    for row, user, end in zip(found.iter_rows(named=True), split.test.users, split.test.ends, strict=True):
        place = split.offsets[user] + end
        item = int(split.items[place])
        assert row["popularity"] == trained.count(item)
        assert row["cold"] == (item not in trained)
        assert row["history"] == end
        assert row["tied"] == (split.times[place] == split.times[place - 1])
        text = prepared.catalogue["text"][item - 1]
        assert row["words"] == (len(text.split()) if text else 0)
        assert (row["band"] is None) == row["cold"]


def test_each_band_holds_about_a_third_of_the_training_events():
    counts = np.random.default_rng(6).zipf(1.6, 500).clip(max=200)
    counts[:40] = 0
    found = facts.bands(counts)
    assert all((band is None) == (count == 0) for band, count in zip(found, counts, strict=True))
    for band in facts.BANDS:
        held = sum(count for own, count in zip(found, counts, strict=True) if own == band)
        assert held / counts.sum() == pytest.approx(1 / 3, abs=0.1)
    assert min(c for b, c in zip(found, counts, strict=True) if b == "head") >= max(
        c for b, c in zip(found, counts, strict=True) if b == "mid"
    )


def test_a_user_of_several_folds_is_drawn_once_for_all_of_them():
    users, cell = np.arange(40), Cell(*KEYS[0])
    values = np.random.default_rng(1).random((40, 2))
    one = _slices._part("target", "warm", np.full(40, True), users, {cell: values})
    keys = np.concatenate([fold * FOLD + users for fold in range(3)])
    three = _slices._part("target", "warm", np.full(120, True), keys, {cell: np.tile(values, (3, 1))})
    assert (three.queries, three.users) == (120, 40)
    np.testing.assert_allclose(three.draws[cell], one.draws[cell], atol=1e-9)
    rows = np.full(120, True)
    rows[40:60] = False  # half of the users lack the second fold
    assert _slices._part("target", "warm", rows, keys, {cell: np.tile(values, (3, 1))}).users == 40

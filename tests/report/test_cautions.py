"""Reasons to doubt a table: rows still rising, scores below chance; and how often a row ranks first."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest
from synthetic_results import HEADER, cell, hostile, results, row_of, run, seeds, targets

from harness.report.tables import Results, build, formats, render
from harness.report.tables._frames import TRIALS

ID, SVD = ("beauty", "none", "sasrec", "id"), ("beauty", "minilm", "sasrec", "svd")
POPULARITY = ("beauty", "none", "none", "popularity")


def runs_that_end(made: Results, best: dict[str, list[int]], epochs: int = 4) -> Results:
    """Confirmed runs of so many epochs each, best at these (by adapter, a seed each)."""
    records = [
        {name: run[name] for name in ("trial", "dataset", "encoder", "backbone", "adapter", "seed")}
        | {"role": "confirm", "status": "done", "epochs": epochs, "best_epoch": best[run["adapter"]][k % 3]}
        | {"number": k % 3, "best": 0.05, "study": "s", "reason": "", "params": "{}", "info": "{}", "run": "r"}
        for k, run in enumerate(made.runs.iter_rows(named=True))
    ]
    return Results(made.runs, made.ranks, made.cells, made.header, pl.DataFrame(records, schema=TRIALS).lazy())


def test_a_row_that_is_best_at_the_last_epoch_in_most_seeds_is_marked():
    made = results({ID: seeds(0.5), SVD: seeds(0.1)})
    table = build(runs_that_end(made, {"id": [3, 3, 1], "svd": [3, 2, 0]}))
    rising = {row.cell.adapter: "rising" in row.marks for row in table.sections[0].rows}
    assert rising == {"id": True, "svd": False}
    assert table.sections[0].cautions == (
        "Still improving at the last allowed epoch: id. More epochs would raise these scores.",
        "Gains over id are preliminary: it is still improving, so they also reflect training speed.",
    )
    assert row_of(table, "svd").vs_id.preliminary
    for name in formats():
        shown = render(table, name)
        text = shown.decode(errors="replace") if isinstance(shown, bytes) else shown
        assert ("rising" if name in ("csv", "parquet") else "still improving") in text.lower(), name
    assert json.loads(render(table, "json"))["sections"][0]["rows"][0]["vs_id"]["preliminary"] is True
    gain = next(line for line in render(table, "terminal").splitlines() if re.match(r"\d.* svd ", line))
    assert "↑" in gain


def test_gains_over_a_row_that_is_not_rising_are_not_preliminary():
    made = results({ID: seeds(0.5), SVD: seeds(0.1)})
    table = build(runs_that_end(made, {"id": [1, 2, 2], "svd": [3, 3, 3]}))
    assert not row_of(table, "svd").vs_id.preliminary
    assert [text for text in table.sections[0].cautions if "preliminary" in text] == []
    assert "↑" in render(table, "md"), "the row itself still is"


def test_without_trials_nothing_is_called_rising():
    assert not any("rising" in row.marks for row in build(hostile()).sections[1].rows)


def board_with(items: int, popularity: np.ndarray, data: str = "beauty") -> Results:
    header = HEADER | {"data": {data: {"users": 400, "items": items}}}
    cells = [cell(ID), cell(POPULARITY) | {"seeds_planned": 1, "seeds_done": 1, "trials_planned": 0}]
    return results({ID: seeds(0.3), POPULARITY: [popularity]}, cells, header)


def test_a_baseline_below_chance_is_warned_of():
    late = 11 + targets(0.0)
    late[0] = 1.0  # HR@10 .0025; chance is 10 of 2,420
    [caution] = build(board_with(2420, late)).sections[0].cautions
    assert caution == "HR@10 below chance (0.0041 = 10 of 2,420 items): popularity (baseline) 0.0025."
    assert build(board_with(5000, late)).sections[0].cautions == ()


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((1, 1, 1), "One seed per row: "),
        ((3, 1, 1), "Only id "),
        ((3, 3, 1), ""),
        ((3, 3, 3), ""),
    ],
)
def test_rows_of_one_seed_are_cautioned_until_two_rows_tell_what_seeds_differ_by(counts, said):
    done = dict(zip((ID, SVD, ("beauty", "e", "sasrec", "mlp")), counts, strict=True))
    cells = [cell(key) | {"seeds_done": count, "seeds_planned": count} for key, count in done.items()]
    table = build(results({key: seeds(0.3, count) for key, count in done.items()}, cells))
    found = [caution for caution in table.sections[0].cautions if caution.startswith(("One seed", "Only id"))]
    assert bool(found) == bool(said)
    assert all(caution.startswith(said) for caution in found)


def test_how_often_a_row_is_first_over_resamples_of_users_and_seeds():
    table = build(results({ID: seeds(0.1), SVD: seeds(0.1), ("beauty", "e", "sasrec", "mlp"): seeds(2.0)}))
    first = {row.cell.adapter: row.first for row in table.sections[0].rows}
    assert sum(first.values()) == pytest.approx(1)
    assert first["mlp"] == 0
    assert 0 < first["svd"] < 1, "equal ranks under other draws of seeds"
    clear = build(results({ID: seeds(1.5), SVD: seeds(0.0)}))
    assert row_of(clear, "svd").first == 1
    assert "100.0 %" in render(clear, "terminal")


def test_rank_stability_agrees_with_a_plain_bootstrap():
    """One seed each, so that only users are resampled: counted again in a loop of its own."""
    a, b = targets(0.10, seed=3), targets(0.16, seed=3)
    scores = [np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0) for ranks in (a, b)]
    table = build(results({ID: [a], SVD: [b]}))
    rng, users = np.random.default_rng(9), len(a)
    picks = rng.integers(users, size=(4000, users))
    means = np.stack([own[picks].mean(1) for own in scores])
    share = (means[0] > means[1]).mean() + (means[0] == means[1]).mean() / 2
    assert row_of(table, "id", encoder="none").first == pytest.approx(share, abs=0.05)


def unlike(
    params: dict[tuple, dict], searched: dict | None = None, ranges: dict | None = None, versions: dict | None = None
) -> list[str]:
    """The cautions about rows with these parameters of their winner, dimensions of their space, recorded ranges of the
    learning rate and versions of the core."""
    told = {key: json.dumps({"train.lr": text}) for key, text in (ranges or {}).items()}
    told |= {key: json.dumps({"version of core": number}) for key, number in (versions or {}).items()}
    spaces = {
        key: {"searched": (searched or {}).get(key, ["train.lr"]), "shared": told.get(key, "{}")} for key in params
    }
    cells = [cell(key, **space) for key, space in spaces.items()]
    own = results({key: seeds(0.1 * place) for place, key in enumerate(params)}, cells)
    runs = [run(key, seed, chosen) for key, chosen in params.items() for seed in range(3)]
    made = Results(pl.DataFrame(runs), own.ranks, own.cells, own.header)
    return [text for text in build(made).sections[0].cautions if "not trained alike" in text]


def test_rows_with_other_shared_parameters_are_not_passed_off_as_equals():
    mlp, linear, pca = (("beauty", "minilm", "sasrec", name) for name in ("mlp", "linear", "pca"))
    usual = {"train.d": 64, "train.lr": 0.003}
    assert unlike({ID: usual, SVD: usual | {"train.lr": 0.001, "adapter.power": 1.0}, POPULARITY: {}}) == []
    assert unlike({ID: usual, SVD: usual | {"train.d": 16, "loss.label_smoothing": 0.1}}) == [
        "Rows were not trained alike, so they differ by more than the adapter: "
        "loss.label_smoothing default (id), 0.1 (svd · minilm); train.d 64 (id), 16 (svd · minilm)."
    ]
    [text] = unlike(dict.fromkeys((ID, SVD, mlp, linear), usual) | {pca: usual | {"train.d": 128}})
    assert "train.d 64 (id, svd · minilm, mlp · minilm and 1 more), 128 (pca · minilm)." in text
    [text] = unlike({ID: usual, SVD: usual}, {SVD: ["train.weight_decay"]})
    assert "train.lr searched (id), 0.003 (svd · minilm); train.weight_decay default (id), searched (svd" in text
    alike = {ID: usual, SVD: usual}
    assert unlike(alike, ranges={ID: "0.001 … 0.01 log", SVD: "0.001 … 0.01 log"}) == []
    assert unlike(alike, ranges={ID: "0.001 … 0.01 log"}) == []  # an earlier launch recorded no ranges
    ranges = {SVD: "0.001 … 0.01 log", mlp: "0.001 … 0.1 log"}
    [text] = unlike(alike | {mlp: usual}, ranges=ranges)
    assert "train.lr searched in 0.001 … 0.01 log (svd · minilm), searched in 0.001 … 0.1 log (mlp · minilm)." in text
    [text] = unlike(alike, ranges={ID: "0.001 … 0.01 log", SVD: "0.001 … 0.1 log"})
    assert "train.lr searched in 0.001 … 0.01 log (id), searched in 0.001 … 0.1 log (svd · minilm)." in text
    assert unlike(alike, versions={ID: 4, SVD: 4}) == []
    [text] = unlike(alike | {mlp: usual}, versions={ID: 4, SVD: 3})
    assert "version of core 4 (id), 3 (svd · minilm)." in text
    assert unlike({ID: usual, SVD: usual | {"train.d": 16}}, {SVD: None}) == []  # a launch that recorded no space

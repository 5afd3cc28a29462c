"""Benches under sliding windows: the table's numbers, export, reproduction, comparison, what is refused."""

import json

import numpy as np
import polars as pl
import pytest
import small_homes
import torch
from command_line import harness as command
from dataset_files import columns, make_dataset, write_dataset
from scipy import stats as reference

from harness.metrics._all import per_user
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import comparison, ledger_frames, row_lookup, tables
from harness.training import exported_model
from harness.types import HarnessError, Protocol
from harness.workflows import export, export_lists, reproduce, run_bench
from harness.workflows.reproduce import ReproduceRequest

WINDOWS = Protocol("windows", quantile=0.6, folds=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("windows")
    dataset = make_dataset(folder / "toy")
    (folder / "home").mkdir()
    request = small_homes.request(folder / "home", dataset, "id,linear,id+text", protocol=WINDOWS)
    grid = small_homes.run(request)
    run_bench.describe_targets(grid, grid.encoded_datasets)
    return folder


@pytest.fixture(scope="module")
def table(root):
    return tables.build(ledger_frames.of_home(root / "home"))


def scores(home, adapter):
    """NDCG@10 by (seed, fold), each a dict of users."""
    ledger, found = Ledger.open(home), {}
    [row] = [row for row in row_lookup.of(ledger).values() if row.cell.adapter == adapter]
    for trial_id in row.planned:
        trial, frame = ledger.trials[trial_id].trial, artifacts.load_ranks(home, trial_id)
        values = per_user(artifacts.bounds(frame), "ndcg", 10)
        found[trial.seed, trial.protocol.fold] = dict(zip(frame["user"].to_list(), values, strict=True))
    return found


def fold_means(home, adapter):
    by_run = scores(home, adapter)
    seeds = sorted({seed for seed, _ in by_run})
    return np.array([np.mean([np.mean(list(by_run[s, f].values())) for s in seeds]) for f in range(3)])


def rows_of(table):
    return {row.cell.adapter: row for section in table.sections for row in section.rows}


@pytest.mark.parametrize("adapter", ["id", "linear", "id+text", "popularity"])
def test_a_score_is_the_mean_over_folds_of_the_mean_over_users(root, table, adapter):
    row = rows_of(table)[adapter]
    assert (row.state, row.seeds_done) == ("done", row.seeds_planned)
    assert row.metrics["NDCG@10"].mean == pytest.approx(fold_means(root / "home", adapter).mean(), abs=1e-9)


def test_intervals_and_tests_are_over_folds(root, table):
    [section] = table.sections
    place = {cell.adapter: at for at, cell in enumerate(section.pairs.cells)}
    means = {name: fold_means(root / "home", name) for name in ("id", "linear")}
    paired = reference.ttest_rel(*means.values()).pvalue
    assert paired * (1 - 1e-6) <= section.pairs.p[place["id"], place["linear"]] <= 1
    interval = rows_of(table)["id"].metrics["NDCG@10"]
    half = reference.t.ppf(0.975, 2) * means["id"].std(ddof=1) / np.sqrt(3)
    assert interval.high - interval.mean >= half * (1 - 1e-9)


def test_every_fold_is_trained_on_its_own_and_the_search_once(root):
    ledger = Ledger.open(root / "home")
    trials = [entry.trial for entry in ledger.trials.values() if entry.trial.cell.adapter == "linear"]
    assert [t.protocol.fold for t in trials if t.role == "search"] == [0]
    confirmed = sorted((t.seed, t.protocol.fold) for t in trials if t.role == "confirm")
    assert confirmed == [(s, f) for s in (1, 2) for f in range(3)]


def test_reports_name_the_protocol_and_the_cold_share_of_each_fold(root, table):
    done = command(root / "home", "leaderboard", "--format", "md")
    assert done.returncode == 0, done.stderr
    assert "split windows" in done.stdout
    assert "folds 3" in done.stdout
    assert "Student's t over folds" in done.stdout
    assert "Scores are means over 3 test windows" in done.stdout
    assert "test by fold:" in done.stdout
    assert "over 3 test windows (2 degrees of freedom)" in done.stdout
    assert "interval paired by window" in done.stdout
    assert "users and seeds as crossed random effects" not in done.stdout
    [section] = table.sections
    assert len(section.card["folds"]) == 3
    assert sum(one["test_targets"] for one in section.card["folds"]) == section.card["test_targets"]
    assert section.test_users <= section.card["users"]


def test_parts_of_the_test_are_over_the_users_of_all_folds(root, table):
    [section] = table.sections
    parts = [one for one in section.slices if one.dimension == "history"]
    [row] = [row for row in row_lookup.of(Ledger.open(root / "home")).values() if row.cell.adapter == "linear"]
    frames = [artifacts.load_ranks(root / "home", trial_id) for trial_id in row.planned[:3]]
    assert sum(part.queries for part in parts) == sum(frame.height for frame in frames)
    values = [value for users in scores(root / "home", "linear").values() for value in users.values()]
    weighted = [part.queries * one.score.mean for part in parts for one in part.scores if one.cell.adapter == "linear"]
    assert sum(weighted) / sum(part.queries for part in parts) == pytest.approx(np.mean(values), abs=1e-9)


def test_progress_and_plan_count_every_fold(root):
    done = command(root / "home", "status", "--json")
    assert done.returncode == 0, done.stderr
    cells = {cell["cell"].split(" / ")[-1]: cell for cell in json.loads(done.stdout)["cells"]}
    assert (cells["linear"]["planned"], cells["linear"]["confirmed"], cells["linear"]["seeds"]) == (7, 6, 6)


def test_a_seed_without_one_of_its_folds_is_not_in_the_table(root):
    ledger, [row] = (
        Ledger.open(root / "home"),
        [row for row in row_lookup.of(Ledger.open(root / "home")).values() if row.cell.adapter == "linear"],
    )
    lost = row.planned[1]
    sources = artifacts.ArtifactSources(lambda i: None if i == lost else artifacts.load_ranks(root / "home", i))
    found = rows_of(tables.build(ledger_frames.build(ledger, sources)))["linear"]
    assert (found.state, found.seeds_done) == ("partial", 1)
    assert "the ranks of 1 of its runs are missing" in found.reason
    other = scores(root / "home", "linear")
    means = [np.mean(list(other[2, fold].values())) for fold in range(3)]
    assert found.metrics["NDCG@10"].mean == pytest.approx(np.mean(means), abs=1e-9)


@pytest.mark.parametrize(("fold", "expected"), [(None, 2), (0, 0)])
def test_a_fold_is_exported_by_default_the_last(root, tmp_path, fold, expected):
    report = export.write(root / "home", "linear", tmp_path / "out", fold=fold)
    assert report.equal == report.queries > 0
    assert Ledger.open(root / "home").trials[report.trial].trial.protocol.fold == expected
    assert exported_model.load(report.folder).recommend([["i001"]], 3)


def test_lists_of_an_ensemble_are_of_a_fold(root, tmp_path):
    request = export_lists.ListsRequest("id+text", 5, fold=1)
    report = export_lists.write(root / "home", request, tmp_path / "lists.parquet")
    assert report.equal == report.queries == pl.read_parquet(report.file)["query"].n_unique() > 0


@pytest.mark.parametrize("row", ["linear", "id+text"])
def test_a_row_is_reproduced_on_all_folds(root, row):
    found = reproduce.run(root / "home", ReproduceRequest(row, dataset=str(root / "toy"), seeds=1))
    assert found.verdict == "equal"
    [seed] = found.seeds
    assert seed.queries == sum(len(users) for (s, _), users in scores(root / "home", row).items() if s == 1)
    assert seed.recorded == seed.reproduced


def test_two_homes_are_compared_over_folds(root, tmp_path):
    (tmp_path / "home").mkdir()
    pins = small_homes.SMALL | {"train.lr": 0.02}
    small_homes.run(small_homes.request(tmp_path / "home", root / "toy", "linear", protocol=WINDOWS, pins=pins))
    found = comparison.compare(str(root / "home"), str(tmp_path / "home"), root / "home")
    [cell] = [cell for cell in found.cells if cell.cell.adapter == "linear"]
    a, b = (fold_means(home, "linear") for home in (root / "home", tmp_path / "home"))
    assert cell.why_not == ""
    assert cell.metrics["NDCG@10"].a == pytest.approx(a.mean(), abs=1e-9)
    assert cell.metrics["NDCG@10"].difference == pytest.approx((b - a).mean(), abs=1e-9)
    same = comparison.compare(str(root / "home"), str(root / "home"), root / "home")
    assert all(cell.same_runs for cell in same.cells)


def test_a_fold_that_does_not_exist_is_one_line(root, tmp_path):
    with pytest.raises(HarnessError, match="has no finished run of fold 7; there are runs of fold 0, 1, 2"):
        export.write(root / "home", "linear", tmp_path / "out", fold=7)


@pytest.mark.parametrize(("timed", "message"), [(False, "has no timestamps"), (True, "leaves no user for")])
def test_a_data_set_that_cannot_be_cut_is_one_line_before_training(tmp_path, timed, message):
    rows = [(f"u{user}", f"i{(user + step) % 6}", 5 if timed else step) for user in range(8) for step in range(6)]
    last = "timestamp" if timed else "order"
    data = write_dataset(
        tmp_path / "flat", columns(rows, "user_id", "item_id", last), {"item_id": [f"i{n}" for n in range(6)]}
    )
    words = ["--backbones", "sasrec", "--adapters", "id", "--kcore", "0", "--protocol", "windows", "--folds", "2"]
    done = command(tmp_path, "bench", "--datasets", str(data), *words)
    assert done.returncode == 2
    assert "Error: flat" in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("**/model.safetensors"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--protocol", "windows"], "--protocol windows needs --folds of at least 2, not 0"),
        (["--folds", "3"], "--folds needs --protocol windows; the protocol is 'loo'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(root, tmp_path, words, message):
    done = command(tmp_path, "plan", "--datasets", str(root / "toy"), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_publication_says_which_window_each_of_its_runs_tested(root, tmp_path):
    out = tmp_path / "published"
    assert command(root / "home", "publish", str(out)).returncode == 0
    folds = json.loads((out / "manifest.json").read_text())["folds"]
    assert sorted(folds.values()) == sorted(list(range(3)) * (len(folds) // 3))
    assert {file.stem for file in (out / "ranks").glob("*.parquet")} == folds.keys()
    assert command(root / "home", "verify", str(out)).returncode == 0

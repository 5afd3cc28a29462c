"""The main job for real, small: real Ray Tune, real Optuna, real MLflow, in processes of their own."""

import contextlib
import csv
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_homes
from command_line import SMALL_MODEL, TINY, bench, bench_words, ended, environment, events, harness, metrics_of
from dataset_files import make_dataset

from harness.record import artifacts

GRID = ["--adapters", "id,svd,spectran,id+svd", "--backbones", "sasrec,gru4rec"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One bench that several tests look at: (home, data set folder, its process)."""
    root = tmp_path_factory.mktemp("bench")
    folder = make_dataset(root / "toy")
    return root / "home", folder, bench(root / "home", folder, *GRID, "--top-k", "12", mlflow=True)


def test_the_bench_ends_well_and_prints_a_table_of_every_cell(done):
    home, _, process = done
    assert process.returncode == 0, process.stderr
    for name in ("id", "svd", "spectran", "popularity", "transition_knn", "content_knn", "sasrec", "gru4rec"):
        assert name in process.stdout
    assert "NDCG@10" in process.stdout
    for form in ("md", "csv", "json", "html"):
        assert list((home / "reports").glob(f"*/leaderboard.{form}"))


def test_every_cell_had_the_same_number_of_trials_and_seeds(done):
    home, *_ = done
    cells: dict[str, list[str]] = {}
    for event in events(home, "started"):
        cell = event["trial"]["cell"]
        if cell["backbone"] != "none" and cell["adapter"] != "id+svd":
            cells.setdefault(f"{cell['backbone']}/{cell['adapter']}", []).append(event["trial"]["role"])
    assert len(cells) == 6
    assert all(sorted(roles) == ["confirm", "search", "search"] for roles in cells.values())
    assert len(ended(home)) == len(set(ended(home))) == 6 * 3 + 3 + 2


def test_a_trial_is_drawn_when_a_slot_is_free(done):
    """One drawn earlier was passed over to the end of the bench, often the default point of a cell."""
    home, *_ = done
    slots, running = 0, set()
    for event in events(home, "launched", "started", "ended"):
        slots = event.get("provenance", {}).get("slots", slots)
        running |= {event["id"]} if event["kind"] == "started" else set()
        running -= {event["id"]} if event["kind"] == "ended" else set()
        assert len(running) <= slots
    assert slots
    assert not running


def test_an_ensemble_combines_the_runs_of_its_section_without_training(done):
    home, _, process = done
    trials = {e["id"]: e["trial"] for e in events(home, "started")}
    results = {e["id"]: e["result"] for e in events(home, "ended")}
    combined = {i: trial for i, trial in trials.items() if trial["inputs"].get("parts")}
    assert {trial["cell"]["backbone"] for trial in combined.values()} == {"sasrec", "gru4rec"}
    for trial_id, trial in combined.items():
        parts = [trials[i]["cell"] for i in trial["inputs"]["parts"]]
        assert {(part["backbone"], part["adapter"]) for part in parts} == {
            (trial["cell"]["backbone"], name) for name in ("id", "svd")
        }
        assert results[trial_id]["curve"] == []
        assert 0 <= results[trial_id]["info"]["weight"] <= 1
    assert "id+svd (ensemble)" in process.stdout


def test_trial_zero_of_every_cell_is_the_default_point(done):
    home, *_ = done
    first = [
        e["trial"]["params"] for e in events(home, "started") if e["number"] == 0 and e["trial"]["role"] == "search"
    ]
    assert all(params["train.lr"] == 0.003 for params in first)


def test_the_test_is_opened_for_winners_only(done):
    home, *_ = done
    roles = {e["id"]: e["trial"]["role"] for e in events(home, "started")}
    for event in events(home, "ended"):
        assert bool(event["result"]["test"]) == (roles[event["id"]] == "confirm")
    opened = [event["id"] for event in events(home, "opened")]
    assert sorted(opened) == sorted(i for i, role in roles.items() if role == "confirm"), "each opening is an event"


def test_confirmations_keep_the_lists_that_the_bench_was_asked_for(done):
    home, folder, _ = done
    confirmed = [e["id"] for e in events(home, "started") if e["trial"]["role"] == "confirm"]
    assert len(confirmed) == 6 + 2 + 3
    for trial_id in confirmed:
        lists, ranks = artifacts.load_lists(home, trial_id), artifacts.load_ranks(home, trial_id)
        assert lists is not None
        assert lists["rank"].max() == artifacts.list_length(home, trial_id) == 12
        assert lists["query"].n_unique() == ranks.height
    again = bench(home, folder, *GRID, "--top-k", "13", mlflow=True)
    assert "11 of 11 finished runs have no stored lists of 13 items" in again.stderr
    again = bench(home, folder, *GRID, "--top-k", "12", mlflow=True)
    assert again.returncode == 0, again.stderr
    assert "no stored lists" not in again.stderr


def test_metrics_of_lists_are_columns_of_every_row(done):
    home, *_ = done
    shown = harness(home, "leaderboard", "--lists").stdout.partition("top-10 lists")[2]
    for name in ("coverage@10", "gini@10", "novelty@10", "arp@10", "ild@10"):
        assert name in shown
    rows = list(csv.DictReader(harness(home, "leaderboard", "--format", "csv").stdout.splitlines()))
    assert all(0 < float(row["coverage@10"]) <= 1 for row in rows)
    assert {bool(row["ild@10"]) for row in rows if row["encoder"] == "none"} == {False}, "no text, no distance"


def test_the_second_run_has_nothing_to_do_and_gives_the_same_table(done):
    home, folder, _ = done
    before = len(ended(home))
    again = bench(home, folder, *GRID, "--json", mlflow=True)
    assert again.returncode == 0, again.stderr
    assert "Nothing is left to do" in again.stderr
    assert len(ended(home)) == before
    assert len(list(home.glob("reports/*"))) == 1, "the report is that of the first run"
    table = harness(home, "leaderboard", "--format", "json")
    assert metrics_of(json.loads(table.stdout)) == metrics_of(json.loads(again.stdout))


def test_mlflow_has_every_trial_nested_and_gives_the_same_table(done):
    home, *_ = done
    from_ledger = harness(home, "leaderboard", "--format", "json")
    from_mlflow = harness(home, "leaderboard", "--format", "json", "--from-mlflow")
    assert from_mlflow.returncode == 0, from_mlflow.stderr
    assert json.loads(from_mlflow.stdout) == json.loads(from_ledger.stdout)
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow/mlflow.db")
    runs = mlflow.search_runs(experiment_names=["harness"], output_format="list")
    trials = [run for run in runs if "harness.trial" in run.data.tags]
    parents = {run.info.run_id for run in runs if "harness.run" in run.data.tags}
    assert sorted(run.data.tags["harness.trial"] for run in trials) == sorted(ended(home))
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} <= parents
    confirmed = next(r for r in trials if r.data.tags["harness.role"] == "confirm" and "train.lr" in r.data.params)
    client = mlflow.MlflowClient()
    assert [file.path for file in client.list_artifacts(confirmed.info.run_id)] == ["files.zip"]
    assert {"ranks.parquet", "spectrum.json", "model.safetensors"} <= json.loads(
        confirmed.data.tags["harness.files"]
    ).keys()
    assert "test/NDCG_at_10" in confirmed.data.metrics
    assert len(client.get_metric_history(confirmed.info.run_id, "epoch/NDCG_at_10")) == 2


def test_the_python_api_gives_the_table_as_a_frame(done):
    import harness as package

    home, *_ = done
    frame = package.leaderboard(str(home))
    assert {"id", "svd", "spectran", "popularity"} <= set(frame["adapter"])
    assert frame["NDCG@10"].null_count() == 0


def test_lost_ranks_are_a_hole_with_a_reason(done, tmp_path):
    import shutil

    home = shutil.copytree(done[0], tmp_path / "copy")
    for file in home.glob("artifacts/*/ranks.parquet"):
        file.write_bytes(b"damaged")
    process = harness(home, "leaderboard")
    assert process.returncode == 0, process.stderr
    assert "the ranks of 1 of its runs are missing or damaged" in process.stdout


def test_sync_has_nothing_to_add(done):
    home, *_ = done
    process = harness(home, "sync")
    assert process.returncode == 0, process.stderr
    assert "MLflow has every trial" in process.stdout


def test_status_plan_list_show_and_doctor_answer(done):
    home, folder, _ = done
    status = json.loads(harness(home, "status", "--json").stdout)
    assert status["over"]
    assert status["trials"]["ended"] == status["trials"]["planned"] == 23
    words = ["--datasets", str(folder), "--encoders", "noise", "--kcore", "0", "--adapters", "mlp", "--json"]
    plan = json.loads(harness(home, "plan", *words).stdout)
    assert plan["counts"]["to_run"] > 0
    assert "spectran" in harness(home, "list").stdout
    assert "arXiv 2601.21986" in harness(home, "show", "spectran").stdout
    shown = harness(home, "show", str(folder))
    assert "60" in shown.stdout, shown.stderr
    assert "torch" in harness(home, "doctor").stdout


def test_growing_the_grid_runs_only_the_difference(done):
    home, folder, _ = done
    before = set(ended(home))
    grown = bench(home, folder, *GRID, "--trials", "3", "--backbones", "sasrec", "--adapters", "id,svd,linear")
    assert grown.returncode == 0, grown.stderr
    started = {e["id"]: e["trial"] for e in events(home, "started")}
    new = [started[i] for i in ended(home) if i not in before]
    assert len(ended(home)) == len(set(ended(home))), "nothing ran twice"
    searched = [t["cell"]["adapter"] for t in new if t["role"] == "search"]
    assert sorted(searched) == ["id", "linear", "linear", "linear", "svd"]
    assert {t["cell"]["backbone"] for t in new} == {"sasrec"}


def test_a_cell_that_cannot_be_built_is_skipped_with_its_sentence(dataset, home):
    words = ["--adapters", "id,svd", "--backbones", "gru4rec", "--set", "train.d=64", "--set", "text.fusion=none"]
    process = small_homes.bench(home, dataset, *words)
    assert "SVD keeps d=64" in process.stdout
    assert {e["trial"]["cell"]["adapter"] for e in events(home, "started")} >= {"id", "popularity"}
    again = small_homes.bench(home, dataset, *words, "--adapters", "id,svd,svd_whiten")
    assert again.stdout.count("SVD keeps d=64") == 2, "a later cell that cannot be built is told in the table as well"
    only = harness(home, *bench_words(dataset, *words, "--adapters", "svd"))
    assert only.returncode == 2
    assert only.stderr.strip().splitlines()[-1].startswith("Error: No cell of this grid can be built")


@pytest.mark.parametrize("verb", ["--help", "list", "plan", "status", "leaderboard"])
def test_reading_verbs_import_nothing_heavy(done, verb):
    import subprocess
    import sys

    home, folder, _ = done
    grid = ["--datasets", str(folder), "--encoders", "noise", "--kcore", "0", "--adapters", "mlp"]
    words = [verb, *(grid if verb == "plan" else [])]
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'sentence_transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=environment(home), capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


def test_the_installed_mlflow_is_not_shadowed_by_the_folder():
    import mlflow

    root = Path(__file__).parents[2]
    assert not list((root / "mlflow").rglob("*.py"))
    assert root / "mlflow" not in Path(mlflow.__file__).parents


def test_every_event_after_the_cut_can_be_the_target(dataset, home):
    words = [
        "--adapters",
        "id",
        "--protocol",
        "gts",
        "--quantile",
        "0.8",
        "--target",
        "successive",
    ]
    small_homes.bench(home, dataset, *words)
    [row] = [
        r
        for r in json.loads(harness(home, "leaderboard", "--format", "json").stdout)["sections"][0]["rows"]
        if r["cell"]["adapter"] == "id"
    ]
    assert 0 < row["metrics"]["NDCG@10"]["mean"] < 1
    [ended] = [e for e in events(home, "ended") if e["result"]["test"] and e["result"]["info"].get("epochs")]
    assert ended["result"]["test"]["NDCG@10"] == pytest.approx(row["metrics"]["NDCG@10"]["mean"], abs=1e-6)


def test_status_watched_from_another_terminal_follows_a_bench_to_its_end(home, tmp_path):
    folder = make_dataset(tmp_path / "toy")
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(folder), *TINY, *SMALL_MODEL]
    running = subprocess.Popen([*command, "--adapters", "id", "--tracking", "off"], env=environment(home))
    try:
        deadline = time.monotonic() + 120
        while not list(home.glob("ledger/*.jsonl")) and time.monotonic() < deadline:
            time.sleep(0.1)
        ours, theirs = pty.openpty()
        watch = [sys.executable, "-m", "harness.cli", "status", "--watch", "0.3"]
        watching = subprocess.Popen(watch, env=environment(home) | {"TERM": "xterm"}, stdout=theirs, stderr=theirs)
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):  # the terminal is closed at the end
            while piece := os.read(ours, 4096):
                seen += piece
        assert watching.wait(30) == running.wait(120) == 0, seen.decode()
    finally:
        running.kill()
        running.wait()
    screens = [screen for screen in seen.decode().split("\x1b[2J") if screen.strip()]
    ended = [int(re.search(r"(\d+) of 6 trials ended", screen)[1]) for screen in screens]
    assert len(screens) > 1, "printed again, over the old one"
    assert ended == sorted(ended)
    assert ended[-1] == 6
    assert "ended, finished." in screens[-1]
    assert not any("ended, finished." in screen for screen in screens[:-1])


def test_a_grid_with_nothing_to_run_is_recorded_as_a_finished_launch(home, dataset):
    small_homes.bench(home, dataset, "--adapters", "id,svd")
    assert "Nothing is left to do" in small_homes.bench(home, dataset, "--adapters", "svd").stderr
    newest = max((home / "ledger").glob("*.jsonl")).read_text()
    assert [json.loads(line)["kind"] for line in newest.splitlines()] == ["launched", "finished"]

"""Two benches side by side, and a number made again."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import small_homes
import torch
from command_line import SMALL_MODEL, environment
from command_line import harness as command
from dataset_files import make_dataset

from harness.metrics._ties import Ranks
from harness.record import artifacts, tracking
from harness.record.ledger import Ledger
from harness.report import comparison, ledger_frames, row_lookup
from harness.search import spaces
from harness.stats import resampling
from harness.stats.crossed_effects import CrossedRows, summary
from harness.system import checksums
from harness.types import BUDGET_PARAMS, HarnessError, Protocol
from harness.workflows import reproduce, run_bench
from harness.workflows.reproduce import ReproduceRequest


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Homes of one small data set: `one` and `two` alike but for the seed of the second's search, `three` of another
    protocol."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("compare")
    dataset = make_dataset(folder / "toy")
    budgets = {"one": {}, "longer": {"budget": replace(small_homes.BUDGET, epochs=6)}}
    budgets["keep-seen"] = {"protocol": Protocol(filter_seen=False)}
    for name, own in budgets.items():
        (folder / name).mkdir()
        small_homes.run(small_homes.request(folder / name, dataset, "id,linear", **own))
    small_homes.run(small_homes.request(folder / "one", dataset, "svd"))
    return folder


def test_a_home_compared_with_itself_is_the_same_runs(root):
    found = comparison.compare(str(root / "one"), str(root / "one"), root / "one")
    assert found.exit_code == 0
    assert not found.settings
    assert all(cell.same_runs and cell.p == 1.0 for cell in found.cells)
    assert {cell.metrics["HR@5"].difference for cell in found.cells} == {0.0}


def test_two_launches_of_a_home_differ_in_what_each_planned(root):
    first, second = sorted(Ledger.open(root / "one").launches)
    found = comparison.compare(first, second, root / "one")
    assert [cell.adapter for cell in found.only_b] == ["svd"]
    assert {cell.adapter for cell in found.only_a} == {"id", "linear"}
    assert found.cells
    assert all(cell.same_runs for cell in found.cells)
    again = comparison.compare(second, first[:-2], root / "one")
    assert [cell.adapter for cell in again.only_a] == ["svd"], "a beginning names a launch"


def test_the_same_trials_with_other_ranks_are_compared(root, tmp_path):
    """As from a machine with other vector instructions: the identity of a trial does not include it."""
    home = shutil.copytree(root / "one", tmp_path / "home")
    row = row_lookup.find(row_lookup.of(Ledger.open(home)), "sasrec/id")
    for trial in row.planned:
        folder = artifacts.artifact_folder(home, trial)
        last = pl.lit(40, pl.read_parquet(folder / artifacts.RANKS)["low"].dtype)
        pl.read_parquet(folder / artifacts.RANKS).with_columns(low=last, high=last).write_parquet(
            folder / artifacts.RANKS
        )
        checksums.seal(folder)
    found = comparison.compare(str(root / "one"), str(home), home)
    cell = next(c for c in found.cells if c.cell.adapter == "id")
    assert not cell.same_runs
    assert cell.metrics["NDCG@10"].a > cell.metrics["NDCG@10"].b == 0
    assert "the same trials with other ranks" in cell.notes[0]
    assert sum(c.same_runs for c in found.cells) == len(found.cells) - 1


def ndcg(home, row):
    """NDCG@10 of a row's confirming runs, (users, seeds), from the recorded ranks."""
    ledger = Ledger.open(home)
    confirmed = row_lookup.confirmed(ledger, row_lookup.find(row_lookup.of(ledger), row))
    ranks = np.stack([artifacts.load_ranks(home, trial.id)["low"] for trial in confirmed], 1)
    return np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)


def test_differences_are_paired_by_user_and_settings_are_told(root):
    a, b = root / "one", root / "longer"
    found = comparison.compare(str(a), str(b), a)
    assert found.settings["budget epochs"] == (2, 6)
    cell = next(c for c in found.cells if c.cell.adapter == "id")
    scores = ndcg(a, "sasrec/id"), ndcg(b, "sasrec/id")
    expected = CrossedRows([summary(values) for values in scores]).difference(1, 0)
    gap = cell.metrics["NDCG@10"]
    assert gap.difference == pytest.approx(scores[1].mean() - scores[0].mean(), abs=1e-9)
    assert (gap.low, gap.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (gap.low > 0 or gap.high < 0) == (expected.p < 0.05)
    same = {c.cell.adapter for c in found.cells if c.same_runs}
    assert "popularity" in same
    assert "id" not in same, "a trial of other epochs is another trial"


def test_one_seed_each_is_said_to_leave_out_the_choice_of_seeds(root, tmp_path):
    for name, lr in (("a", 0.001), ("b", 0.01)):
        (tmp_path / name).mkdir()
        pins, budget = small_homes.SMALL | {"train.lr": lr}, replace(small_homes.BUDGET, trials=0, seeds=1)
        small_homes.run(small_homes.request(tmp_path / name, root / "toy", "id", pins=pins, budget=budget))
    note = "one seed each: the test covers the choice of users, not that of seeds"
    found = comparison.compare(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path)
    assert [note in cell.notes for cell in found.cells if cell.cell.adapter == "id"] == [True]
    assert note in comparison.text(found)
    assert note not in comparison.text(comparison.compare(str(root / "one"), str(root / "longer"), root / "one"))
    other = comparison.text(comparison.compare(str(tmp_path / "a"), str(root / "one"), tmp_path))
    assert "one seed on one side: the variance over seeds is estimated from the other" in other


def test_holm_adjusts_over_the_cells_that_are_tested(root):
    found = comparison.compare(str(root / "one"), str(root / "longer"), root / "one")
    tested = [cell for cell in found.cells if not cell.same_runs and not cell.why_not]
    assert len(tested) == 2
    raw = []
    for cell in tested:
        scores = [ndcg(root / home, str(cell.cell).replace(" / ", "/")) for home in ("one", "longer")]
        raw.append(CrossedRows([summary(values) for values in scores]).difference(1, 0).p)
    assert [cell.p for cell in tested] == pytest.approx(resampling.holm(np.array(raw)).tolist())


def test_other_protocols_and_other_data_are_not_compared_and_say_why(root, tmp_path):
    found = comparison.compare(str(root / "one"), str(root / "keep-seen"), root / "one")
    assert found.exit_code == 1
    assert all(cell.why_not == "the protocols differ: filter_seen is True / False" for cell in found.cells)
    other = tmp_path / "other"
    other.mkdir()
    small_homes.run(small_homes.request(other, make_dataset(tmp_path / "toy", seed=1), "id"))
    found = comparison.compare(str(root / "one"), str(other), root / "one")
    [cell] = [c for c in found.cells if c.cell.adapter == "id"]
    assert "the data differ (hash" in cell.why_not
    assert not cell.metrics
    assert "data toy" in found.settings


def test_lost_ranks_and_missing_confirmations_are_reasons(root, tmp_path):
    home = shutil.copytree(root / "one", tmp_path / "home")
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger), "sasrec/id")
    (artifacts.artifact_folder(home, row.planned[0]) / "ranks.parquet").write_bytes(b"x")
    found = comparison.compare(str(root / "one"), str(home), home)
    assert (
        next(c for c in found.cells if c.cell.adapter == "id").why_not == "the test ranks of 1 of B's runs are missing"
    )
    assert "not compared: the test ranks" in comparison.text(found)


def test_an_mlflow_mirror_is_compared_like_a_home(root, tmp_path, mlflow_store):
    uri = mlflow_store(tmp_path / "mlflow.db")
    tracking.sync(uri, root / "one", Ledger.open(root / "one"))
    found = comparison.compare(f"mlflow:{uri}", str(root / "one"), tmp_path)
    assert found.exit_code == 0
    assert all(cell.same_runs for cell in found.cells)
    assert len(found.cells) == 6


def test_compare_on_the_command_line(root, tmp_path):
    same = command(root / "one", "compare", str(root / "one"), str(root / "one"), "--json")
    assert same.returncode == 0, same.stderr
    assert json.loads(same.stdout)["cells"][0]["same_runs"]
    told = command(root / "one", "compare", str(root / "one"), str(root / "keep-seen"))
    assert told.returncode == 1, told.stderr
    assert "protocol filter_seen  True / False" in told.stdout
    for words, parts in (
        (["20990101", str(root / "one")], ["'20990101' is not a launch of"]),
        ([str(root / "one"), str(tmp_path)], ["not a home with results"]),
        ([str(root / "one"), f"sqlite:///{tmp_path}/none.db"], ["There is no MLflow store"]),
    ):
        wrong = command(root / "one", "compare", *words)
        assert wrong.returncode == 2, wrong.stderr
        assert "Traceback" not in wrong.stderr
        assert all(part in wrong.stderr for part in parts), wrong.stderr


def test_a_row_is_reproduced_to_the_last_bit_and_the_home_stays_as_it_is(root):
    home = root / "one"
    before = small_homes.snapshot(home)
    found = reproduce.run(home, ReproduceRequest("sasrec/linear", dataset=str(root / "toy")))
    assert found.verdict == "equal"
    assert [(seed.seed, seed.equal, seed.queries) for seed in found.seeds] == [(1, 60, 60), (2, 60, 60)]
    assert all(seed.recorded == seed.reproduced for seed in found.seeds)
    assert {name for name, (was, here) in found.checks.items() if was != here} <= {"code (git)"}
    assert small_homes.snapshot(home) == before


def test_other_code_is_told_where_no_repository_knows_it(root, monkeypatch):
    here = reproduce.provenance() | {"git": "", "code": "f" * 16}
    monkeypatch.setattr(reproduce, "provenance", lambda: here)
    told = []
    found = reproduce.run(root / "one", ReproduceRequest("sasrec/id", seeds=1, dataset=str(root / "toy")), told.append)
    was, now = found.checks["code"]
    assert (len(was), now) == (16, "f" * 16)
    assert f"code: recorded {was}, here {now}" in told
    assert "code (git)" not in found.checks


def test_other_vector_instructions_are_told_and_how_to_compute_with_them(root, monkeypatch):
    now = reproduce.provenance()
    here = now | {"machine": now["machine"] | {"vectors": "AVX9"}}
    monkeypatch.setattr(reproduce, "provenance", lambda: here)
    found = reproduce.run(root / "one", ReproduceRequest("sasrec/id", seeds=1, dataset=str(root / "toy")))
    assert found.checks["vector instructions"] == (torch.backends.cpu.get_cpu_capability(), "AVX9")
    assert "ATEN_CPU_CAPABILITY" not in reproduce.text(found), "it is equal to the last bit"
    assert "ATEN_CPU_CAPABILITY=avx2" in reproduce.text(replace(found, verdict="within"))


def test_a_baseline_and_an_id_prefix_name_rows_as_well(root):
    ledger = Ledger.open(root / "one")
    row = row_lookup.find(row_lookup.of(ledger), "popularity")
    assert reproduce.run(root / "one", ReproduceRequest(row.planned[0][:8])).row == row.words
    assert (
        row_lookup.find(
            row_lookup.of(ledger), row_lookup.find(row_lookup.of(ledger), "sasrec/id").study.id[:10]
        ).cell.adapter
        == "id"
    )


def test_other_ranks_are_told_apart_by_the_interval_or_the_tolerance(root, tmp_path):
    home = shutil.copytree(root / "one", tmp_path / "home")
    row = row_lookup.find(row_lookup.of(Ledger.open(home)), "sasrec/id")
    for trial_id in row.planned:
        users = artifacts.load_ranks(home, trial_id)["user"].to_numpy()
        worse = np.full(len(users), 30.0)
        artifacts.save_artifacts(home, trial_id, users=users, ranks=Ranks.untied(worse), spectra={}, weights=b"")
    found = reproduce.run(home, ReproduceRequest("sasrec/id"))
    assert (found.verdict, found.exit_code) == ("differs", 1)
    assert found.difference.low > 0
    assert reproduce.run(home, ReproduceRequest("sasrec/id", tolerance=1.0)).verdict == "within"
    assert reproduce.run(home, ReproduceRequest("sasrec/id", tolerance=1e-6, seeds=1)).exit_code == 1


def test_data_that_changed_since_are_told_and_the_recorded_ones_are_used(root, tmp_path):
    changed = make_dataset(tmp_path / "toy", seed=4)
    found = reproduce.run(root / "one", ReproduceRequest("sasrec/id", dataset=str(changed), seeds=1))
    was, here = found.checks["data"]
    assert was != here
    assert found.verdict == "equal", "the sequences of the recorded hash are in the cache"
    assert "data" in reproduce.text(found).split("As recorded")[0]
    was, here = reproduce.run(root / "one", ReproduceRequest("sasrec/id", seeds=1)).checks["data"]
    assert was == here, "no source is named: nothing is said of one that may only share the name"


def test_sequences_that_changed_in_the_cache_are_not_vouched_for(root, tmp_path):
    home = shutil.copytree(root / "one", tmp_path / "home")
    for items in (home / "cache" / "prepared").glob("*/items.npy"):
        np.save(items, np.load(items)[::-1])
    with pytest.raises(HarnessError, match=r"is damaged \(items.npy has changed since it was written\); delete it"):
        reproduce.run(home, ReproduceRequest("sasrec/id", seeds=1))


def test_a_row_of_a_gpu_is_said_to_be_trained_on_the_cpu(root, monkeypatch):
    own = ledger_frames.provenance
    monkeypatch.setattr(ledger_frames, "provenance", lambda *given: own(*given) | {"gpu": 1.0})
    found = reproduce.run(root / "one", ReproduceRequest("sasrec/id", seeds=1))
    assert found.checks["device"] == ("GPU", "CPU")
    assert "device" in reproduce.text(found).split("As recorded")[0]


def test_without_its_cache_a_row_is_made_of_its_source_or_says_what_is_missing(root, tmp_path):
    home = shutil.copytree(root / "one", tmp_path / "home")
    shutil.rmtree(home / "cache")
    with pytest.raises(HarnessError, match="Give the folder of toy with --dataset FOLDER"):
        reproduce.run(home, ReproduceRequest("sasrec/linear"))
    assert reproduce.run(home, ReproduceRequest("sasrec/linear", dataset=str(root / "toy"), seeds=1)).verdict == "equal"
    shutil.rmtree(home / "cache")
    with pytest.raises(HarnessError, match="toy has changed: its sequences"):
        reproduce.run(home, ReproduceRequest("sasrec/linear", dataset=str(make_dataset(tmp_path / "toy", seed=4))))


@pytest.mark.slow
def test_a_whole_search_is_made_again_in_a_scratch_home(root):
    home = root / "one"
    before, told = small_homes.snapshot(home), []
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    found = reproduce.search(home, asked, spaces.SpaceSource(fixed=small_homes.SMALL), told.append)
    assert found.verdict == "equal"
    assert [seed.seed for seed in found.seeds] == [1, 2]
    assert "The same configuration won." in told
    assert small_homes.snapshot(home) == before


@pytest.mark.slow
@pytest.mark.parametrize("older", [False, True])
def test_a_search_is_made_again_with_the_parameters_of_its_budget(tmp_path, root, older):
    pins = {"train.d": 16, "train.max_len": 8}
    launched = pins if older else pins | BUDGET_PARAMS["quick"]  # of a launch before the budget had parameters
    home, quick = tmp_path / "home", replace(small_homes.BUDGET, name="quick")
    home.mkdir()
    small_homes.run(small_homes.request(home, root / "toy", "linear", budget=quick, pins=launched))
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    assert reproduce.search(home, asked, spaces.SpaceSource(fixed=pins)).verdict == "equal"


def linear(role, *seeds):
    return lambda trial: (trial.cell.adapter, trial.role) == ("linear", role) and trial.seed in seeds


@pytest.mark.parametrize(
    ("fails", "count"), [(linear("confirm", 2), 1), (linear("confirm", 1, 2), 2), (linear("search", 0), 2)]
)
def test_runs_that_fail_when_a_search_is_repeated_are_named_with_the_reason(root, monkeypatch, fails, count):
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases, fails), False))
    asked = ["reproduce", "sasrec/linear", "--search", "--dataset", str(root / "toy"), *SMALL_MODEL]
    found = command(root / "one", *asked)
    assert found.returncode == 2, found.stderr
    error = f"{count} of its 2 recorded runs did not finish when its search was repeated (made to fail)."
    assert found.stderr.splitlines()[-1] == f"Error: toy/noise/sasrec/linear is not reproduced: {error}"


def test_a_repeated_search_is_compared_seed_by_seed_though_one_failed_when_recorded(root, tmp_path, monkeypatch):
    (home := tmp_path / "home").mkdir()
    small_homes.run(small_homes.request(home, root / "toy", "linear"), fails=linear("confirm", 1))
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases), False))
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    found = reproduce.search(home, asked, spaces.SpaceSource(fixed=small_homes.SMALL))
    assert [(seed.seed, seed.equal == seed.queries) for seed in found.seeds] == [(2, True)]


def test_a_repeated_search_finds_its_row_though_the_data_have_another_name_here(root, tmp_path, monkeypatch):
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases), False))
    backup = shutil.copytree(root / "toy", tmp_path / "backup")
    asked = ReproduceRequest("sasrec/linear", dataset=str(backup))
    found = reproduce.search(root / "one", asked, spaces.SpaceSource(fixed=small_homes.SMALL))
    assert found.verdict == "equal"


def test_a_search_that_seconds_ended_is_repeated_with_its_trials(root, tmp_path, monkeypatch):
    home, grids = tmp_path / "home", []
    home.mkdir()
    budget = replace(small_homes.BUDGET, trials=3, cell_seconds=1e-6)
    small_homes.run(small_homes.request(home, root / "toy", "linear", budget=budget))

    def train(grid, bases, *_):
        grids.append(grid)
        return small_homes.train(grid, bases), False

    monkeypatch.setattr(run_bench, "_search", train)
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    found = reproduce.search(home, asked, spaces.SpaceSource(fixed=small_homes.SMALL))
    assert found.verdict == "equal"
    assert (grids[0].request.budget.trials, grids[0].request.budget.cell_seconds) == (1, None)


def test_a_repeated_search_takes_a_matrix_from_the_folder_that_is_named(root, tmp_path, monkeypatch):
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases), False))
    home, matrix = tmp_path / "home", tmp_path / "vectors" / "E.npy"
    for folder in (home, matrix.parent):
        folder.mkdir()
    np.save(matrix, np.random.default_rng(0).standard_normal((40, 24)).astype(np.float32))
    small_homes.run(small_homes.request(home, root / "toy", "linear", encoders=f"file:{matrix}"))
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    source = spaces.SpaceSource(fixed=small_homes.SMALL)
    with pytest.raises(HarnessError, match=r"E\.npy"):
        reproduce.search(home, asked, source)
    found = reproduce.search(home, replace(asked, encoder=f"file:{matrix}"), source)
    assert found.verdict == "equal"
    refused = command(home, "reproduce", "sasrec/linear", "--encoder", f"file:{matrix}")
    assert (refused.returncode, "--encoder need --search" in refused.stderr) == (2, True)


def test_a_search_from_before_the_shipped_ranges_changed_is_repeated_in_the_recorded_ones(root, tmp_path, monkeypatch):
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases), False))
    (home := tmp_path / "home").mkdir()
    (older := tmp_path / "older").mkdir()
    axes = "lr = { low = 3e-4, high = 1e-2, log = true }\nweight_decay = { low = 1e-7, high = 1e-3, log = true }\n"
    (older / "train.toml").write_text(axes)
    source = spaces.SpaceSource(older, fixed=small_homes.SMALL)
    budget = replace(small_homes.BUDGET, trials=2)
    small_homes.run(small_homes.request(home, root / "toy", "linear", budget=budget, spaces=source))
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    assert reproduce.search(home, asked, spaces.SpaceSource(fixed=small_homes.SMALL)).verdict == "equal"


def test_a_row_that_began_cold_in_a_bench_with_a_warm_start_is_repeated(root, tmp_path, monkeypatch):
    monkeypatch.setattr(run_bench, "_search", lambda grid, bases, *_: (small_homes.train(grid, bases), False))
    (home := tmp_path / "home").mkdir()
    cold = small_homes.request(home, root / "toy", "linear", budget=replace(small_homes.BUDGET, trials=3))
    small_homes.run(replace(cold, adapters="svd"))
    small_homes.run(replace(cold, engine=replace(cold.engine, warm_start="toy")))
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    assert reproduce.search(home, asked, spaces.SpaceSource(fixed=small_homes.SMALL)).verdict == "equal"


def test_another_search_is_not_taken_for_the_recorded_one(root):
    asked = ReproduceRequest("sasrec/linear", dataset=str(root / "toy"))
    with pytest.raises(HarnessError, match="the search here would differ"):
        reproduce.search(root / "one", asked, spaces.SpaceSource())
    with pytest.raises(HarnessError, match="popularity was not searched"):
        reproduce.search(root / "one", ReproduceRequest("popularity"), spaces.SpaceSource())


def test_reproduce_on_the_command_line(root, tmp_path):
    home = root / "one"
    done = command(home, "reproduce", "toy/none/sasrec/id", "--seeds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verdict"] == "equal"
    for words, parts in (
        (["sasrec/idd"], ["no row 'sasrec/idd'", "toy/none/sasrec/id"]),
        (["sasrec"], ["'sasrec' matches 3 rows"]),
        (["id", "--run", "2099"], ["no launch '2099'"]),
        (["sasrec/id", "--dataset", "./nope"], ["nope", "Give the folder of toy with --dataset FOLDER"]),
    ):
        wrong = command(home, "reproduce", *words)
        assert wrong.returncode == 2, wrong.stderr
        assert all(part in wrong.stderr.splitlines()[-1] for part in parts), wrong.stderr
    empty = command(tmp_path / "empty", "reproduce", "id")
    assert empty.returncode == 2
    assert f"There is no home folder {tmp_path / 'empty'}" in empty.stderr


def test_a_row_without_a_confirmed_run_says_what_to_run(root, tmp_path):
    home = shutil.copytree(root / "one", tmp_path / "home")
    for segment in (home / "ledger").glob("*.jsonl"):
        lines = segment.read_text().splitlines(keepends=True)
        segment.write_text("".join(line for line in lines if '"kind":"ended"' not in line))
    (run,) = (path.stem for path in (home / "ledger").glob("*.jsonl") if '"adapter":"svd"' not in path.read_text())
    with pytest.raises(HarnessError, match=rf"no confirmed run yet: .*Rerun the bench of launch {run} with"):
        reproduce.run(home, ReproduceRequest("sasrec/id"))


@pytest.mark.parametrize("words", [["compare", "one", "one"]])
def test_comparing_imports_nothing_heavy(root, words):
    code = (
        "import sys\nfrom harness.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit as e:\n    assert not e.code, e.code\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(root), cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

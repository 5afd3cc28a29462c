"""The Python API says what the command line says, and gives frames."""

import shutil
import subprocess
import sys

import click
import polars as pl
import pytest
import small_homes
import torch
from command_line import environment
from dataset_files import make_dataset

import harness
from harness import api
from harness.record.ledger import Ledger
from harness.search.plan import Request
from harness.types import BUDGET_PARAMS
from harness.verbs import _request
from harness.verbs.bench import command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("api")
    (folder / "home").mkdir()
    small_homes.run(small_homes.request(folder / "home", make_dataset(folder / "toy"), "id,linear"))
    return folder


def test_every_option_of_bench_is_a_keyword():
    words = {o.opts[0].lstrip("-").replace("-", "_") for o in command.params if isinstance(o, click.Option)}
    assert set(api.BenchOptions.__annotations__) == words - set(api.NOT_HERE) | {"study"}, "add it to api.BenchOptions"


def test_keywords_come_to_the_request_that_the_command_line_makes(tmp_path):
    words = ["--datasets", "a,b", "--adapters", "id,!svd", "--trials", "7", "--keep-seen", "--one-pass", "--protocol"]
    words += ["gts", "--quantile", "0.8", "--set", "train.d=32", "--set", "train.loss=bce", "--home", str(tmp_path)]
    given = api.parsed(
        "bench",
        command,
        {"datasets": ["a", "b"], "adapters": "id,!svd", "trials": 7, "filter_seen": False, "iterate": False}
        | {"protocol": "gts", "quantile": 0.8, "set": {"train.d": 32, "train.loss": "bce"}, "home": tmp_path},
    )
    with command.make_context("bench", words) as context:
        assert given == context.params
    request = _request.request_of(given)
    assert isinstance(request, Request)
    assert (request.budget.trials, request.protocol.filter_seen, request.prep.iterate) == (7, False, False)
    assert request.spaces.fixed == BUDGET_PARAMS["quick"] | {"train.d": 32, "train.loss": "bce"}


def test_a_study_file_sets_options_that_keywords_override(tmp_path, monkeypatch):
    path = tmp_path / "study.toml"
    path.write_text('adapters = ["id", "svd"]\nseeds = 4\ntrials = 3\n[set]\n"train.d" = 32\n')
    passed = {}

    def run(options):
        passed.update(options)
        raise harness.HarnessError("not run")

    monkeypatch.setattr("harness.verbs.bench.run", run)
    with pytest.raises(harness.HarnessError, match="not run"):
        harness.bench(study=path, seeds=2, home=tmp_path)
    with command.make_context("bench", [str(path), "--seeds", "2", "--home", str(tmp_path)]) as context:
        assert passed == context.params
    assert (passed["adapters"], passed["seeds"], passed["trials"]) == ("id,svd", 2, 3)


def test_what_is_left_out_or_none_has_the_default_of_the_command_line(tmp_path):
    given = api.parsed("bench", command, {"home": tmp_path, "seeds": None})
    with command.make_context("bench", ["--home", str(tmp_path)]) as context:
        assert given == context.params


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "x"}, "harness.bench has no option 'dataset'. Did you mean 'datasets'"),
        ({"json": True}, "has no option 'json'"),
        ({"budget": "huge"}, "'huge' is not one of"),
        ({"trials": -1}, "--trials"),
        ({"study": "study.yaml"}, "it takes the path of a study file, which ends in .toml"),
        ({"study": "/nowhere/study.toml"}, "There is no study file /nowhere/study.toml"),
        ({"seeds": "many"}, "--seeds"),
        ({"filter_seen": "false"}, "filter_seen is 'false'; it takes True or False."),
        ({"iterate": "no"}, "iterate is 'no'; it takes True or False."),
        ({"adapters": "mpl", "datasets": "ml-100k"}, "Did you mean 'mlp'"),
    ],
)
def test_wrong_keywords_are_one_line(tmp_path, options, words):
    with pytest.raises(harness.HarnessError) as error:
        harness.bench(home=tmp_path, **options)
    assert words in str(error.value)


def test_leaderboard_and_compare_are_frames(root, tmp_path):
    home = root / "home"
    frame = harness.leaderboard(home)
    assert isinstance(frame, pl.DataFrame)
    assert {"id", "linear", "popularity"} <= set(frame["adapter"])
    [run] = Ledger.open(home).launches
    assert harness.leaderboard(home, run=run).equals(frame)
    other = shutil.copytree(home, tmp_path / "other")
    found = harness.compare(str(home), str(other))
    assert found["same_runs"].all()
    assert found["NDCG@10_difference"].abs().sum() == 0
    assert found.height == frame.height
    for wrong in (lambda: harness.leaderboard(home, run="2099"), lambda: harness.compare("nowhere", str(home))):
        with pytest.raises(harness.HarnessError):
            wrong()


def test_the_home_of_the_environment_is_used_and_nothing_heavy_is_imported(root):
    code = (
        "import sys, harness\n"
        "assert 'polars' not in sys.modules and 'click' not in sys.modules\n"
        "print(harness.leaderboard().height)\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env=environment(root / "home"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == harness.leaderboard(root / "home").height

"""A bench whose workers write checkpoints and weights to an S3-compatible store, past the driver's machine."""

import json
import time

import pytest
import small_homes
from command_line import bench, ended, harness, metrics_of
from dataset_files import make_dataset
from processes import kill_a_worker, start, wait_for
from s3_server import URL, S3Server

from harness.record import artifacts

GRID = ["--adapters", "id,svd,id+svd", "--backbones", "sasrec", "--sampler", "random", "--pruner", "none"]
GRID += ["--tracking", "off", "--trials", "2", "--epochs", "12", "--gpu", "0"]


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = S3Server(tmp_path / "store")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def wait_for_a_checkpoint(server, process):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any(name.endswith(".checkpoint") for name in server.files()):
            return
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint in the store: {process.poll()} {server.files()}")


def tables(*homes):
    return [metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout)) for home in homes]


@pytest.mark.slow
def test_a_bench_with_its_files_in_a_store_gives_the_same_table(tmp_path, server):
    folder, home, other = make_dataset(tmp_path / "toy", users=800), tmp_path / "home", tmp_path / "local"
    process = start(home, folder, *GRID, "--artifacts", URL)
    wait_for(home, "epoch", 2, process)
    wait_for_a_checkpoint(server, process)
    kill_a_worker(process)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    small_homes.bench(other, folder, *GRID)
    first, second = tables(home, other)
    assert first == second
    assert set(ended(home)) == set(ended(other))
    assert not list((home / "checkpoints").glob("*")), "none came through the recorder"
    stored = [name.partition("/")[2] for name in server.files()]
    pointers = list((home / "artifacts").glob(f"*/{artifacts.ELSEWHERE}"))
    assert [name for name in stored if not name.endswith(artifacts.WEIGHTS)] == ["README.txt"], (
        "checkpoints are removed"
    )
    assert len(stored) - 1 == len(pointers) == 2, "the weights of id and svd; an ensemble and baselines have none"
    fetched = {file.parent.name for file in (home / "artifacts").glob(f"*/{artifacts.WEIGHTS}")}
    assert fetched == {pointer.parent.name for pointer in pointers}, "the ensemble needed them"
    for file in (home / "artifacts").glob(f"*/{artifacts.WEIGHTS}"):
        file.unlink()
    done = harness(home, "export", "svd", "--output", str(tmp_path / "export"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_store_that_goes_away_costs_nothing_but_time(tmp_path, server):
    folder, home = make_dataset(tmp_path / "toy", users=800), tmp_path / "home"
    words = ["--adapters", "id,svd", *GRID[2:]]
    process = start(home, folder, *words, "--artifacts", URL)
    wait_for(home, "epoch", 2, process)
    wait_for_a_checkpoint(server, process)
    server.stop()
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert list((home / "artifacts").glob(f"*/{artifacts.WEIGHTS}")), "the home has the weights"
    refused = bench(home, folder, *words, "--epochs", "13", "--artifacts", URL)
    assert refused.returncode == 2
    (said,) = [line for line in refused.stderr.splitlines() if line.startswith("Error: ")]
    assert said.startswith(f"Error: --artifacts {URL} cannot be used: ")

"""Two bench processes on one home: overlapping grids, no work done twice, the same whole table in the end."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import polars as pl
import psutil
import pytest
import small_homes
from command_line import SMALL_MODEL, TINY, ended, environment, events, harness, metrics_of
from dataset_files import make_dataset

GRID = ["--backbones", "sasrec", "--sampler", "random", "--pruner", "none", "--trials", "4", "--epochs", "5"]
GRID += ["--tracking", "off", "--gpu", "0"]


def start(home, dataset, adapters, *words):
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(dataset), *TINY, *SMALL_MODEL, *GRID]
    return subprocess.Popen(
        [*command, "--adapters", adapters, "--threads", "1", *words],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def table(home, run=None):
    return metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout))


def wait_for(home, process, segments, seconds=300):
    """Until so many processes have begun a trial, or `process` is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        begun = ['"kind":"started"' in file.read_text() for file in (home / "ledger").glob("*.jsonl")]
        if sum(begun) >= segments:
            return
        time.sleep(0.02)


def kill(process):
    """SIGKILL a driver, and end the helpers that it leaves behind."""
    if process.poll() is None:
        helpers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for helper in helpers:
            with contextlib.suppress(psutil.Error):
                helper.kill()
        psutil.wait_procs(helpers, timeout=20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_benches_at_once_share_the_work_and_each_ends_with_the_whole_table(tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    home.mkdir()
    both = [start(home, folder, "id,linear,svd,mlp"), start(home, folder, "svd,mlp,id,linear,spectran")]
    said = [process.communicate(timeout=550) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    done = ended(home)
    assert [i for i, n in Counter(done).items() if n > 1] == [], "no trial is run twice"
    assert len(list((home / "ledger").glob("*.jsonl"))) == 2
    small_homes.bench(tmp_path / "alone", folder, *GRID, "--adapters", "id,linear,svd,mlp,spectran")
    assert set(done) == set(ended(tmp_path / "alone"))
    assert table(home) == table(tmp_path / "alone")
    for out, _ in said:
        assert all(name in out for name in ("id", "linear", "svd", "mlp"))
        assert "pending" not in out
    assert list((home / "leases").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_bench_ends_with_its_own_table_though_one_with_other_settings_began_later(tmp_path):
    """The first one is halted until the other has begun, and reads the other's launch when it goes on."""
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    home.mkdir()
    first = start(home, folder, "id,linear,mlp")
    wait_for(home, first, 1)
    first.send_signal(signal.SIGSTOP)
    second = start(home, folder, "svd", "--epochs", "3")
    wait_for(home, second, 2)
    first.send_signal(signal.SIGCONT)
    (out, err), (other, _) = (process.communicate(timeout=550) for process in (first, second))
    assert (first.returncode, second.returncode) == (0, 0), err
    launched = {event["table"] for event in events(home, "launched")}
    assert len(launched) == 2
    assert [all(name in said for name in ("linear", "mlp")) for said in (out, other)] == [True, False]
    reports = [set(pl.read_csv(file)["adapter"]) for file in (home / "reports").glob("*/leaderboard.csv")]
    assert sorted("mlp" in adapters for adapters in reports) == [False, True]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_a_killed_bench_held_is_taken_over_by_the_one_beside_it(tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    home.mkdir()
    first = start(home, folder, "id,svd")
    try:
        wait_for(home, first, 1)
        first.send_signal(signal.SIGSTOP)  # or it might be through before the second begins
        (segment,) = (home / "ledger").glob("*.jsonl")
        second = start(home, folder, "id,svd")
        wait_for(home, second, 2)
    finally:
        kill(first)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert list((home / "leases").glob("*.[0-9]")), "it held something"
    _, err = second.communicate(timeout=400)
    assert second.returncode == 0, err
    assert f"Launch {segment.stem} died; continuing its work" in err
    counts = Counter(ended(home))
    assert set(counts.values()) == {1}
    started = {event["id"] for event in events(home, "started")}
    assert started == set(counts), "everything that was begun has ended"

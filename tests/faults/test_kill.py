"""The driver killed for real, in the middle; what was done is kept, what was not is run, and nothing twice."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter

import psutil
import pytest
from conftest import make_dataset
from helpers import SMALL_MODEL, TINY, bench, ended, environment, events, harness, metrics_of

GRID = ["--adapters", "id,svd,spectran", "--backbones", "sasrec", "--sampler", "random", "--trials", "4"]
GRID += ["--epochs", "5", "--tracking", "off"]


def start(home, dataset, *words):
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(dataset), *TINY, *SMALL_MODEL]
    return subprocess.Popen(
        [*command, *GRID, *words], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(home, kind, count, process, seconds=120):
    """Until that many events of a kind are in the ledger, or the process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        lines = [line for file in (home / "ledger").glob("*.jsonl") for line in file.read_text().splitlines()]
        if sum(line.startswith(f'{{"kind":"{kind}"') for line in lines) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} events of kind {kind}: {process.poll()}")


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def kill_a_worker(process, seconds=60):
    """SIGKILL a process that runs a trial, as soon as there is one: trials are short, and actors come and go."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for helper in psutil.Process(process.pid).children(recursive=True):
            if title(helper).startswith("ray::ResourceTrainable"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    helper.kill()
                    return
        time.sleep(0.01)
    raise AssertionError(f"no trial was seen under way: {process.poll()}")


def sweep(helpers):
    """End the Ray processes that a killed driver left behind; they would go by themselves in some minutes."""
    for helper in helpers:
        with contextlib.suppress(psutil.Error):
            helper.kill()
    psutil.wait_procs(helpers, timeout=20)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    folder = make_dataset(root / "toy")
    process = bench(root / "home", folder, *GRID)
    assert process.returncode == 0, process.stderr
    return folder, root / "home"


def table(home):
    return metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout))


@pytest.mark.slow
def test_a_killed_driver_loses_nothing_and_repeats_nothing(undisturbed, tmp_path):
    folder, reference = undisturbed
    home = tmp_path / "home"
    for kind, count in (("epoch", 2), ("ended", 5), ("ended", 10)):
        process = start(home, folder)
        wait_for(home, kind, count, process)
        helpers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        sweep(helpers)
    final = bench(home, folder, *GRID)
    assert final.returncode == 0, final.stderr
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == [], "a finished trial is never run again"
    assert set(ended(home)) == set(ended(reference)), "the configurations of an undisturbed run"
    assert table(home) == table(reference)


@pytest.mark.slow
def test_an_interrupt_ends_well_and_the_same_command_goes_on(undisturbed, tmp_path):
    folder, reference = undisturbed
    home = tmp_path / "home"
    process = start(home, folder)
    wait_for(home, "ended", 4, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on" in err
    assert "Traceback" not in err
    done = set(ended(home))
    assert len(done) >= 4
    assert bench(home, folder, *GRID).returncode == 0
    assert table(home) == table(reference)


@pytest.mark.slow
def test_a_killed_worker_costs_a_retry_and_no_trial(undisturbed, tmp_path):
    folder, reference = undisturbed
    home = tmp_path / "home"
    process = start(home, folder)
    wait_for(home, "epoch", 3, process)
    kill_a_worker(process)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert not [e for e in events(home, "ended") if e["result"]["status"] == "failed"]
    assert set(ended(home)) == set(ended(reference))
    assert table(home) == table(reference)

"""A bench that is asked to stop: by Ctrl-C, twice by Ctrl-C, and by a batch system's SIGTERM."""

import json
import os
import signal
import time
from collections import Counter

import psutil
import pytest
from command_line import ended, events
from dataset_files import make_dataset
from processes import alive, count, offspring, start, wait_for

LONG = ["--adapters", "id,svd", "--sampler", "random", "--pruner", "none", "--tracking", "off"]
LONG += ["--budget", "standard", "--trials", "2", "--epochs", "36"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("signals") / "toy", users=800, items=200)


def stop(home, folder, *signals):
    """Start the bench, wait until it trains, send the signals to all its processes as a terminal and a batch system
    do; returns exit code, stdout, stderr and the number of trials that were started when the first was sent."""
    process = start(home, folder, *LONG)
    before = count(home, "epoch") if home.exists() else 0
    wait_for(home, "epoch", before + 3, process)
    helpers, started = offspring(process), count(home, "started")
    for signum in signals:
        os.killpg(process.pid, signum)
        time.sleep(0.2)
    out, err = process.communicate(timeout=400)
    _, left = psutil.wait_procs(helpers, timeout=15)
    assert not alive(left), "no process outlives the command"
    assert "Traceback" not in err
    return process.returncode, out, err, started


def epochs_in(checkpoint):
    """Epochs that a saved trial has behind it, read as the plain safetensors file it is."""
    data = checkpoint.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return len(json.loads(header["__metadata__"]["curve"]))


@pytest.mark.slow
def test_a_bench_that_is_stopped_ends_well_and_goes_on_where_it_was(folder, tmp_path):
    home = tmp_path / "home"
    for signum, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        found, out, err, started = stop(home, folder, signum)
        assert found == code, err
        assert err.count("Stopping (") == 1, err
        assert "run the same command to resume" in err
        assert count(home, "started") == started, "no trial is started any more"
        assert "NDCG@10" in out, "the table so far"
        assert list(home.glob("reports/*/leaderboard.html"))
        told = {e["id"]: e["epoch"] + 1 for e in events(home, "epoch") if e["id"] not in ended(home)}
        assert told == {file.stem: epochs_in(file) for file in home.glob("checkpoints/*")}, "all epochs are saved"
    found, out, err, _ = stop(home, folder, signal.SIGINT, signal.SIGINT)
    assert (found, out) == (130, ""), err
    process = start(home, folder, *LONG)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == []

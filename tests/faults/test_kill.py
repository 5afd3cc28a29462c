"""The driver killed for real, anywhere; what was done is kept, what was not is run, and nothing twice."""

import multiprocessing
import os
import random
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import small_homes
from command_line import bench, bench_words, ended, environment, events, harness
from dataset_files import make_dataset
from processes import alive, kill_a_worker, lines, offspring, start, sweep, table, wait_for

# Which trials a pruner stops depends on what ended before them, and so on the order in which slots come free.
SMALL = ["--adapters", "id,svd,spectran", "--backbones", "sasrec", "--sampler", "random", "--trials", "4"]
SMALL += ["--epochs", "12", "--pruner", "none", "--tracking", "off", "--gpu", "0"]
GRID = ["--adapters", "id,svd,spectran,linear", "--sampler", "random", "--pruner", "none", "--trials", "8"]
GRID += ["--epochs", "5", "--tracking", "off"]
RANDOM_KILLS = 20


def one_bench(home, words, failpoint, log):
    """What a forked process does: the command line, as if it had been started with this environment."""
    trusted = {"HARNESS_TRUSTED_NETWORK": "1"}  # the cluster of `warm` is not on loopback and has no token
    os.environ.update(environment(home) | trusted | {"HARNESS_FAILPOINT": failpoint})
    with open(log, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from harness.cli import main

    main(words, standalone_mode=True)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A way to start many benches cheaply: forked from a server that has imported everything, on one Ray cluster that
    outlives them. Gives a function (home, failpoint) -> process, and the data set."""
    from ray.cluster_utils import Cluster

    root = tmp_path_factory.mktemp("warm")
    folder = make_dataset(root / "toy")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["harness.cli", "harness.workflows.run_bench", "harness.engine.ray_tune", "harness.training.trial"]
    )
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    Path(root / "log.txt").touch()

    def begin(home, failpoint=""):
        words = [*bench_words(folder, *GRID), "--address", cluster.address]
        process = context.Process(target=one_bench, args=(home, words, failpoint, str(root / "log.txt")))
        process.start()
        return process

    yield begin, root / "log.txt"
    cluster.shutdown()


def finish(begin, home, log, failpoint="", code=0):
    process = begin(home, failpoint)
    process.join(900)
    assert process.exitcode == code, Path(log).read_text()[-3000:]


@pytest.fixture(scope="module")
def reference(warm, tmp_path_factory):
    """The grid, undisturbed."""
    begin, log = warm
    home = tmp_path_factory.mktemp("reference") / "home"
    finish(begin, home, log)
    return home


def check_against(home, reference):
    """Every planned trial ended exactly once, in the same way, and the table is the same to the last bit."""
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == [], "no trial ended twice"
    ends, decisions = ([form(h) for h in (home, reference)] for form in (endings, decided))
    assert {i: e for i, e in ends[0].items() if ends[1].get(i) != e} == {}, "as in the undisturbed run"
    assert ends[0].keys() == ends[1].keys()
    assert decisions[0] == decisions[1]
    assert table(home) == table(reference)


def endings(home):
    return {e["id"]: tuple(e["result"][k] for k in ("status", "reason", "curve")) for e in events(home, "ended")}


def decided(home):
    return {(e["study"], e["winner"]) for e in events(home, "decided")}


@pytest.mark.slow
def test_a_driver_killed_at_twenty_random_points_comes_to_the_undisturbed_table(warm, reference, tmp_path):
    begin, log = warm
    home, chance, kills = tmp_path / "home", random.Random(6), 0
    while kills < RANDOM_KILLS:
        before = len(lines(home)) if home.exists() else 0
        wanted, wait = before + chance.randrange(12), chance.random() * 0.03
        process = begin(home)
        deadline = time.monotonic() + 300
        while process.is_alive() and time.monotonic() < deadline and len(lines(home)) < wanted:
            time.sleep(0.005)
        time.sleep(wait)
        process.kill()
        process.join()
        assert process.exitcode in (-9, 0), Path(log).read_text()[-2000:]
        if process.exitcode == 0:  # the machine was faster than the killer: once more from the start
            check_against(home, reference)
            home = tmp_path / f"home-{kills}"
        else:
            kills += 1
    finish(begin, home, log)
    check_against(home, reference)


@pytest.mark.slow
def test_a_driver_killed_where_it_hurts_comes_to_the_undisturbed_table(warm, reference, tmp_path):
    begin, log = warm
    home = tmp_path / "home"
    for place in ("launched", "append:30", "append:60", "ended", "searched", "report"):
        finish(begin, home, log, place, code=-9)
    halves = [folder for folder in (home / "reports").iterdir() if not (folder / "leaderboard.html").exists()]
    assert len(halves) == 1, "one was killed between two files of its report"
    finish(begin, home, log)
    torn = [f for f in (home / "ledger").glob("*.jsonl") if not f.read_bytes().endswith(b"\n")]
    assert len(torn) == 2, "two were killed half-way through a line"
    for file in torn:  # what follows reads whole lines
        file.write_bytes(file.read_bytes().rpartition(b"\n")[0] + b"\n")
    check_against(home, reference)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("undisturbed")
    folder = make_dataset(root / "toy")
    small_homes.bench(root / "home", folder, *SMALL)
    return folder, root / "home"


@pytest.mark.slow
def test_workers_of_a_killed_driver_end_within_seconds(undisturbed, tmp_path):
    folder, reference = undisturbed
    home = tmp_path / "home"
    process = start(home, folder, *SMALL)
    wait_for(home, "epoch", 2, process)
    helpers = offspring(process)
    computing = [p for p in helpers if p.name().startswith("ray::") and "Agent" not in p.name()]
    assert computing
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(computing, timeout=20)
    sweep(helpers)
    assert not alive(left), "nothing may go on computing for a driver that is gone"
    assert "stopped after" in harness(home, "status").stdout
    again = bench(home, folder, *SMALL)
    assert again.returncode == 0, again.stderr
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == []
    assert table(home) == table(reference)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ResourceTrainable", "Recorder"])
def test_a_killed_worker_or_recorder_costs_a_retry_and_no_trial(undisturbed, tmp_path, kind):
    folder, reference = undisturbed
    home = tmp_path / "home"
    process = start(home, folder, *SMALL)
    wait_for(home, "epoch", 3, process)
    kill_a_worker(process, kind)
    _, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert ("its worker died: killed" if kind == "ResourceTrainable" else "its worker lost the driver") in err
    assert not [e for e in events(home, "ended") if e["result"]["status"] == "failed"]
    assert set(ended(home)) == set(ended(reference))
    assert table(home) == table(reference)

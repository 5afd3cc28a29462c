"""Clocks that jump: the newest launch stays the newest, durations stay true, nothing is lost or put out of order."""

import json
import os

import pytest
import small_homes
from command_line import bench, ended, environment, events, harness_process, metrics_of
from dataset_files import make_dataset

GRID = ["--adapters", "id", "--backbones", "sasrec", "--sampler", "random", "--tracking", "off", "--gpu", "0"]
SHIFTED = """
import os, time
_time, _ns, _gmtime, _localtime = time.time, time.time_ns, time.gmtime, time.localtime
_shift = float(os.environ["TEST_CLOCK_SHIFT"])
_wild = os.environ.get("TEST_CLOCK_WILD") and "harness.cli" in open("/proc/self/cmdline").read()
_calls = 0
def _now():
    global _calls
    _calls += 1
    return _shift + (3600.0 * (_calls // 50 % 3 - 1) if _wild else 0.0)
time.time = lambda: _time() + _now()
time.time_ns = lambda: _ns() + int(_now() * 1e9)
time.gmtime = lambda *at: _gmtime(*(at if at and at[0] is not None else (time.time(),)))
time.localtime = lambda *at: _localtime(*(at if at and at[0] is not None else (time.time(),)))
"""


@pytest.fixture
def clock(tmp_path, monkeypatch):
    """Set the clock of every process that is started from now on; `wild` lets the driver's jump by an hour for ever."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHIFTED)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )

    def set_to(hours, wild=False):
        monkeypatch.setenv("TEST_CLOCK_SHIFT", str(3600 * hours))
        monkeypatch.setenv("TEST_CLOCK_WILD", "1" if wild else "")

    return set_to


def table(home):
    return json.loads(harness_process(home, "leaderboard", "--format", "json").stdout)


@pytest.mark.slow
def test_a_bench_after_the_clock_went_back_is_the_newest_one(clock, tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    clock(0)
    small_homes.bench(home, folder, *GRID)
    clock(-1)
    grown = bench(home, folder, *GRID, "--trials", "3")
    assert grown.returncode == 0, grown.stderr
    first, second = sorted(path.stem for path in (home / "ledger").glob("*.jsonl"))
    launches = {path.stem: json.loads(path.read_text().splitlines()[0]) for path in (home / "ledger").glob("*.jsonl")}
    assert launches[first]["time"] > launches[second]["time"], "by the clock it would be the older one"
    assert launches[second]["budget"]["trials"] == 3
    assert table(home)["header"]["budget"]["trials"] == 3
    status = json.loads(harness_process(home, "status", "--json").stdout)
    assert (status["run"], status["over"]) == (second, True)
    reports = sorted((home / "reports").iterdir())
    assert json.loads((reports[-1] / "leaderboard.json").read_text())["header"]["budget"]["trials"] == 3
    assert len(reports) == 2
    clock(0)
    done = len(ended(home))
    assert "Nothing is left to do" in bench(home, folder, *GRID, "--trials", "3").stderr
    assert len(ended(home)) == done


@pytest.mark.slow
def test_a_clock_that_jumps_by_an_hour_all_the_time_changes_no_result_and_no_duration(clock, tmp_path):
    folder, home = make_dataset(tmp_path / "toy"), tmp_path / "home"
    clock(0, wild=True)
    wild = bench(home, folder, *GRID)
    assert wild.returncode == 0, wild.stderr
    times = [event["time"] for event in events(home)]
    assert max(times) - min(times) > 3000, "it did jump"
    assert all(0 <= event["result"]["info"]["seconds"] < 300 for event in events(home, "ended"))
    clock(0)
    small_homes.bench(tmp_path / "calm", folder, *GRID)
    assert metrics_of(table(home)) == metrics_of(table(tmp_path / "calm"))
    assert environment(home)["TEST_CLOCK_SHIFT"] == "0"

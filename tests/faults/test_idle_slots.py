"""Slots and the processes behind them, on the real command line."""

import contextlib
import time

import psutil
import pytest
from command_line import ended, events
from dataset_files import make_dataset
from processes import offspring, start, title

ACTORS = ("ray::ResourceTrainable", "ray::TrialActor")  # at work, and with nothing to do


@pytest.mark.slow
def test_a_slot_with_nothing_to_do_for_a_moment_keeps_its_process(tmp_path):
    """Three trials in two slots: one slot waits until the third has decided what both confirm."""
    folder, home = make_dataset(tmp_path / "toy", users=800, items=200), tmp_path / "home"
    words = ["--adapters", "id", "--trials", "3", "--seeds", "2", "--epochs", "8", "--pruner", "none"]
    process = start(home, folder, *words, "--threads", "1", "--tracking", "off")
    found = set()
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {helper.pid for helper in offspring(process) if title(helper).startswith(ACTORS)}
        time.sleep(0.02)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert len(ended(home)) == 3 + 2 + 3, "with the baselines"
    assert 0 < len(found) <= events(home, "launched")[0]["provenance"]["slots"]

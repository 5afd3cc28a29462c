"""Commands and functions that run trials, interrupted while one trains, on a real Ray: none takes a part for the whole.

Ctrl-C is pressed by the driver itself, when it hears of an epoch, so that nothing depends on how fast trials are.
"""

import json
import os
import signal

import pytest
from command_line import SMALL_MODEL, harness

from harness.search.studies import TrialQueue

pytestmark = pytest.mark.slow
ONE_SLOT = ["--threads", str(os.cpu_count())]
SIZE = ["--encoders", "noise", "--kcore", "0", *SMALL_MODEL, "--epochs", "3", "--seeds", "1"]


@pytest.fixture
def interrupt_in(monkeypatch):
    """Press Ctrl-C at the first epoch of a run's n-th trial that trains."""

    def press(number):
        whole, trained = TrialQueue.epoch, []

        def epoch(queue, trial_id, *arguments):
            if trial_id not in trained and len(trained) < number:
                trained.append(trial_id)
                if len(trained) == number:
                    signal.raise_signal(signal.SIGINT)
            return whole(queue, trial_id, *arguments)

        monkeypatch.setattr(TrialQueue, "epoch", epoch)

    return press


def test_a_plan_gives_no_forecast_of_some_of_its_cells_and_keeps_what_it_measured(home, dataset, interrupt_in):
    words = ["plan", "--datasets", str(dataset), "--adapters", "id,svd,linear", *SIZE, *ONE_SLOT, "--deadline", "1h"]
    interrupt_in(2)
    stopped = harness(home, *words, "--json")
    assert (stopped.returncode, stopped.stdout) == (130, ""), stopped.stderr
    assert "Calibrating 3 cells" in stopped.stderr
    assert not (home / "forecast.json").exists()
    again = harness(home, *words, "--json")
    assert again.returncode == 0, again.stderr
    assert "Calibrating" in again.stderr
    assert "Calibrating 3 cells" not in again.stderr, "the first cell was measured before"
    forecast = json.loads(again.stdout)
    assert not forecast["unpriced"]
    assert sum(cost["source"] == "calibration" for cost in forecast["costs"]) == 3
    assert (home / "forecast.json").exists()

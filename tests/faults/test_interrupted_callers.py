"""Commands and functions that run trials, interrupted while one trains, on a real Ray: none takes a part for the whole.

Ctrl-C is pressed by the driver itself, when it hears of an epoch, so that nothing depends on how fast trials are.
"""

import json
import os
import signal

import pytest
import small_homes
from command_line import SMALL_MODEL, harness

from harness import api
from harness.engine import ray_tune
from harness.record.ledger import Ledger
from harness.search.studies import TrialQueue
from harness.workflows import reproduce

pytestmark = pytest.mark.slow
ONE_SLOT = ["--threads", str(os.cpu_count())]
SIZE = ["--encoders", "noise", "--kcore", "0", *SMALL_MODEL, "--epochs", "3", "--seeds", "1"]


@pytest.fixture
def interrupt_in(monkeypatch):
    """Press Ctrl-C, or send another signal, at the first epoch of a run's n-th trial that trains."""

    def press(number, signum=signal.SIGINT):
        whole, trained = TrialQueue.epoch, []

        def epoch(queue, trial_id, *arguments):
            if trial_id not in trained and len(trained) < number:
                trained.append(trial_id)
                if len(trained) == number:
                    signal.raise_signal(signum)
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


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_script_gets_no_part_of_a_table_and_the_same_call_resumes(home, dataset, interrupt_in, signum, code):
    options = {"datasets": str(dataset), "adapters": "id,svd", "encoders": "noise", "kcore": 0, "home": str(home)}
    options |= {"epochs": 3, "seeds": 1, "threads": os.cpu_count(), "tracking": "off"}
    options |= {"set": {"train.d": 16, "train.max_len": 8, "train.batch_size": 96}}
    interrupt_in(1, signum)
    with pytest.raises(KeyboardInterrupt) as stopped:
        api.bench(options)
    assert stopped.value.code == code
    assert "pending" in set(api.leaderboard(home, None, None)["state"]), "the table so far"
    whole = api.bench(options)
    assert set(whole["state"]) == {"done"}
    kinds = [over["kind"] for over in Ledger.open(home).over.values()]
    assert kinds == ["stopped", "finished"]


@pytest.fixture
def recorded(home, dataset):
    """A home with a searched row, and the command that repeats its search."""
    small_homes.run(small_homes.request(home, dataset, "linear"))
    return home, ["reproduce", "sasrec/linear", "--search", "--dataset", str(dataset), *SMALL_MODEL]


def test_an_interrupted_repetition_of_a_search_is_no_verdict_on_its_row(recorded, interrupt_in):
    home, words = recorded
    before = small_homes.snapshot(home)
    interrupt_in(1)
    stopped = harness(home, *words)
    assert (stopped.returncode, stopped.stdout) == (130, ""), stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("Interrupted. The home is unchanged"), "none of it is kept"
    assert small_homes.snapshot(home) == before


def test_a_search_that_trained_with_more_threads_than_there_are_cores_is_not_repeated(recorded, monkeypatch):
    home, words = recorded
    monkeypatch.setattr(ray_tune, "run", lambda *_: pytest.fail("its trials wait for ever"))
    monkeypatch.setattr(reproduce._Recorded, "threads", lambda *_: 5000)
    refused = harness(home, *words)
    assert refused.returncode == 2, refused.stderr
    assert "as many threads per trial as its launch (5000)" in refused.stderr.splitlines()[-1]
    assert "--threads" not in refused.stderr.splitlines()[-1], "it has no such option"

"""What the ledger gets of a trial whose worker failed too often."""

from types import SimpleNamespace

from small_trials import a_trial

from harness.engine import failures, ray_tune
from harness.engine.worker_reports import Epoch
from harness.search.studies import Assignment
from harness.system.signals import Stop


class Queue:
    """Records what is reported of trials."""

    over = False

    def __init__(self):
        self.results = {}

    def epoch(self, trial_id, epoch, value, users=()):
        return False

    def ended(self, trial_id, result):
        self.results[trial_id] = result


def test_a_trial_that_crashed_keeps_its_epochs_and_their_seconds(home):
    """They count against --cell-seconds, and a resumed pruner compares other trials with them."""
    trial, queue = a_trial("id"), Queue()
    searcher = ray_tune.GridSearcher(queue, home, Stop())
    searcher.flying["ray"] = Assignment(trial, SimpleNamespace(), 0)
    scheduler = ray_tune.GridScheduler(searcher, None, 1, lambda text: None)
    for curve, seconds in (([0.1], 60.0), ([0.1, 0.2], 125.0)):
        assert not scheduler._over("ray", Epoch(curve, seconds, False, []))
    searcher.failures[trial.id] = failures.FailureCount(counted=ray_tune.RETRIES + 1, reason="killed")
    searcher.on_trial_complete("ray", error=True)
    result = queue.results[trial.id]
    assert (result.status, result.reason) == ("failed", f"killed ({ray_tune.RETRIES + 1} times)")
    assert result.curve == [0.1, 0.2]
    assert result.info["seconds"] == 125.0

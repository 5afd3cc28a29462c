"""What the ledger gets of a trial whose worker failed too often."""

from types import SimpleNamespace

import pytest
from small_trials import a_trial

from harness.engine import failures, ray_tune
from harness.engine.worker_reports import Epoch
from harness.search.studies import Assignment
from harness.system.files import GOES_ON
from harness.system.signals import Stop
from harness.types import HarnessError


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


def test_a_failure_of_the_recorder_ends_the_bench_and_no_trial(home, tmp_path):
    """Such as weights in a place that is away. A failed trial would stay failed after the place is back."""
    trial, queue = a_trial("id"), Queue()
    searcher = ray_tune.GridSearcher(queue, home, Stop())
    searcher.flying["ray"] = Assignment(trial, SimpleNamespace(), 0)
    scheduler = ray_tune.GridScheduler(searcher, None, 1, lambda text: None)
    said = f"{failures.RECORDER}: HarnessError: model.safetensors of trial t is in s3://b, which is away: timeout"
    (tmp_path / "error").write_text(f"Failure # 1\nTraceback\nharness.engine.worker.Unreachable: {said}\n")
    failed = SimpleNamespace(trial_id="ray", error_file=str(tmp_path / "error"), run_metadata=SimpleNamespace())
    for _ in range(failures.MAX_NODE_LOSSES - 1):
        scheduler.on_trial_error(None, failed)
    assert failed.run_metadata.num_failures == 0
    with pytest.raises(HarnessError) as error:
        scheduler.on_trial_error(None, failed)
    assert str(error.value) == f"{trial.cell}: {said}. {GOES_ON}"
    assert queue.results == {}


def test_a_pending_trial_is_passed_over_for_a_limited_time(home, monkeypatch):
    """The newest comes first; one whose node died may wait for a process that never starts."""
    now = [0.0]
    monkeypatch.setattr(ray_tune, "monotonic", lambda: now[0])
    monkeypatch.setattr(ray_tune.tune_memory, "save_none", lambda controller: None)
    scheduler = ray_tune.GridScheduler(ray_tune.GridSearcher(Queue(), home, Stop()), None, 1, lambda text: None)
    scheduler.controller = object()
    trials = [SimpleNamespace(trial_id=str(n), status="PENDING", PENDING="PENDING") for n in range(3)]
    controller = SimpleNamespace(get_live_trials=lambda: trials)
    assert scheduler.choose_trial_to_run(SimpleNamespace(get_live_trials=list)) is None
    for now[0], trial in enumerate(trials):
        scheduler.on_trial_add(controller, trial)
    assert scheduler.choose_trial_to_run(controller) is trials[2]
    now[0] = ray_tune.WAIT + 0.5
    assert scheduler.choose_trial_to_run(controller) is trials[0]
    trials[0].status = "RUNNING"
    assert scheduler.choose_trial_to_run(controller) is trials[2]

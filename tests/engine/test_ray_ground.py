"""The parts of Ray that the engine uses without a promise of Ray's: each is tried for real, so that an upgrade that
moves one fails here and not in a bench. `pyproject.toml` admits one minor release of Ray for the same reason."""

import os
import signal
import sys
import tomllib
from pathlib import Path

import pytest
import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from harness.engine import failures, ray_cluster, tune_memory

ROOT = Path(__file__).resolve().parents[2]
TRIALS = 6


class Actor(tune.Trainable):
    """Ends its trial at the first step, or dies in it, as the configuration says."""

    def setup(self, config):
        if config["does"] == "refuse":
            raise RuntimeError("no setup")
        self.does = config["does"]

    def reset_config(self, new_config):
        self.does = new_config["does"]
        return True

    def step(self):
        if self.does == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return {"pid": os.getpid(), "value": 0.0}  # the scheduler ends the trial


class Configurations(Searcher):
    """Gives configurations one by one, then FINISHED."""

    def __init__(self, does):
        super().__init__(metric="value", mode="max")
        self.left = list(does)

    def suggest(self, trial_id):
        return {"does": self.left.pop(0)} if self.left else Searcher.FINISHED

    def on_trial_complete(self, trial_id, result=None, error=False):
        pass

    def save(self, checkpoint_path):
        pass

    def restore(self, checkpoint_path):
        pass


class Witness(FIFOScheduler):
    """Notes what the engine's scheduler reads, and writes the number of failures as it does."""

    def __init__(self, counted):
        super().__init__()
        self.counted = counted  # number of failures to write after each failure
        self.errors, self.pids, self.statuses, self.caches, self.trials = [], [], set(), [], []

    def save(self, checkpoint_path):
        pass

    def on_trial_add(self, tune_controller, trial):
        cache = tune_controller._tune_controller._actor_cache
        if not self.caches:
            cache.increase_max(trial.placement_group_factory, by=1)
        self.caches.append(cache)
        self.trials.append(trial)
        self.controller = tune_controller._tune_controller

    def on_trial_complete(self, tune_controller, trial, result):
        self.filled = bool(trial.last_result and trial.config and trial.evaluated_params)
        tune_memory.forget(trial)

    def on_trial_result(self, tune_controller, trial, result):
        self.pids.append(result["pid"])
        return self.STOP

    def choose_trial_to_run(self, tune_controller):
        tune_memory.save_none(tune_controller)
        self.statuses |= {trial.status for trial in tune_controller.get_trials()}
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == trial.PENDING]
        return max(pending, key=self.trials.index, default=None)

    def on_trial_error(self, tune_controller, trial):
        self.errors.append(Path(trial.error_file).read_text().rpartition("Failure # ")[2])
        trial.run_metadata.num_failures = self.counted[len(self.errors) - 1]


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine. Its workers do not find this file, so `Actor` travels by value."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_cluster.cluster(None):
        yield


def fit(tmp_path, does, witness, failures_allowed=2):
    tune.Tuner(
        tune.with_resources(Actor, tune.PlacementGroupFactory([{"CPU": float(ray.cluster_resources()["CPU"])}])),
        tune_config=tune.TuneConfig(
            search_alg=Configurations(does),
            scheduler=witness,
            num_samples=-1,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=failures_allowed),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    ).fit()


@pytest.mark.slow
def test_a_chosen_pending_trial_takes_the_process_of_the_one_before(cluster, tmp_path):
    witness = Witness([])
    fit(tmp_path, ["end"] * TRIALS, witness)
    assert len(witness.pids) == TRIALS
    assert len(set(witness.pids)) == 1, "every trial started a process of its own"
    assert {"PENDING", "TERMINATED"} <= witness.statuses
    assert all(cache is witness.caches[0] for cache in witness.caches)


@pytest.mark.slow
def test_tune_keeps_neither_results_nor_configurations_of_completed_trials(cluster, tmp_path):
    witness = Witness([])
    fit(tmp_path, ["end"] * TRIALS, witness)
    assert witness.filled, "there was something to free"
    for trial in witness.trials:
        kept = trial.run_metadata
        assert not any((kept.metric_analysis, kept.metric_n_steps, trial.config, trial.evaluated_params))
        assert not trial._Trial__unresolved_config
        assert set(trial.last_result) <= {"trial_id"}
    assert len(witness.controller._trial_metadata) <= 2, "Tune saves the trials of its last loop only"


@pytest.mark.slow
def test_a_failure_is_in_its_file_and_the_written_number_decides_on_a_retry(cluster, tmp_path):
    """Two failures do not count, the third is written as the second: the fourth exceeds two retries."""
    witness = Witness([0, 0, 2, 3])
    fit(tmp_path, ["die"], witness)
    assert len(witness.errors) == 4
    reasons = {failures.reason(text, lambda: "Killed") for text in witness.errors}
    assert reasons == {"its worker died: Killed"}


@pytest.mark.slow
def test_a_worker_that_cannot_start_is_told_from_one_that_dies(cluster, tmp_path):
    witness = Witness([1])
    fit(tmp_path, ["refuse"], witness, failures_allowed=0)
    assert [failures.failed_at_start(text) for text in witness.errors] == [True]


def test_the_texts_that_tell_failures_apart_are_in_ray():
    """Those that no test here provokes: the memory monitor, and the loss of a node (`tests/faults/test_cluster.py`)."""
    folder = Path(ray.__file__).parent
    programs = [folder / "_raylet.so", folder / "core/src/ray/raylet/raylet"]
    found = b"".join(program.read_bytes() for program in programs)
    for words in (b"running low on memory", b"has died", b"was terminated", b"is unavailable"):
        assert words in found, words


def test_one_minor_release_of_ray_is_admitted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "ray[tune]>=2.60,<2.61" in project["dependencies"]
    assert ray.__version__.startswith("2.60."), "change the bounds, then run the slow tests with the new release"

"""The only room that speaks to Ray: one Tune run over the whole grid.

The driver's searcher and scheduler ask and tell the `Grid`; trials run in actors that are used again and keep the
data of their last cells; what they leave (checkpoints, artifacts) goes through one recorder actor on the driver's
machine, so that nodes need no shared folder. Ray holds no truth: its own files are thrown away.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # resuming is the ledger's business
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "64")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import store
from harness.data import Split
from harness.studies import Assignment, Grid
from harness.types import HarnessError, Trial, TrialResult

RETRIES = 2  # of a trial whose worker process died
SAVE_SHARE = 0.05  # of a trial's time at most goes into checkpoints
KEPT_CELLS = 2  # data sets an actor keeps by hash
GPU_SHARE = 0.25  # of a GPU a trial: the models of this bench fill no whole one


@dataclass(frozen=True)
class Layout:
    """How trials share a cluster: `slots` at a time, each with `threads` torch threads and `gpu` of a GPU."""

    slots: int
    threads: int = 1
    gpu: float = 0.0


def layout(resources: dict[str, Any], width: int, threads: int | None, gpu: float | None) -> Layout:
    """Slots for a grid that can have `width` trials under way at once.

    threads None: as many as leave no core idle, so that slots x threads = cores wherever that divides; one thread as
    soon as there are as many trials as cores, since a small model gains more from a second trial than from a second
    thread. It depends on the whole grid, not on what is left of it: a bench that goes on computes as it began.
    gpu None: GPU_SHARE of one where there are any. Raises HarnessError for a share the cluster cannot give.
    """
    gpus, cpus = resources["gpus"], resources["cpus"]
    share = (GPU_SHARE if gpus else 0.0) if gpu is None else gpu
    if share and not 0 < share <= min(gpus, 1.0):
        raise HarnessError(f"--gpu {share:g} of a GPU a trial: it takes 0 to 1, and this cluster has {gpus:g} GPUs.")
    width = max(1, min(width, int(gpus / share) if share else width))
    threads = threads or max(1, min(cpus // width, resources["node_cpus"]))
    return Layout(max(1, min(cpus // threads, int(gpus / share) if share else cpus)), threads, share)


@dataclass(frozen=True)
class Shared:
    """What actors read: object references by hash. `splits` keys are (data hash, role)."""

    splits: dict[tuple[str, str], Any]
    spectra: dict[str, Any]
    sizes: dict[str, int]
    recorder: Any
    layout: Layout


class Recorder:
    """Writes what actors leave into the home folder, on the driver's machine."""

    def __init__(self, home: str) -> None:
        self.home = Path(home)

    def checkpoint(self, trial_id: str) -> bytes | None:
        return store.load_checkpoint(self.home, trial_id)

    def save(self, trial_id: str, data: bytes) -> None:
        store.save_checkpoint(self.home, trial_id, data)

    def finish(self, trial_id: str, artifacts: dict[str, Any]) -> None:
        store.save_artifacts(self.home, trial_id, **artifacts)


class TrialActor(tune.Trainable):
    """One slot: trains one trial after another, an epoch a step."""

    def setup(self, config: dict[str, Any], shared: Shared) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        import torch

        torch.set_num_threads(shared.layout.threads)
        self.device = "cuda" if shared.layout.gpu and torch.cuda.is_available() else "cpu"
        self.shared = shared
        self.cache: OrderedDict[str, Any] = OrderedDict()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self.work = Trial.from_json(config["trial"])
        self.training: Any = None
        self.saved_at, self.save_cost = time.monotonic(), 0.0

    def step(self) -> dict[str, Any]:
        """An epoch. Faults of the trial itself are results, so that the actor lives on."""
        from harness.trial import TrialFailed

        try:
            return self._step()
        except TrialFailed as error:
            return self._ended(TrialResult("failed", reason=str(error), curve=self._curve(), info=self._spent()))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            logging.getLogger("harness").exception("trial %s", self.work.id)
            return self._ended(TrialResult("failed", reason=reason, curve=self._curve(), info=self._spent()))

    def _curve(self) -> list[float]:
        return list(self.training.curve) if self.training is not None else []

    def _spent(self) -> dict[str, float]:
        """Seconds of whole epochs: what a failed trial takes off its cell's budget."""
        return {"seconds": self.training.seconds} if self.training is not None else {}

    def _step(self) -> dict[str, Any]:
        from harness import trial as core

        key, role = self.work.inputs["data"], self.work.role
        split: Split = self._fetch(f"{key}/{role}", self.shared.splits[key, role])
        if self.work.cell.is_baseline:
            return self._finish(*core.run_baseline(self.work, split, self._spectrum()))
        if self.training is None:
            self.training = core.Training(self.work, split, self._spectrum(), self.device)
            saved = ray.get(self.shared.recorder.checkpoint.remote(self.work.id))
            if saved is not None:
                self.training.restore(saved)
        curve = self.training.curve
        if not self.training.over:
            self.training.epoch()
        if self.training.over:
            return self._finish(*self.training.finish())
        self._save()
        return {"value": curve[-1], "curve": json.dumps(curve), "seconds": self.training.seconds}

    def _spectrum(self) -> Any:
        from harness.trial import spectrum

        key = self.work.inputs["embedding"]
        if not key:
            return spectrum({}, self.shared.sizes[self.work.inputs["data"]])
        return spectrum(self._fetch(f"{key}/basis", self.shared.spectra[key]), 0)

    def _fetch(self, name: str, reference: Any) -> Any:
        """An object of the node's store, mapped once and kept with those of the last cells."""
        if name not in self.cache:
            self.cache[name] = ray.get(reference)
            while len(self.cache) > 3 * KEPT_CELLS:
                self.cache.popitem(last=False)
        self.cache.move_to_end(name)
        return self.cache[name]

    def _save(self) -> None:
        """Checkpoint, unless that would take more than SAVE_SHARE of the time."""
        now = time.monotonic()
        if self.save_cost and now - self.saved_at < self.save_cost / SAVE_SHARE:
            return
        ray.get(self.shared.recorder.save.remote(self.work.id, self.training.save()))
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - now

    def _finish(self, result: TrialResult, artifacts: Any) -> dict[str, Any]:
        if self.work.role == "confirm":
            ray.get(self.shared.recorder.finish.remote(self.work.id, vars(artifacts)))
        return self._ended(result)

    def _ended(self, result: TrialResult) -> dict[str, Any]:
        self.training = None
        return {"value": result.best, "outcome": json.dumps(vars(result))}


class _Unsaved:
    """Tune pickles searcher and scheduler for its own restore, which we never use: it gets nothing to write."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class GridSearcher(_Unsaved, Searcher):
    """Tune's side of `Grid.next`. Ray's trial ids live here and nowhere else."""

    def __init__(self, grid: Grid, home: Path) -> None:
        super().__init__(metric="value", mode="max")
        self.grid, self.home = grid, home
        self.flying: dict[str, Assignment] = {}

    def suggest(self, trial_id: str) -> Any:
        if self.grid.over:
            return Searcher.FINISHED
        found = self.grid.next()
        if found is None:
            return Searcher.FINISHED if self.grid.over else None
        self.flying[trial_id] = found
        return {"trial": found.trial.to_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler reports to the study; a second report would be refused."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if error and trial_id in self.flying:
            self.end(trial_id, TrialResult("failed", reason=f"its worker died {RETRIES + 1} times"))

    def end(self, trial_id: str, result: TrialResult) -> None:
        found = self.flying.pop(trial_id)
        if found.trial.role == "confirm" and result.status == "done":
            store.check_artifacts(self.home, found.trial.id)
        self.grid.ended(found.trial.id, result)
        store.drop_checkpoint(self.home, found.trial.id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class GridScheduler(_Unsaved, FIFOScheduler):
    """Tune's side of `Grid.epoch` and `Grid.ended`: each study's own pruner decides, cell by cell."""

    def __init__(self, searcher: GridSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self.told: dict[str, int] = {}  # epochs of each trial that its study knows of

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        found = self.searcher.flying.get(trial.trial_id)
        if found is None:
            return self.STOP
        if "outcome" in result:
            outcome = TrialResult(**json.loads(result["outcome"]))
            self._tell(found.trial.id, outcome.curve)
            self.searcher.end(trial.trial_id, outcome)
            return self.STOP
        curve: list[float] = json.loads(result["curve"])
        if not self._tell(found.trial.id, curve):
            return self.CONTINUE
        best = max(range(len(curve)), key=curve.__getitem__)
        info = {"seconds": result["seconds"], "epochs": float(len(curve))}
        self.searcher.end(trial.trial_id, TrialResult("pruned", "", curve[best], best, curve, info=info))
        return self.STOP

    def _tell(self, trial_id: str, curve: list[float]) -> bool:
        """Report what the study has not heard: one epoch, or many where a trial came from a checkpoint, or none where
        it repeats some after its worker died. True if it is to be pruned."""
        prune = False
        for epoch in range(self.told.get(trial_id, 0), len(curve)):
            prune = self.searcher.grid.epoch(trial_id, epoch, curve[epoch])
            self.told[trial_id] = epoch + 1
        return prune

    def debug_string(self) -> str:
        return "harness grid"


@contextlib.contextmanager
def cluster(address: str | None, home: Path) -> Iterator[dict[str, Any]]:
    """A Ray session: the cluster at `address` (`auto`, host:port), or one of our own on loopback without dashboard.

    Yields {"cpus", "gpus", "nodes", "node_cpus"}: totals, and the cores of the smallest node that has any. Raises
    HarnessError if the cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    _reachable(address)
    common = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address:
            ray.init(address=address, **common)
        else:
            ray.init(address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise HarnessError(f"No Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from error
    try:
        total = ray.cluster_resources()
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        yield {
            "cpus": int(total.get("CPU", 1)),
            "gpus": float(total.get("GPU", 0)),
            "nodes": len(cores),
            "node_cpus": min([c for c in cores if c], default=1),
        }
    finally:
        ray.shutdown()


def _reachable(address: str | None) -> None:
    """Raises HarnessError if nobody listens at host:port; Ray itself would go on trying for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        raise HarnessError(f"No Ray cluster at {address}: {error}") from error


def run(grid: Grid, shared: dict[str, Any], home: Path, layout: Layout) -> None:
    """Run a grid to its end inside a `cluster`. `shared`: `splits`, `spectra`, `sizes` as in `Shared`, as values.

    KeyboardInterrupt passes through; trials in flight stay started in the ledger and go on at the next command.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    make = ray.remote(num_cpus=0, max_concurrency=4, scheduling_strategy=here)(Recorder)  # pyright: ignore[reportCallIssue]
    recorder = make.remote(str(home))  # pyright: ignore[reportAttributeAccessIssue]
    held = Shared(
        {key: ray.put(value) for key, value in shared["splits"].items()},
        {key: ray.put(value) for key, value in shared["spectra"].items()},
        shared["sizes"],
        recorder,
        layout,
    )
    searcher = GridSearcher(grid, home)
    needs = {"cpu": layout.threads} | ({"gpu": layout.gpu} if layout.gpu else {})
    trainable = tune.with_resources(tune.with_parameters(TrialActor, shared=held), needs)
    with tempfile.TemporaryDirectory(prefix="harness-tune-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=GridScheduler(searcher),
                num_samples=-1,
                max_concurrent_trials=layout.slots + 1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                storage_path=scratch,
                name="grid",
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            ),
        )
        with _quiet(), _own_errors():
            tuner.fit()
    if not grid.over:
        raise KeyboardInterrupt


@contextlib.contextmanager
def _own_errors() -> Iterator[None]:
    """A HarnessError of our callbacks, such as a full disk under the ledger, out of what Tune wraps it in."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, HarnessError):
            cause = cause.__cause__ or cause.__context__
        raise (cause or error) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tune prints to stdout whatever `verbose` says; stdout is for our result alone."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield

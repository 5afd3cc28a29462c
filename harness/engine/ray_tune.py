"""The only room that speaks to Ray: one Tune run over the whole grid.

The driver's searcher and scheduler ask and tell the `TrialQueue`; trials run in actors that are used again and keep the
data of their last cells; what they leave (checkpoints, artifacts) goes through one recorder actor on the driver's
machine, so that nodes need no shared folder. Ray holds no truth: its own files are thrown away.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # resuming is the ledger's business
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "64")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # `Stop` listens
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # failures are told in a line
try:
    Path.home()
except RuntimeError:  # no HOME, and the system knows no such user: Ray cannot even be imported
    os.environ["HOME"] = "/"

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.engine import failures, ray_head
from harness.engine import slots as layouts
from harness.engine.slots import Layout
from harness.engine.watchdog import last_words
from harness.engine.worker import Recorder, SharedData, Unreachable, Worker
from harness.engine.worker_reports import Ended, Epoch, Refusal, from_tune, to_tune
from harness.record import artifacts
from harness.search.studies import Assignment, TrialQueue
from harness.system import tempdirs
from harness.system.code_hash import code_hash
from harness.system.signals import Stop, shielded
from harness.training.user_scores import Scores
from harness.types import HarnessError, Trial, TrialResult

RETRIES = 2  # of a trial whose worker process died


class TrialActor(tune.Trainable):
    """One slot: a `Worker` in a process of its own."""

    def setup(self, config: dict[str, Any], shared: SharedData) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        def get(reference: Any) -> Any:
            try:
                return ray.get(reference)
            except RayTaskError:
                raise  # the recorder could not do it, such as write to a full disk
            except RayError as error:
                raise Unreachable(str(error).splitlines()[0]) from None

        def post(method: str, *arguments: Any) -> Any:
            return get(getattr(shared.recorder, method).remote(*arguments))

        node = ray.get_runtime_context().get_node_id()
        beside = layouts.slots_on(resources_of(node), shared.layout)
        self.worker = Worker(shared, get, post, (node, os.getpid()), beside)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.worker.begin(Trial.from_json(new_config["trial"]))
        return True

    def step(self) -> dict[str, Any]:
        return to_tune(self.worker.step())

    def cleanup(self) -> None:
        self.worker.close()


def resources_of(node: str) -> dict[str, float]:
    """What a node has; nothing if it is not there any more."""
    return next((found["Resources"] for found in ray.nodes() if found["NodeID"] == node), {})


class _Unsaved:
    """Tune pickles searcher and scheduler for its own restore, which we never use: it gets nothing to write."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class GridSearcher(_Unsaved, Searcher):
    """Tune's side of `TrialQueue.next`. Ray's trial ids live here and nowhere else."""

    def __init__(self, grid: TrialQueue, home: Path, stop: Stop) -> None:
        super().__init__(metric="value", mode="max")
        self.grid, self.home, self.stop = grid, home, stop
        self.flying: dict[str, Assignment] = {}
        self.dropped: list[Assignment] = []  # by Tune, though they may be tried again
        self.failures: dict[str, failures.FailureCount] = {}  # of our trials' workers, by our ids

    def suggest(self, trial_id: str) -> Any:
        if self.grid.over or self.stop.signum:
            return Searcher.FINISHED
        found = self.dropped.pop() if self.dropped else self.grid.next()
        if found is None:
            return Searcher.FINISHED if self.grid.over else None
        self.flying[trial_id] = found
        return {"trial": found.trial.to_json()}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """The scheduler reports to the study; a second report would be refused."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tune gives a trial up whose worker failed too often, or failed before Tune saw it begin."""
        if not error or trial_id not in self.flying:
            return
        failed = self.failures[self.flying[trial_id].trial.id]
        if failed.own > RETRIES:
            self.end(trial_id, TrialResult("failed", reason=f"{failed.reason} ({failed.own} times)"))
        else:
            self.dropped.append(self.flying.pop(trial_id))

    def end(self, trial_id: str, result: TrialResult) -> None:
        found = self.flying.pop(trial_id)
        if found.trial.role == "confirm" and result.status == "done":
            artifacts.check_artifacts(self.home, found.trial.id)
        self.grid.ended(found.trial.id, result)
        artifacts.drop_checkpoint(self.home, found.trial.id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class GridScheduler(_Unsaved, FIFOScheduler):
    """Tune's side of `TrialQueue.epoch` and `TrialQueue.ended`: each study's pruner decides, cell by cell. When asked
    to stop, it ends every trial whose state is saved."""

    def __init__(self, searcher: GridSearcher, recorder: Any, slots: int, tell: Callable[[str], None]) -> None:
        super().__init__()
        self.searcher, self.recorder, self.slots, self.tell = searcher, recorder, slots, tell
        self.reported: dict[str, int] = {}  # trial id -> epochs that its study knows
        self.held: set[str] = set()  # trials at rest since we were asked to stop
        self.controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Take hold of Tune; let it keep all idle processes: by itself it keeps one, and a new one takes seconds."""
        if self.controller is None:
            with contextlib.suppress(
                AttributeError
            ):  # no public part of Tune: a later one may be without it, and slower
                tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=self.slots)
        self.controller = tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        report = from_tune(result)
        if isinstance(report, Refusal):
            raise HarnessError(
                f"A worker on {trial.get_ray_actor_ip()} cannot take part: {report.reason}. All nodes need the same "
                "harness, and its files must not change while a bench runs. Run the same command again to continue."
            )
        if trial.trial_id not in self.searcher.flying:
            return self.STOP
        stopping = bool(self.searcher.stop.signum)
        if self._over(trial.trial_id, report):
            self.held |= {trial.trial_id} if stopping else set()
            return self.NOOP if stopping else self.STOP  # a slot that is kept starts no other trial
        if stopping and isinstance(report, Epoch) and report.saved:
            self.held.add(trial.trial_id)
            return self.NOOP
        return self.CONTINUE

    def _over(self, ray_id: str, report: Epoch | Ended) -> bool:
        """Record an epoch or an end; True if the trial has ended, by itself or by its study's pruner."""
        trial_id = self.searcher.flying[ray_id].trial.id
        if isinstance(report, Ended):
            self._report(trial_id, report.result.curve, report.users)
            self.searcher.end(ray_id, report.result)
            return True
        curve = report.curve
        if not self._report(trial_id, curve, report.users):
            return False
        best = max(range(len(curve)), key=curve.__getitem__)
        info = {"seconds": report.seconds, "epochs": float(len(curve))}
        self.searcher.end(ray_id, TrialResult("pruned", "", curve[best], best, curve, info=info))
        return True

    def _report(self, trial_id: str, curve: list[float], users: list[Scores]) -> bool:
        """Pass new epochs to the study: one, several if the trial resumed from a checkpoint, or none if it repeats
        epochs after its worker died. `users`: scores of the last epochs. True if the trial is to be pruned."""
        prune, scores = False, [()] * (len(curve) - len(users)) + users
        for epoch in range(self.reported.get(trial_id, 0), len(curve)):
            prune = self.searcher.grid.epoch(trial_id, epoch, curve[epoch], scores[epoch])
            self.reported[trial_id] = epoch + 1
        return prune

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The newest one that waits. A slot that is free takes over what is chosen here, and Tune ends the process that
        was starting for it: the oldest one's may be about to be up, the newest one's waits for room. Else trials that
        are shorter than the start of a process would never see a second slot."""
        waits = (trial for trial in reversed(tune_controller.get_trials()) if trial.status == trial.PENDING)
        return next(waits, None)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A worker failed under a trial. Tune tries it again, RETRIES times; a lost node is not the trial's fault."""
        if trial.trial_id not in self.searcher.flying:  # it ended, and only its slot was kept
            return
        found = self.searcher.flying[trial.trial_id].trial
        text = Path(trial.error_file).read_text().rpartition("Failure # ")[2]
        failed = self.searcher.failures.setdefault(found.id, failures.FailureCount())
        failed.add(failures.reason(text, lambda: self._last_words(found.id)))
        trial.run_metadata.num_failures = failed.own
        if failures.at_start(text) and failed.own > RETRIES:
            raise HarnessError(f"No worker can start: {failed.reason}")
        if failed.own <= RETRIES:
            self.tell(f"{found.cell}: {failed.reason}; try {failed.own + 1} of {RETRIES + 1} comes next")

    def _last_words(self, trial_id: str) -> str | None:
        """Of the worker that had the trial, from the machine it was on; None if that machine does not answer: a worker
        ends with its node, and may be missed before the node is."""
        try:
            place = ray.get(self.recorder.place.remote(trial_id), timeout=10)
            if place is None:
                return ""
            if place[0] == ray.get_runtime_context().get_node_id():
                return last_words(place[1])
            there = NodeAffinitySchedulingStrategy(place[0], soft=False)
            read = ray.remote(last_words).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            return ray.get(read.remote(place[1]), timeout=20)  # nothing else goes on meanwhile
        except RayError:
            return None

    @property
    def at_rest(self) -> bool:
        """Whether no trial is under way but those that are held."""
        trials = self.controller.get_trials() if self.controller else []
        return all(trial.trial_id in self.held for trial in trials if trial.status == trial.RUNNING)

    def debug_string(self) -> str:
        return "harness grid"


class GridStopper(_Unsaved, tune.Stopper):
    """Ends the whole search once we were asked to stop and every trial under way is saved."""

    def __init__(self, scheduler: GridScheduler) -> None:
        self.scheduler, self.asked = scheduler, False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        stop = self.scheduler.searcher.stop
        if not stop.signum:
            return False
        if not self.asked:
            self.asked = True
            self.scheduler.recorder.ask_to_stop.remote()
        return self.scheduler.at_rest or stop.overdue


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[dict[str, Any]]:
    """A Ray session: the cluster at `address` (else at RAY_ADDRESS: `auto`, host:port), or one of our own on loopback,
    without dashboard, in a folder that is removed afterwards (`head.own`).

    Yields {"cpus", "gpus", "nodes", "node_cpus", "each"}: totals, the cores of the smallest node that has any, and
    cores and GPUs of each node. Raises HarnessError if the cluster cannot be reached.
    """
    address = ray_head.address_of(address)
    with contextlib.ExitStack() as stack:
        if address:
            _start(address, {"address": address})
        else:
            place = stack.enter_context(ray_head.own())
            stack.enter_context(_on_loopback())
            _start(None, {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"} | place)
        stack.callback(ray.shutdown)
        ray_head.watch(ray.get_runtime_context().gcs_address, ray.is_initialized)
        yield layouts.resources(ray.nodes())


def _start(address: str | None, wanted: dict[str, Any]) -> None:
    _read_again()
    try:
        with shielded():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=True, **wanted)
    except Exception as error:  # of many kinds; on an overloaded machine a bare one after 30 s
        ray.shutdown()
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if not address:
            raise HarnessError(f"Ray does not start on this machine: {said}") from error
        tokens = "" if "RAY_AUTH_MODE" in os.environ else " (one that asks for a token: set RAY_AUTH_MODE=token)"
        raise HarnessError(f"No Ray cluster at {address}: {said}{tokens}") from error


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """What `head.own` put into the environment, for the part of Ray in this process too, which has read it before."""
    constants: Any = importlib.import_module("ray._private.ray_constants")
    before = getattr(constants, "ENABLE_RAY_CLUSTER", None)
    constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


def _read_again() -> None:
    """Ray keeps the mode of its tokens, and the token, since it first read them."""
    with contextlib.suppress(ImportError, AttributeError):  # no public part of Ray
        raylet: Any = importlib.import_module("ray._raylet")
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


def run(
    grid: TrialQueue,
    shared: dict[str, Any],
    home: Path,
    layout: Layout,
    watchdog: float,
    stop: Stop,
    tell: Callable[[str], None],
) -> None:
    """Run a grid inside a `cluster`, to its end or until `stop` is asked for: then epochs under way are waited for and
    checkpointed, and their trials stay started in the ledger and go on at the next command.

    `shared`: `splits`, `spectra`, `sizes` as in `SharedData`, as values. `watchdog`: seconds, as in `Watchdog`. `tell`
    gets a line for every worker that failed. Raises Interrupted if asked to stop twice, HarnessError if no worker can
    start or one runs other code.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    make = ray.remote(num_cpus=0, max_concurrency=4, max_restarts=-1, scheduling_strategy=here)(Recorder)  # pyright: ignore[reportCallIssue]
    recorder = make.remote(str(home))  # pyright: ignore[reportAttributeAccessIssue]
    held = SharedData(
        {key: ray.put(value) for key, value in shared["splits"].items()},
        {key: ray.put(value) for key, value in shared["spectra"].items()},
        shared["sizes"],
        recorder,
        layout,
        code_hash(),
        watchdog,
        grid.tells_users,
    )
    scheduler = GridScheduler(GridSearcher(grid, home, stop), recorder, layout.slots, tell)
    trainable = tune.with_resources(tune.with_parameters(TrialActor, shared=held), needs(layout))
    with tempdirs.folder("tune") as folder, _quiet(), failures.own_errors(), stop.patiently():
        _tuner(trainable, scheduler, layout, folder).fit()
    if not grid.over and not stop.signum:
        raise HarnessError(
            "Ray Tune ended before the grid did. What ended is kept; the same command goes on from here."
        )


def needs(layout: Layout) -> tune.PlacementGroupFactory:
    """What a trial takes of a node; on the one with most to spare, so that trials spread before they pack."""
    gpu = {"GPU": layout.gpu} if layout.gpu else {}
    return tune.PlacementGroupFactory([{"CPU": float(layout.threads)} | gpu], strategy="SPREAD")


def _tuner(trainable: Any, scheduler: GridScheduler, layout: Layout, folder: Path) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=scheduler.searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=layout.slots + 1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder),
            name="grid",
            verbose=0,
            stop=GridStopper(scheduler),
            failure_config=tune.FailureConfig(max_failures=RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
        ),
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Tune prints to stdout whatever `verbose` says; stdout is for our result alone."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield

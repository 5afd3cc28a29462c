"""The Ray Tune driver: one Tune run over the whole grid, on a Ray of `ray_cluster`.

Tune's searcher gets trials from the `TrialQueue`, its scheduler reports results to it. Trials run in actors that are
reused and keep the data of their last cells. Checkpoints and artifacts go through one recorder actor on the driver's
machine, so nodes need no shared folder. The state of a bench is in the ledger only: Ray's files are deleted.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness import overlay
from harness.engine import failures, ray_cluster, tune_memory
from harness.engine import slots as layouts
from harness.engine.slots import Layout
from harness.engine.watchdog import read_crash_log
from harness.engine.worker import Recorder, SharedData, Unreachable, Worker, importable, named
from harness.engine.worker_reports import Ended, Epoch, Refusal, from_tune, to_tune
from harness.record import artifacts
from harness.search.studies import Assignment, TrialQueue
from harness.system import tempdirs
from harness.system.code_hash import code_hash, libraries
from harness.system.files import GOES_ON
from harness.system.signals import Stop
from harness.training.user_scores import Scores
from harness.types import HarnessError, Json, Trial, TrialResult

RETRIES = 2  # retries of a trial whose worker process died
WAIT = 300.0  # seconds after which a pending trial comes first; a process starts in less


class TrialActor(tune.Trainable):
    """One slot: a `Worker` in a separate process."""

    def setup(self, config: Json, shared: SharedData) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        def get(reference: Any) -> Any:
            try:
                return ray.get(reference)
            except RayTaskError as error:  # such as a place that is away; the trial is not at fault
                raise Unreachable(f"{failures.RECORDER}: {_first_line(error.cause)}") from None
            except RayError as error:
                raise Unreachable(str(error).splitlines()[0]) from None

        def post(method: str, *arguments: Any) -> Any:
            return get(getattr(shared.recorder, method).remote(*arguments))

        node = ray.get_runtime_context().get_node_id()
        slots = layouts.slots_on(ray_cluster.resources_of(node), shared.layout)
        self.worker = Worker(shared, get, post, (node, os.getpid()), slots)
        self.reset_config(config)

    def reset_config(self, new_config: Json) -> bool:
        self.worker.begin(Trial.from_json(new_config["trial"]))
        return True

    def step(self) -> Json:
        return to_tune(self.worker.step())

    def cleanup(self) -> None:
        self.worker.close()


class _Unsaved:
    """Pickles to nothing: Tune saves searcher and scheduler for its restore, which we do not use."""

    def __getstate__(self) -> Json:
        return {}


class GridSearcher(_Unsaved, Searcher):
    """Gives the trials of `TrialQueue.next` to Tune. The only place that knows Ray's trial ids."""

    def __init__(
        self, grid: TrialQueue, home: Path, stop: Stop, drop: Callable[[str], Any] = lambda trial_id: None
    ) -> None:
        super().__init__(metric="value", mode="max")
        self.grid, self.home, self.stop = grid, home, stop
        self.drop = drop  # removes a trial's checkpoint outside of the home
        self.flying: dict[str, Assignment] = {}  # by Ray's trial id
        self.dropped: list[Assignment] = []  # given up by Tune, to be retried
        self.failures: dict[str, failures.FailureCount] = {}  # by our trial id
        self.last: dict[str, Epoch] = {}  # newest report of each trial that runs, by our trial id

    def suggest(self, trial_id: str) -> Any:
        if self.grid.over or self.stop.signum:
            return Searcher.FINISHED
        assignment = self.dropped.pop() if self.dropped else self.grid.next()
        if assignment is None:
            return Searcher.FINISHED if self.grid.over else None
        self.flying[trial_id] = assignment
        return {"trial": assignment.trial.to_json()}

    def on_trial_result(self, trial_id: str, result: Json) -> None:
        """Do nothing: the scheduler reports to the study, which accepts a result only once."""

    def on_trial_complete(self, trial_id: str, result: Json | None = None, error: bool = False) -> None:
        """Handle a trial that Tune gives up: its worker failed too often, or before Tune saw it start."""
        if not error or trial_id not in self.flying:
            return
        failed = self.failures[self.flying[trial_id].trial.id]
        if failed.counted > RETRIES:
            reason, last = f"{failed.reason} ({failed.counted} times)", self.last.get(self.flying[trial_id].trial.id)
            spent = {"curve": last.curve, "info": last.info} if last else {}
            self.end(trial_id, TrialResult("failed", reason, **spent))
        else:
            self.dropped.append(self.flying.pop(trial_id))

    def end(self, trial_id: str, result: TrialResult) -> None:
        trial = self.flying.pop(trial_id).trial
        self.last.pop(trial.id, None)
        if trial.role == "confirm" and result.status == "done":
            artifacts.check_artifacts(self.home, trial.id)
        self.grid.ended(trial.id, result)
        artifacts.drop_checkpoint(self.home, trial.id)
        self.drop(trial.id)

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger has everything."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing."""


class GridScheduler(_Unsaved, FIFOScheduler):
    """Reports epochs and ends to `TrialQueue.epoch` and `TrialQueue.ended`; the pruner of each study decides. When the
    bench is to stop, every trial is halted as soon as its state is saved."""

    def __init__(self, searcher: GridSearcher, recorder: Any, slots: int, log: Callable[[str], None]) -> None:
        super().__init__()
        self.searcher, self.recorder, self.slots, self.log = searcher, recorder, slots, log
        self.reported: dict[str, int] = {}  # trial id -> epochs reported to its study
        self.held: set[str] = set()  # Ray ids of trials halted because the bench is to stop
        self.added: dict[str, float] = {}  # Ray id -> time, by the monotonic clock
        self.controller: Any = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Keep a reference to Tune's controller; have it keep all idle processes, since a new one takes seconds."""
        self.added[trial.trial_id] = monotonic()
        if self.controller is None:
            with contextlib.suppress(AttributeError):  # private in Tune; without it the bench is slower
                tune_controller._tune_controller._actor_cache.increase_max(trial.placement_group_factory, by=self.slots)
        self.controller = tune_controller

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Json) -> str:
        report = from_tune(result)
        if isinstance(report, Refusal):
            raise HarnessError(
                f"A worker on {trial.get_ray_actor_ip()} cannot take part: {report.reason}. All nodes need the same "
                "harness, torch, numpy and components, and files must not change while a bench runs. Run the same "
                "command again to continue."
            )
        if trial.trial_id not in self.searcher.flying:
            return self.STOP
        stopping = bool(self.searcher.stop.signum)
        if self._over(trial.trial_id, report):
            self.held |= {trial.trial_id} if stopping else set()
            return self.NOOP if stopping else self.STOP  # NOOP keeps the slot, so that it starts no other trial
        if stopping and isinstance(report, Epoch) and report.saved:
            self.held.add(trial.trial_id)
            return self.NOOP
        return self.CONTINUE

    def _over(self, ray_id: str, report: Epoch | Ended) -> bool:
        """Record an epoch or an end; return whether the trial has ended or is pruned by its study."""
        trial_id = self.searcher.flying[ray_id].trial.id
        if isinstance(report, Ended):
            self._report(trial_id, report.result.curve, report.users)
            self.searcher.end(ray_id, report.result)
            return True
        curve = report.curve
        self.searcher.last[trial_id] = report
        if not self._report(trial_id, curve, report.users):
            return False
        best = max(range(len(curve)), key=curve.__getitem__)
        self.searcher.end(ray_id, TrialResult("pruned", "", curve[best], best, curve, info=report.info))
        return True

    def _report(self, trial_id: str, curve: list[float], users: list[Scores]) -> bool:
        """Report new epochs to the study: one, several if the trial resumed from a checkpoint, none if it repeats
        epochs after its worker died. users: scores of the last epochs. Return whether the trial is to be pruned."""
        prune, scores = False, [()] * (len(curve) - len(users)) + users
        for epoch in range(self.reported.get(trial_id, 0), len(curve)):
            prune = self.searcher.grid.epoch(trial_id, epoch, curve[epoch], scores[epoch])
            self.reported[trial_id] = epoch + 1
        return prune

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Return the newest pending trial, or the oldest if it has waited for `WAIT` seconds.

        A free slot takes the chosen trial, and Tune ends the process that was starting for it. The oldest trial's
        process may be nearly ready; the newest one's waits for resources. Otherwise trials that are shorter than the
        start of a process would never use a second slot. But a trial whose node died may wait for a process that never
        starts: it would be passed over to the end.
        """
        tune_memory.save_none(tune_controller)
        pending = [trial for trial in tune_controller.get_live_trials() if trial.status == trial.PENDING]
        pending.sort(key=lambda trial: self.added[trial.trial_id])
        overdue = bool(pending) and monotonic() - self.added[pending[0].trial_id] > WAIT
        return next(iter(pending if overdue else reversed(pending)), None)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Count a worker failure. Tune retries the trial up to RETRIES times; the loss of a node does not count."""
        if trial.trial_id not in self.searcher.flying:  # the trial has ended, only its slot was kept
            return
        ours = self.searcher.flying[trial.trial_id].trial
        text = Path(trial.error_file).read_text().rpartition("Failure # ")[2]
        failed = self.searcher.failures.setdefault(ours.id, failures.FailureCount())
        failed.add(failures.reason(text, lambda: self._crash_reason(ours.id)))
        trial.run_metadata.num_failures = failed.counted
        if failures.failed_at_start(text) and failed.counted > RETRIES:
            raise HarnessError(f"No worker can start: {failed.reason}")
        if failed.reason.startswith(failures.RECORDER) and failed.node_losses >= failures.MAX_NODE_LOSSES:
            raise HarnessError(f"{ours.cell}: {failed.reason}. {GOES_ON}")
        if failed.counted <= RETRIES:
            self.log(f"{ours.cell}: {failed.reason}; starting attempt {failed.counted + 1} of {RETRIES + 1}")

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Json) -> None:
        tune_memory.forget(trial)

    def _crash_reason(self, trial_id: str) -> str | None:
        """Read the crash log of the trial's worker on its machine; None if that machine does not answer. A worker dies
        with its node, and Ray may notice the worker first."""
        try:
            place = ray.get(self.recorder.place.remote(trial_id), timeout=10)
            if place is None:
                return ""
            if place[0] == ray.get_runtime_context().get_node_id():
                return read_crash_log(place[1])
            there = NodeAffinitySchedulingStrategy(place[0], soft=False)
            read = ray.remote(read_crash_log).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
            return ray.get(read.remote(place[1]), timeout=20)  # this blocks the driver
        except RayError:
            return None

    @property
    def at_rest(self) -> bool:
        """Whether all running trials are halted."""
        trials = self.controller.get_live_trials() if self.controller else []
        return all(trial.trial_id in self.held for trial in trials if trial.status == trial.RUNNING)

    def debug_string(self) -> str:
        return "harness grid"


class GridStopper(_Unsaved, tune.Stopper):
    """Ends the Tune run after a request to stop, once every running trial is saved."""

    def __init__(self, scheduler: GridScheduler) -> None:
        self.scheduler, self.requested = scheduler, False

    def __call__(self, trial_id: str, result: Json) -> bool:
        return False

    def stop_all(self) -> bool:
        stop = self.scheduler.searcher.stop
        if not stop.signum:
            return False
        if not self.requested:
            self.requested = True
            self.scheduler.recorder.request_stop.remote()
        return self.scheduler.at_rest or stop.overdue


def start_recorder(home: Path, place: str = "") -> Any:
    """Start the `Recorder` of a home in an actor on this machine, which is restarted if it ends."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options: Json = {"num_cpus": 0, "max_concurrency": 4, "max_restarts": -1, "scheduling_strategy": here}
    actor_class = ray.remote(**options)(Recorder)
    return actor_class.remote(str(home), place)


def run(
    grid: TrialQueue,
    shared: Json,
    home: Path,
    layout: Layout,
    watchdog: float,
    stop: Stop,
    log: Callable[[str], None],
) -> None:
    """Run a grid inside a `cluster`, to its end or to a request to stop, after which the caller checks `stop`.

    After a request to stop, running epochs are finished and checkpointed; their trials stay started in the ledger, and
    the next command resumes them. shared: `splits`, `spectra`, `sizes` and, unless empty, `top_k` and `place` of
    `SharedData`, as values. watchdog: seconds, as in `Watchdog`. log: called with a line for each failed worker.
    Raises Interrupted after a second request to stop, HarnessError if no worker can start or a worker has different
    code.
    """
    place = shared.get("place", "")
    recorder = start_recorder(home, place)
    references = SharedData(
        {key: ray.put(value) for key, value in shared["splits"].items()},
        {key: ray.put(value) for key, value in shared["spectra"].items()},
        shared["sizes"],
        recorder,
        layout,
        code_hash(),
        watchdog,
        grid.keep_user_scores,
        shared.get("top_k", 0),
        place,
        overlay.current(),
        libraries(),
        importable(component for one in grid.searches for component in named(one.study.cell, one.study.space.default)),
    )
    searcher = GridSearcher(grid, home, stop, *([recorder.drop.remote] if place else []))
    scheduler = GridScheduler(searcher, recorder, layout.slots, log)
    trainable = tune.with_resources(tune.with_parameters(TrialActor, shared=references), needs(layout))
    with tempdirs.folder("tune") as folder, _quiet(), failures.unwrapped_errors(), stop.patiently():
        _tuner(trainable, scheduler, layout, folder).fit()
    if not grid.over and not stop.signum:
        raise HarnessError(
            "Ray Tune ended before the grid did. Finished trials are kept; run the same command to resume."
        )


def needs(layout: Layout) -> tune.PlacementGroupFactory:
    """Resources of one trial. SPREAD prefers the least loaded node: trials spread over nodes first."""
    gpu = {"GPU": layout.gpu} if layout.gpu else {}
    chosen = {"bundle_label_selector": [dict(layout.labels)]} if layout.labels else {}
    return tune.PlacementGroupFactory([{"CPU": float(layout.threads)} | gpu], strategy="SPREAD", **chosen)


def _tuner(trainable: Any, scheduler: GridScheduler, layout: Layout, folder: Path) -> tune.Tuner:
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=scheduler.searcher,
            scheduler=scheduler,
            num_samples=-1,
            max_concurrent_trials=layout.slots,  # one more would be drawn early and passed over to the end
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


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Discard stdout, which is reserved for results: Tune prints to it even with `verbose=0`."""
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield

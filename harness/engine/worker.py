"""One slot of the engine: trains one trial after another, one epoch per step. Does not import Ray.

`ray_tune` runs it in an actor and passes two callables: `get` reads the node's store of shared objects, `post` calls
the recorder on the driver's machine.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.data.splits import Split
from harness.engine import card
from harness.engine.resources import ResourceMeter
from harness.engine.slots import Layout
from harness.engine.trial_files import TrialFiles
from harness.engine.watchdog import Watchdog, die_with_parent
from harness.engine.worker_reports import Ended, Epoch, Refusal, Report
from harness.overlay import TEST, Overlay
from harness.record import artifacts
from harness.system.code_hash import code_hash, libraries
from harness.training.user_scores import Scores
from harness.types import Cell, Json, Params, Trial, TrialResult

if TYPE_CHECKING:
    from harness.training.trial import TrialArtifacts

SAVE_SHARE = 0.05  # maximum share of a trial's time for checkpoints
KEPT_CELLS = 2  # cells whose data a worker keeps in memory
COMPONENTS = (
    *(registry.ADAPTERS, registry.BACKBONES, registry.LOSSES, registry.BASELINES),
    *(registry.METRICS, registry.LIST_METRICS),
)  # packages that a trial may load
Component = tuple[str, str]  # its package and name
STOP_CHECK_EVERY = 0.5  # seconds between checks whether the bench is to stop


@dataclass(frozen=True)
class SharedData:
    """Input of all workers. Splits and spectra are references to objects in the node's store."""

    splits: dict[tuple[str, str, int], Any]  # by data hash, role and fold
    spectra: Json  # by embedding hash
    sizes: dict[str, int]  # items, by data hash
    recorder: Any
    layout: Layout
    code: str  # the driver's `code_hash`
    watchdog: float  # seconds, as in `Watchdog`
    keep_user_scores: bool = False  # whether searches report scores by user (`user_scores`)
    top_k: int = 0  # length of the lists that confirmations store; 0: none
    place: str = ""  # where workers write checkpoints and weights (`places`); "": through the recorder into the home
    components: Overlay = field(default_factory=Overlay)  # those from outside harness, by content
    libraries: Mapping[str, str] = field(default_factory=dict)  # the driver's `code_hash.libraries`
    importable: frozenset[Component] = frozenset()  # components of the grid that the driver has imported


class Recorder:
    """Runs on the driver's machine: saves checkpoints and artifacts of workers in the home folder, records where each
    trial runs, and passes a request to stop on to the workers."""

    def __init__(self, home: str, place: str = "") -> None:
        self.home, self.files = Path(home), TrialFiles(place)
        self.places: dict[str, tuple[str, int]] = {}
        self.stop_requested = False

    def begin(self, trial_id: str, node: str, pid: int) -> bytes | None:
        """Record that a worker starts a trial; return its checkpoint, None if there is none."""
        self.places[trial_id] = node, pid
        return artifacts.load_checkpoint(self.home, trial_id)

    def place(self, trial_id: str) -> tuple[str, int] | None:
        return self.places.get(trial_id)

    def save(self, trial_id: str, data: bytes) -> None:
        artifacts.save_checkpoint(self.home, trial_id, data)

    def drop(self, trial_id: str) -> None:
        """Remove the checkpoint that a worker may have left in a place."""
        self.files.drop(trial_id)

    def weights(self, trial_id: str) -> bytes | None:
        """Return the weights of a confirmed trial, None if they are missing or damaged."""
        return artifacts.load_weights(self.home, trial_id)

    def finish(self, trial_id: str, parts: Json) -> None:
        artifacts.save_artifacts(self.home, trial_id, **parts)

    def request_stop(self) -> None:
        self.stop_requested = True

    def stopping(self) -> bool:
        return self.stop_requested


def named(cell: Cell, params: Params) -> list[Component]:
    """Return the components that a cell and parameters name. The adapter's name can be that of a baseline."""
    words = {registry.ADAPTERS: [cell.adapter, *cell.parts], registry.BACKBONES: [cell.backbone]}
    words |= {registry.LOSSES: [params.get("train.loss", "")], registry.BASELINES: [cell.adapter]}
    return [(package, registry.split_overrides(word)[0]) for package, some in words.items() for word in some]


def importable(components: Iterable[Component]) -> frozenset[Component]:
    """Return those of some components that can be imported here."""
    found = set()
    for package, name in components:
        with contextlib.suppress(Exception):  # of any module; an unknown name
            registry.load(package, name)
            found.add((package, name))
    return frozenset(found)


def own_files(trial: Trial) -> list[str]:
    """Return the files, such as `adapters/mine.py`, of the components from outside harness that a trial names."""
    used = named(trial.cell, trial.params)
    return [_file(package, name) for package, name in used if registry.own(package, name)]


def _file(package: str, name: str) -> str:
    return f"{package.rpartition('.')[2]}/{name}.py"


class OutOfMemory(Exception):
    """A trial ran out of memory; it is retried in a new process."""


class Unreachable(Exception):
    """The driver's machine or a shared object cannot be reached; the trial is not at fault."""


class Worker:
    """Trains the trial of the last `begin`, one epoch per `step`.

    get: object reference -> object. post: (method of the recorder, *arguments) -> its result. Both may raise
    Unreachable. place: Ray's id of this node, and the process id. slots: number of parallel trials on this node.
    """

    def __init__(
        self,
        shared: SharedData,
        get: Callable[[Any], Any],
        post: Callable[..., Any],
        place: tuple[str, int],
        slots: int,
    ) -> None:
        import torch

        from harness.training.precision import use_tf32

        die_with_parent()
        registry.use(shared.components)
        torch.set_num_threads(shared.layout.threads)
        self.card = card.Card.of(shared.layout.gpu)
        self.device = "cuda" if self.card.cuda is not None else "cpu"
        self.tf32 = use_tf32(self.device)
        self.shared, self.get, self.post, self.place, self.slots = shared, get, post, place, slots
        self.files = TrialFiles(shared.place)
        self.cache: OrderedDict[str, Any] = OrderedDict()
        self.watchdog = Watchdog(shared.watchdog)
        self.last_stop_check = 0.0
        self.refusal = self._refusal()

    def _refusal(self) -> str:
        """Return why this worker cannot take part, "" if it can: its code and the libraries that compute must be the
        driver's.

        Imports everything that a trial may need before hashing, so that a later change of the files has no effect.
        """
        self.absent: dict[Component, str] = {}
        for package in COMPONENTS:
            for name in registry.names(package):
                try:
                    registry.load(package, name)
                except Exception as error:  # a trial that needs it fails with this error
                    self.absent[package, name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        code, here = code_hash(), libraries()
        if code != self.shared.code:
            return f"its code is {code}, the driver's is {self.shared.code}"
        differ = [name for name, version in self.shared.libraries.items() if here.get(name) != version]
        return "; ".join(f"it has {name} {here.get(name)}, the driver {self.shared.libraries[name]}" for name in differ)

    def _cannot_import(self) -> str:
        """Return why this node cannot import a component of the trial that the driver could; "" if it can."""
        used = set(named(self.trial.cell, self.trial.params)) & self.shared.importable & set(self.absent)
        return "; ".join(f"it cannot import {_file(*one)} ({self.absent[one]})" for one in sorted(used))

    def begin(self, trial: Trial) -> None:
        """Set the trial of the next steps."""
        self.trial = trial
        self.training: Any = None
        self.attempt = card.Attempt()
        self.reported = 0  # epochs whose user scores this process has reported
        self.meter = ResourceMeter(1 / self.slots, gpu_share=self.shared.layout.gpu, cuda=self.card.cuda)
        self.saved_at, self.save_cost = time.monotonic(), 0.0
        self.longest = 0.0

    def step(self) -> Report:
        """Train one epoch and report it, or report the end of the trial.

        An error of the trial is reported as its end, so that the process can run the next one. A lack of GPU memory
        repeats the trial from its checkpoint, as `card.Attempt.next` says. Raises OutOfMemory for a lack of the host's,
        because only a new process has all memory available, and Unreachable.
        """
        if reason := self.refusal or self._cannot_import():
            return Refusal(reason)
        self.watchdog.start(self.longest)
        try:
            report = None
            while report is None:
                report = self._turn()
            return report
        finally:
            self.watchdog.stop()

    def _turn(self) -> Report | None:
        """Use the GPU, if there is one, for a step; None if its memory ran out and the step is to be repeated."""
        on_cpu = self.trial.cell.is_baseline
        with contextlib.nullcontext() if on_cpu else self.card.turn(self.attempt.alone, self.watchdog.beat):
            start = time.monotonic()
            try:
                report = self._attempt()
            finally:
                self.longest = max(self.longest, time.monotonic() - start)
            if report is None:
                gc.collect()  # what the error referred to
            if not isinstance(report, Epoch):
                self.card.empty()  # before others get their turn
            return report

    def _attempt(self) -> Report | None:
        from harness.training.trial import TrialFailed

        try:
            return self._step()
        except Unreachable:
            raise
        except TrialFailed as error:
            return self._failed(str(error))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            if card.exhausted(error):
                return self._retried()
            if out_of_memory(error):
                raise OutOfMemory(reason) from None
            logging.getLogger("harness").exception("trial %s", self.trial.id)
            return self._failed(reason)

    def _retried(self) -> Report | None:
        """Drop the training and prepare the next attempt; report a failure if there is none."""
        trains = not self.trial.cell.is_ensemble
        following = self.attempt.next(self.card.lock is not None, trains)
        if following is None:
            batch = self.trial.params["train.batch_size"] if trains else None
            return self._failed(self.card.failure(self.attempt, batch))
        self.attempt, self.training, self.reported = following, None, 0
        return None

    def _failed(self, reason: str) -> Ended:
        if files := own_files(self.trial):
            reason += f" (it uses {', '.join(files)}, not built in: test it with {TEST} --components DIR)"
        return self._ended(TrialResult("failed", reason=reason, curve=self._curve(), info=self._spent()))

    def close(self) -> None:
        self.watchdog.close()

    def _curve(self) -> list[float]:
        return list(self.training.curve) if self.training is not None else []

    def _spent(self) -> dict[str, float]:
        """Seconds of complete epochs, which a failed trial takes from the budget of its cell."""
        return {"seconds": self.training.seconds} if self.training is not None else {}

    def _step(self) -> Report:
        from harness.training import trial as core

        if self.training is None:
            saved = self.post("begin", self.trial.id, *self.place)
            saved = self.files.state(self.trial.id) or saved
            key, role, fold = self.trial.inputs.data, self.trial.role, self.trial.protocol.fold
            split: Split = self._fetch(f"{key}/{role}/{fold}", self.shared.splits[key, role, fold])
            if self.trial.cell.is_baseline:
                beat = self.watchdog.beat
                return self._finish(*core.run_baseline(self.trial, split, self._spectrum(), beat, self.shared.top_k))
            if self.trial.cell.is_ensemble:
                return self._finish(*self._combine(split))
            keep_scores = self.shared.keep_user_scores and role == "search"
            spectrum, beat = self._spectrum(), self.watchdog.beat
            parts = self.attempt.parts
            self.training = core.Training(self.trial, split, spectrum, self.device, beat, keep_scores, parts)
            if saved is not None:
                self.training.restore(saved)
        curve = self.training.curve
        if not self.training.over:
            self.training.epoch()
        if self.training.over:
            return self._finish(*self.training.finish(self.shared.top_k))
        saved = self._save()
        return Epoch(list(curve), self.training.seconds, saved, self._users())

    def _combine(self, split: Split) -> tuple[TrialResult, TrialArtifacts]:
        """Run an ensemble with the weights of its parts. Raises TrialFailed if any are missing."""
        from harness.training import ensemble
        from harness.training.trial import TrialFailed

        parts = []
        for trial_id in self.trial.inputs.parts:
            weights = self.post("weights", trial_id)
            if weights is None:
                raise TrialFailed(f"the weights of its part {trial_id} are missing or damaged; rerun the bench")
            parts.append((ensemble.trial_of(weights), weights))
        settings = ensemble.Settings(self.device, self.watchdog.beat, self.shared.top_k)
        return ensemble.run(self.trial, parts, split, self._spectrum, settings)

    def _users(self) -> list[Scores]:
        """User scores of the epochs that this process has not reported. After a resume these are all epochs: which ones
        the driver has received before is unknown."""
        if self.training is None or not self.training.keep_user_scores:
            return []
        rows, self.reported = self.training.users[self.reported :], len(self.training.users)
        return rows

    def _spectrum(self, trial: Trial | None = None) -> Any:
        """Return the text that a trial reads, by default the current one."""
        from harness.training.trial import spectrum

        inputs = (trial or self.trial).inputs
        key = inputs.embedding
        if not key:
            return spectrum({}, self.shared.sizes[inputs.data])
        return spectrum(self._fetch(f"{key}/basis", self.shared.spectra[key]), 0)

    def _fetch(self, name: str, reference: Any) -> Any:
        """Return an object of the node's store, from the cache of the last cells if possible."""
        if name not in self.cache:
            self.cache[name] = self.get(reference)
            while len(self.cache) > 3 * KEPT_CELLS:
                self.cache.popitem(last=False)
        self.cache.move_to_end(name)
        return self.cache[name]

    def _save(self) -> bool:
        """Write a checkpoint, unless that would exceed SAVE_SHARE of the time; always if the bench is to stop. Return
        whether it was written."""
        now = time.monotonic()
        stopping = False
        if now - self.last_stop_check > STOP_CHECK_EVERY:
            self.last_stop_check, stopping = now, self.post("stopping")
        if self.save_cost and now - self.saved_at < self.save_cost / SAVE_SHARE and not stopping:
            return False
        state = self.training.save()
        if not self.files.save(self.trial.id, state):
            self.post("save", self.trial.id, state)
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - now
        return True

    def _finish(self, result: TrialResult, artifacts: Any) -> Ended:
        if self.trial.role == "confirm":
            self.post("finish", self.trial.id, self.files.without_weights(self.trial.id, vars(artifacts)))
        return self._ended(result)

    def _ended(self, result: TrialResult) -> Ended:
        users, self.training = self._users(), None
        result.info |= (
            self.meter.read() | ({"tf32": 1.0} if self.tf32 else {}) | ({"alone": 1.0} if self.attempt.alone else {})
        )
        return Ended(result, users)


def out_of_memory(error: Exception) -> bool:
    """Whether an exception of Python, numpy or torch reports a lack of memory, of host or device.

    >>> out_of_memory(MemoryError()), out_of_memory(ValueError("rank 3"))
    (True, False)
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in ("can't allocate memory", "not enough memory", "out of memory")
    )

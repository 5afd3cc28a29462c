"""One slot of the engine: trains one trial after another, an epoch a step. Knows no Ray: `search` puts it into an
actor and gives it two ways out, to the node's store of shared objects and to the recorder on the driver's machine.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import registry
from harness.data.splits import Split
from harness.engine.resources import ResourceMeter
from harness.engine.slots import Layout
from harness.engine.watchdog import Watchdog, die_with_parent
from harness.engine.worker_reports import Ended, Epoch, Refusal, Report
from harness.record import artifacts
from harness.system.code_hash import code_hash
from harness.training.user_scores import Scores
from harness.types import Trial, TrialResult

SAVE_SHARE = 0.05  # of a trial's time at most goes into checkpoints
KEPT_CELLS = 2  # data sets a worker keeps by hash
ASK_EVERY = 0.5  # seconds between questions whether the command was asked to stop


@dataclass(frozen=True)
class SharedData:
    """What workers read: object references by hash. `splits` keys are (data hash, role). `code`: the driver's
    `code_hash`. `watchdog`: seconds, as in `Watchdog`. `tells_users`: searches tell scores by user (`user_scores`)."""

    splits: dict[tuple[str, str], Any]
    spectra: dict[str, Any]
    sizes: dict[str, int]
    recorder: Any
    layout: Layout
    code: str
    watchdog: float
    tells_users: bool = False


class Recorder:
    """On the driver's machine: writes what workers leave into the home folder, knows where each trial runs, and tells
    them when the command was asked to stop."""

    def __init__(self, home: str) -> None:
        self.home = Path(home)
        self.places: dict[str, tuple[str, int]] = {}
        self.asked = False

    def begin(self, trial_id: str, node: str, pid: int) -> bytes | None:
        """A worker has taken a trial; returns its checkpoint if there is one."""
        self.places[trial_id] = node, pid
        return artifacts.load_checkpoint(self.home, trial_id)

    def place(self, trial_id: str) -> tuple[str, int] | None:
        return self.places.get(trial_id)

    def save(self, trial_id: str, data: bytes) -> None:
        artifacts.save_checkpoint(self.home, trial_id, data)

    def finish(self, trial_id: str, parts: dict[str, Any]) -> None:
        artifacts.save_artifacts(self.home, trial_id, **parts)

    def ask_to_stop(self) -> None:
        self.asked = True

    def stopping(self) -> bool:
        return self.asked


class OutOfMemory(Exception):
    """A trial found no memory: its process is done with, and the trial is tried again in a new one."""


class Unreachable(Exception):
    """The driver's machine or a shared object cannot be reached: no fault of the trial."""


class Worker:
    """get: an object reference -> the object. post: (method of the recorder, *arguments) -> its answer. place: the
    node this runs on, by Ray's id, and the process id. slots: trials that run on this node at once. Both `get` and
    `post` may raise Unreachable."""

    def __init__(
        self,
        shared: SharedData,
        get: Callable[[Any], Any],
        post: Callable[..., Any],
        place: tuple[str, int],
        slots: int,
    ) -> None:
        import torch

        die_with_parent()
        torch.set_num_threads(shared.layout.threads)
        self.device = "cuda" if shared.layout.gpu and torch.cuda.is_available() else "cpu"
        self.shared, self.get, self.post, self.place, self.slots = shared, get, post, place, slots
        self.cache: OrderedDict[str, Any] = OrderedDict()
        self.watchdog = Watchdog(shared.watchdog)
        self.asked = 0.0
        self.refusal = self._refusal()

    def _refusal(self) -> str:
        """Why this worker cannot take part: it runs other code than the driver. "" if it does not.

        Everything that a trial may import is imported first, so that what is hashed is what will run, whatever happens
        to the files from here on."""
        for package in (registry.ADAPTERS, registry.BACKBONES, registry.LOSSES, registry.BASELINES, registry.METRICS):
            for name in registry.names(package):
                with contextlib.suppress(Exception):  # a trial that needs it will say so
                    registry.load(package, name)
        own = code_hash()
        if own == self.shared.code:
            return ""
        return f"its code is {own}, the command's is {self.shared.code}"

    def begin(self, trial: Trial) -> None:
        """The trial of the next steps."""
        self.work = trial
        self.training: Any = None
        self.reported = 0  # epochs whose user scores this process has reported
        self.meter = ResourceMeter(1 / self.slots, gpu_share=self.shared.layout.gpu)
        self.saved_at, self.save_cost = time.monotonic(), 0.0
        self.longest = 0.0

    def step(self) -> Report:
        """Train one epoch and report it, or the trial's end. Faults of the trial itself are reported as its end, so
        that the process survives them.

        Raises OutOfMemory, because only a new process has all memory again, and Unreachable.
        """
        from harness.training.trial import TrialFailed

        if self.refusal:
            return Refusal(self.refusal)
        self.watchdog.start(self.longest)
        start = time.monotonic()
        try:
            return self._step()
        except Unreachable:
            raise
        except TrialFailed as error:
            return self._ended(TrialResult("failed", reason=str(error), curve=self._curve(), info=self._spent()))
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            if out_of_memory(error):
                raise OutOfMemory(reason) from None
            logging.getLogger("harness").exception("trial %s", self.work.id)
            return self._ended(TrialResult("failed", reason=reason, curve=self._curve(), info=self._spent()))
        finally:
            self.watchdog.stop()
            self.longest = max(self.longest, time.monotonic() - start)

    def close(self) -> None:
        self.watchdog.close()

    def _curve(self) -> list[float]:
        return list(self.training.curve) if self.training is not None else []

    def _spent(self) -> dict[str, float]:
        """Seconds of whole epochs: what a failed trial takes off its cell's budget."""
        return {"seconds": self.training.seconds} if self.training is not None else {}

    def _step(self) -> Report:
        from harness.training import trial as core

        if self.training is None:
            saved = self.post("begin", self.work.id, *self.place)
            key, role = self.work.inputs.data, self.work.role
            split: Split = self._fetch(f"{key}/{role}", self.shared.splits[key, role])
            if self.work.cell.is_baseline:
                return self._finish(*core.run_baseline(self.work, split, self._spectrum(), self.watchdog.beat))
            tells = self.shared.tells_users and role == "search"
            self.training = core.Training(self.work, split, self._spectrum(), self.device, self.watchdog.beat, tells)
            if saved is not None:
                self.training.restore(saved)
        curve = self.training.curve
        if not self.training.over:
            self.training.epoch()
        if self.training.over:
            return self._finish(*self.training.finish())
        saved = self._save()
        return Epoch(list(curve), self.training.seconds, saved, self._users())

    def _users(self) -> list[Scores]:
        """The user scores of every epoch that this process has not reported yet: all of them after a checkpoint, since
        nobody knows which ones reached the driver before."""
        if self.training is None or not self.training.keep_user_scores:
            return []
        rows, self.reported = self.training.users[self.reported :], len(self.training.users)
        return rows

    def _spectrum(self) -> Any:
        from harness.training.trial import spectrum

        key = self.work.inputs.embedding
        if not key:
            return spectrum({}, self.shared.sizes[self.work.inputs.data])
        return spectrum(self._fetch(f"{key}/basis", self.shared.spectra[key]), 0)

    def _fetch(self, name: str, reference: Any) -> Any:
        """An object of the node's store, mapped once and kept with those of the last cells."""
        if name not in self.cache:
            self.cache[name] = self.get(reference)
            while len(self.cache) > 3 * KEPT_CELLS:
                self.cache.popitem(last=False)
        self.cache.move_to_end(name)
        return self.cache[name]

    def _save(self) -> bool:
        """Checkpoint, unless that would take more than SAVE_SHARE of the time and nobody wants to stop. True if it was
        done."""
        now = time.monotonic()
        stopping = False
        if now - self.asked > ASK_EVERY:
            self.asked, stopping = now, self.post("stopping")
        if self.save_cost and now - self.saved_at < self.save_cost / SAVE_SHARE and not stopping:
            return False
        self.post("save", self.work.id, self.training.save())
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - now
        return True

    def _finish(self, result: TrialResult, artifacts: Any) -> Ended:
        if self.work.role == "confirm":
            self.post("finish", self.work.id, vars(artifacts))
        return self._ended(result)

    def _ended(self, result: TrialResult) -> Ended:
        users, self.training = self._users(), None
        result.info |= self.meter.read()
        return Ended(result, users)


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that there was no memory: Python's, numpy's and torch's, of host and device.

    >>> out_of_memory(MemoryError()), out_of_memory(ValueError("rank 3"))
    (True, False)
    """
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in ("can't allocate memory", "not enough memory", "out of memory")
    )

"""The GPU of a worker: how its trials share it with those of other workers, and what a trial does if its memory runs
out. Does not import Ray."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.system import tempdirs

# PyTorch reads one of these when it is imported. Expandable segments leave fewer holes in the memory of a process, so
# more is left for its neighbours.
ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")
if not any(name in os.environ for name in ALLOCATOR):
    os.environ[ALLOCATOR[1]] = "expandable_segments:True"

POLL = 0.05  # seconds between attempts to get a lock
EXHAUSTED = (
    *("CUDA out of memory", "CUDA error: out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)  # in errors of CUDA and its libraries that PyTorch does not turn into an OutOfMemoryError


def exhausted(error: Exception) -> bool:
    """Whether an exception of PyTorch reports a lack of GPU memory; one of the host's memory does not.

    >>> exhausted(RuntimeError("CUDA error: out of memory")), exhausted(MemoryError())
    (True, False)
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in EXHAUSTED)


@dataclass(frozen=True)
class Attempt:
    """How a trial uses its GPU. alone: no other trial computes there at the same time; parts: pieces into which each
    batch is cut."""

    alone: bool = False
    parts: int = 1

    def next(self, shared: bool, trains: bool) -> Attempt | None:
        """Return what to try after this attempt ran out of memory; None if nothing is left. shared: other trials use
        the GPU; trains: the trial has batches."""
        if shared and not self.alone:
            return Attempt(alone=True)
        return Attempt(self.alone, 2) if trains and self.parts == 1 else None


class CardLock:
    """A readers-writer lock on a GPU, for the processes of one user on one machine.

    Two files are locked with flock(2). `turn` is shared by trials that compute side by side, and exclusive for a trial
    that computes alone. Everyone takes `gate` before `turn`; a trial that is to compute alone keeps it, so later ones
    wait, and it gets its turn however many there are. The system releases the locks of a process that ends, however it
    ends.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.gate, self.turn = folder / f"{name}.gate", folder / f"{name}.turn"

    @contextlib.contextmanager
    def hold(self, alone: bool, beat: Callable[[], None], give_back: Callable[[], None]) -> Iterator[None]:
        """Hold the lock inside the context. beat: called while waiting; give_back: called before the lock is released,
        if this or another process computes alone."""
        import fcntl

        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        with _opened(self.gate) as gate, _opened(self.turn) as turn:
            for file in (gate, turn):
                while not _locked(file, kind):
                    beat()
                    time.sleep(POLL)
            if not alone:
                fcntl.flock(gate, fcntl.LOCK_UN)
            try:
                yield
            finally:
                if alone or not _locked(gate, fcntl.LOCK_SH):
                    give_back()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        os.close(file)  # releases its lock


def _locked(file: int, kind: int) -> bool:
    """Try to lock an open file; return whether it is locked now."""
    import fcntl

    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Card:
    """The device of a worker. lock: None if no other trial computes there; cuda: `torch.cuda`, None on a CPU."""

    def __init__(self, lock: CardLock | None = None, cuda: Any | None = None) -> None:
        self.lock, self.cuda = lock, cuda

    @classmethod
    def of(cls, share: float) -> Card:
        """Return the device of a worker with this share of a GPU: a CPU if it has none."""
        import torch

        if not share or not torch.cuda.is_available():
            return cls()
        if share >= 1:
            return cls(cuda=torch.cuda)
        uuid = str(torch.cuda.get_device_properties(0).uuid)
        return cls(CardLock(tempdirs.of_user("cards"), uuid), torch.cuda)

    def turn(self, alone: bool, beat: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """Use the GPU inside the context, at the same time as other trials or alone; beat: called while waiting."""
        return self.lock.hold(alone, beat, self.empty) if self.lock else contextlib.nullcontext()

    def empty(self) -> None:
        """Return unused memory to the GPU, for other processes."""
        if self.cuda is not None:
            self.cuda.empty_cache()

    def failure(self, attempt: Attempt, batch: int | None) -> str:
        """Return the reason for which a trial failed after its last attempt. batch: targets of a batch, None for a
        trial without batches."""
        batches = f"batches of {batch} targets{' in two parts' if attempt.parts > 1 else ''}, " if batch else ""
        memory = ""
        if self.cuda is not None:
            peak, total = self.cuda.max_memory_allocated(), self.cuda.get_device_properties(0).total_memory
            memory = f", peak {peak // 2**20} MB on a GPU of {total // 2**20} MB"
        advice = "; set a smaller train.batch_size or train.max_len" if batch else ""
        return f"out of memory: {batches}no other trial on the GPU at the same time{memory}{advice}"

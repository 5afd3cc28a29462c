"""Stop a command on Ctrl-C (SIGINT), or on SIGTERM, which a batch system sends before it kills.

Within `Stop.patiently` the first signal only sets `signum`, so that running code can finish in good order. Everywhere
else, and at the second signal, `Interrupted` is raised at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from harness.types import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 25.0  # seconds after SIGTERM until running epochs are abandoned: SLURM kills 30 s after it by default


class Stop:
    """Stop request of a command. A context manager that handles the signals, in the main thread, and then restores the
    previous handlers."""

    def __init__(self) -> None:
        self.signum = 0  # of the received signal; 0 if none
        self._since = 0.0
        self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._handle) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """In this block, the first signal only sets `signum`."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def check(self) -> None:
        """Raise Interrupted if a signal was received."""
        if self.signum:
            raise Interrupted(self.signum)

    @property
    def overdue(self) -> bool:
        """Whether there is no time left to wait for running epochs."""
        return self.signum == signal.SIGTERM and time.monotonic() - self._since > GRACE

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum or not self._patient:
            self.signum = self.signum or signum
            raise Interrupted(self.signum)
        self.signum, self._since = signum, time.monotonic()
        message = "Running epochs finish and are checkpointed; no more trials start."
        message += " Press Ctrl-C again to stop now." if signum == signal.SIGINT else ""
        sys.stderr.flush()
        os.write(2, f"\nStopping ({signal.Signals(signum).name}). {message}\n".encode())


@contextmanager
def shielded() -> Iterator[None]:
    """Shield processes started in this block from the SIGTERM that a batch system sends to all processes of a job:
    they would die before the command has saved their results. A handler set inside is removed afterwards."""
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

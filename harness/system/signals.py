"""How a command is asked to stop: Ctrl-C (SIGINT), or SIGTERM as a batch system sends it before it kills.

Within `Stop.patiently` the first signal only sets `signum`, and whoever works there comes to an end in good order;
everywhere else, and at the second signal, it raises `Interrupted` at once.
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
GRACE = 25.0  # seconds from SIGTERM until epochs under way are given up: SLURM kills 30 s after it by default


class Stop:
    """What a command was asked. A context manager that listens, in the main thread, and then gives the signals back."""

    def __init__(self) -> None:
        self.signum = 0  # of the signal that was heard, 0: none
        self._since = 0.0
        self._patient = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._hear) for signum in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Inside, the first signal only sets `signum`."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    @property
    def overdue(self) -> bool:
        """Whether there is no time left to wait for epochs under way."""
        return self.signum == signal.SIGTERM and time.monotonic() - self._since > GRACE

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        if self.signum or not self._patient:
            self.signum = self.signum or signum
            raise Interrupted(self.signum)
        self.signum, self._since = signum, time.monotonic()
        what = "Epochs under way end and are checkpointed, no trial starts"
        again = "; once more stops now" if signum == signal.SIGINT else ""
        sys.stderr.flush()
        os.write(2, f"\nStopping ({signal.Signals(signum).name}). {what}{again}.\n".encode())


@contextmanager
def shielded() -> Iterator[None]:
    """Processes started inside do not hear the SIGTERM that a batch system sends to all processes of a job at once:
    they would die before the command has saved what they know. Whoever takes the signal inside gives it back."""
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

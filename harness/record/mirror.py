"""Mirror a running bench to MLflow from a thread, so that a slow or dead server does not delay it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.record import tracking
from harness.record.ledger import Ledger
from harness.types import HarnessError

RETRY_AFTER = 30.0  # seconds between attempts while the server is away


class Mirror:
    """The mirroring thread. `put` never blocks; `close` waits for a limited time."""

    def __init__(self, uri: str, home: Path, ledger: Ledger, warn: Callable[[str], None]) -> None:
        self.uri, self.home, self.ledger, self.warn = uri, home, ledger, warn
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._pending: list[str] = []
        self._tracker: tracking.Tracker | None = None
        self.page: str | None = None  # URL of the runs (`tracking.runs_page`), once the store was reached
        self._warned = False
        self._next_try = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def put(self, trial_id: str) -> None:
        self._queue.put(trial_id)

    def close(self, seconds: float = 60.0) -> int:
        """Finish the queue within `seconds`, then stop. Returns the number of trials not mirrored."""
        self._queue.put(None)
        self._thread.join(seconds)
        return len(self._pending) + self._queue.qsize()

    def _work(self) -> None:
        last = False
        while not last:
            try:
                trial_id = self._queue.get(timeout=RETRY_AFTER if self._pending else None)
            except queue.Empty:  # no trial ended: check whether the server is back
                trial_id = ""
            last = trial_id is None
            self._pending += [trial_id] if trial_id else []
            if last or time.monotonic() >= self._next_try:
                self._drain()

    def _drain(self) -> None:
        try:
            if self._tracker is None:
                self._tracker = tracking.Tracker(self.uri, self.home, mend=True)
                self.page = self._tracker.page
                self._here = self._tracker.mirrored()
            while self._pending:
                if self._pending[0] not in self._here:
                    self._tracker.mirror(self.ledger, self._pending[0])
                self._pending.pop(0)
        except Exception as error:  # the bench continues whatever MLflow raises
            self._next_try = time.monotonic() + RETRY_AFTER
            self._tracker = None  # partly written runs are found and completed later
            if not self._warned:
                self._warned = True
                self.warn(self._message(error))

    def _message(self, error: Exception) -> str:
        """Return a one-line warning; a HarnessError already names its remedy."""
        if isinstance(error, HarnessError):
            return f"{error} Then `harness sync` catches up."
        place = tracking.redact(self.uri)
        return f"MLflow at {place} is away ({tracking.first_line(error)}); `harness sync` catches up later."

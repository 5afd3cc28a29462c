"""Mirror a running bench to MLflow from a thread, so that a slow or dead server does not delay it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.record import tracking
from harness.record.ledger import Ledger
from harness.record.mlflow_run import Refused
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
        self._warned = self._refused = False
        self._next_try = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-mirror", daemon=True)
        self._thread.start()

    def put(self, trial_id: str) -> None:
        self._queue.put(trial_id)

    def close(self, seconds: float = 60.0) -> int:
        """Finish the queue within `seconds`, then stop. Returns the number of trials not mirrored."""
        self._queue.put(None)
        self._thread.join(seconds)
        with self._queue.mutex:
            waiting = [trial_id for trial_id in self._queue.queue if trial_id is not None]
        return len({*self._pending, *waiting})

    def _work(self) -> None:
        last = False
        while not last:
            arrived = self._arrived()
            last = None in arrived
            new = [trial_id for trial_id in arrived if trial_id is not None]
            self._pending = list(dict.fromkeys(self._pending + new))
            if last or time.monotonic() >= self._next_try:
                self._drain()

    def _arrived(self) -> list[str | None]:
        """Wait for the next trial and take all that are in the queue, so that a mirror that lags writes several at
        once. Empty if nothing came while trials wait for a server that was away."""
        arrived: list[str | None] = []
        try:
            arrived.append(self._queue.get(timeout=RETRY_AFTER if self._pending else None))
            while True:
                arrived.append(self._queue.get_nowait())
        except queue.Empty:
            return arrived

    def _drain(self) -> None:
        try:
            if self._tracker is None:
                self._tracker = tracking.Tracker(self.uri, self.home, mend=True)
                self.page = self._tracker.page
                self._tracker.look()
            tracker = self._tracker
            self._pending = [trial_id for trial_id in self._pending if tracker.lacks(self.ledger, trial_id)]
            for trial_id in tracker.write(self.ledger, list(self._pending)):
                self._pending.remove(trial_id)
                if trial_id in tracker.refused and not self._refused:
                    self._refused = True  # once, although all trials of a row may be refused
                    line = tracking.refusal(self.uri, self.ledger, {trial_id: tracker.refused[trial_id]})
                    self.warn(f"{line} The others are written; `harness sync` counts what is refused.")
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
        what = "refused the data" if isinstance(error, Refused) else "is away"
        place = tracking.redact(self.uri)
        return f"MLflow at {place} {what} ({tracking.first_line(error)}); `harness sync` catches up later."

"""Share a home with other bench processes: only one process searches a cell, and only one runs a trial."""

from __future__ import annotations

from collections.abc import Callable

from harness.record.leases import Leases
from harness.record.ledger import Ledger
from harness.search.study import Study


class NoOtherBenches:
    """For a single process: every key is free, and only this process changes the ledger."""

    def take(self, key: str) -> bool:
        """Take the lease of a cell (by its study's id) or a trial; False if another process holds it. On success the
        ledger contains the events of all other processes."""
        return True

    def news(self, study: Study) -> bool:
        """Whether others may have worked on a cell since the last call. Call it once the cell is held."""
        return False

    def release(self, key: str) -> None:
        """Release the lease of a cell or trial."""

    def wait(self) -> None:
        """Called when this process has nothing to run: read the events of others, log the runs it waits for."""


class OtherBenches(NoOtherBenches):
    """Coordinate with other processes by the leases of the home.

    run: name of this process's ledger segment; log: called with a line for the user.
    """

    def __init__(self, leases: Leases, ledger: Ledger, run: str, log: Callable[[str], None]) -> None:
        self._leases, self._ledger, self._run, self._log = leases, ledger, run, log
        self._seen: dict[str, int] = {}  # study -> number of foreign ledger lines at its last `news`
        self._fresh: set[str] = set()  # keys taken since then
        self._busy: dict[str, str] = {}  # key held by another process -> its run
        self._logged = ""

    def take(self, key: str) -> bool:
        if self._leases.holds(key):
            return True
        if owner := self._leases.claim(key):
            self._busy[key] = owner
            return False
        self._busy.pop(key, None)
        self._fresh.add(key)
        self._ledger.refresh(self._run)
        return True

    def news(self, study: Study) -> bool:
        if study.id not in self._fresh:
            return False
        self._fresh.discard(study.id)
        before, now = self._seen.get(study.id, 0), self._ledger.foreign
        self._seen[study.id] = now
        return before != now

    def release(self, key: str) -> None:
        self._fresh.discard(key)
        self._leases.release(key)

    def wait(self) -> None:
        self._ledger.refresh(self._run)
        runs = sorted(set(self._busy.values()))
        text = f"Waiting for {len(self._busy)} cell(s) in progress in run {', '.join(runs)}." if runs else ""
        if text and text != self._logged:
            self._logged = text
            self._log(text)

"""Other bench processes of the same home, as a grid meets them: one process searches a cell, one runs a trial."""

from __future__ import annotations

from collections.abc import Callable

from harness.record.leases import Leases
from harness.record.ledger import Ledger
from harness.search.plan import Study


class NoOtherBenches:
    """No other process: everything is ours, nothing changes but by us."""

    def take(self, key: str) -> bool:
        """Hold a cell (by its study's id) or a trial; False if another process does. What that process has written
        is in the ledger afterwards."""
        return True

    def news(self, study: Study) -> bool:
        """Whether others may have worked on a cell since it was last looked at. Asked once it is held."""
        return False

    def release(self, key: str) -> None:
        """Let others have what was held."""

    def wait(self) -> None:
        """Nothing is to be done here now: look at what others do, and say what is waited for."""


class OtherBenches(NoOtherBenches):
    """Processes that share the home's leases; `run` names our own segment, `tell` takes lines for people."""

    def __init__(self, leases: Leases, ledger: Ledger, run: str, tell: Callable[[str], None]) -> None:
        self._leases, self._ledger, self._run, self._tell = leases, ledger, run, tell
        self._seen: dict[str, int] = {}  # study -> how much of others had been read when its cell was looked at
        self._fresh: set[str] = set()  # keys that became ours since then
        self._busy: dict[str, str] = {}  # what others hold -> their run
        self._told = ""

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
        text = f"Waiting for {len(self._busy)} cell(s) that {' and '.join(runs)} works on." if runs else ""
        if text and text != self._told:
            self._told = text
            self._tell(text)

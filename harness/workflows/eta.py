"""When a grid will be done: what its cells still need, by what their own trials took.

Seconds are those that trials measure themselves (training and validation), the clock comes in once: by how many of them
passed in a second of this run. A run that goes on from another therefore counts its own pace alone, and a cell of long
trials is not taken for one of short ones.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger

SAMPLE = 30  # of a cell's trials, the last ones, tell what one takes


@dataclass
class CellWork:
    """One cell: trials it still needs, seconds of those that ended, and what of the trials in flight is done, as a
    share of one trial (two half-done trials: 1.0). ``seconds_left``: of a budget in seconds, None without one.
    ``trains``: False for a baseline."""

    searching: int
    confirming: int
    searched: list[float] = field(default_factory=list)
    confirmed: list[float] = field(default_factory=list)
    flying: float = 0.0
    seconds_left: float | None = None
    trains: bool = True

    def needs(self, search: float | None, confirm: float | None) -> float | None:
        """Seconds the cell still needs; `search` and `confirm` are what a trial takes elsewhere, None: nobody knows."""
        search = fmean(self.searched) if self.searched else search
        own = self.confirmed or ([max(self.searched)] if self.searched else [])  # the longest was not pruned
        confirm = fmean(own) if own else confirm if confirm is not None else search
        if (self.searching and search is None) or (self.confirming and confirm is None):
            return None
        left = self.searching * (search or 0.0)
        if self.seconds_left is not None and self.searching:
            left = min(left, max(self.seconds_left, 0.0) + (search or 0.0) / 2)
        return max(left + self.confirming * (confirm or 0.0) - self.flying * (search or confirm or 0.0), 0.0)


def work(ledger: Ledger, study: StudyRecord, epochs: Mapping[str, int]) -> CellWork:
    """Remaining work of a recorded study; `epochs`: trial id in flight -> epochs it has finished."""
    planned = ledger.planned(study)
    history = ledger.history(study.id, planned)
    ended = {i: r for i, r in history.values() if r is not None}
    wanted = ledger.confirmations(study)
    confirmed = [i for i in wanted if ledger.result(i) is not None]
    alive = any(r.status == "done" for r in ended.values())
    searching = planned - sum(r is not None for _, r in history.values())
    confirming = study.seeds - len(confirmed) if searching or alive or study.confirm is not None else 0
    known = [*ended][-SAMPLE:]
    found = CellWork(searching, confirming, _taken(ledger, known), _taken(ledger, confirmed))
    found.trains = not study.cell.is_baseline
    if study.cell_seconds is not None:
        found.seconds_left = study.cell_seconds - sum(map(ledger.seconds, ended))
    for trial_id in [*(i for i, r in history.values() if r is None), *wanted]:
        if trial_id in epochs and ledger.result(trial_id) is None:
            lengths = [n for i in [*known[-3:], *confirmed[-3:]] if (n := ledger.trials[i].trained) > 0]
            length = fmean(lengths) if lengths else ledger.trials[trial_id].trial.epochs
            found.flying += min(epochs[trial_id] / max(length, 1), 0.9)
    return found


def _taken(ledger: Ledger, trials: Sequence[str]) -> list[float]:
    """Seconds that these trials took. One that failed before its first epoch took none and predicts nothing."""
    return [seconds for i in trials if (seconds := ledger.seconds(i)) > 0]


def needs(works: Sequence[CellWork]) -> list[float] | None:
    """Seconds each cell still needs; a cell of which nothing ended is taken for the mean of the others. None while
    nothing ended at all."""
    searched = [fmean(w.searched) for w in works if w.searched]
    confirmed = [fmean(w.confirmed) for w in works if w.confirmed and w.trains]
    own = [w.needs(fmean(searched) if searched else None, fmean(confirmed) if confirmed else None) for w in works]
    return None if any(seconds is None for seconds in own) else [seconds or 0.0 for seconds in own]


def finishes(seconds: Sequence[float], slots: int, pace: float | None) -> list[float] | None:
    """When each cell will be done, seconds of the clock from now: cells in order, one a slot, as the grid hands them
    out; where fewer are left than slots, they share them. `pace`: trial seconds in a slot's second; None while it is
    unknown, and then so are the ends."""
    if pace is None:
        return None
    free = [0.0] * slots
    whole = sum(seconds) / slots / pace
    found = []
    for needed in seconds:
        start = heapq.heappop(free)
        heapq.heappush(free, start + needed / pace)
        found.append(min(start + needed / pace, whole) if needed else 0.0)
    return found


def pace(works: Sequence[CellWork], ran: Sequence[float], elapsed: float, slots: int) -> float | None:
    """Trial seconds that pass in a second of a slot in this run, which began `elapsed` seconds ago and ended trials of
    `ran` seconds; at most 1. None while no trial of this run took any time: one that fails at once takes none."""
    flying = 0.0
    for w in works:
        known = w.searched or w.confirmed
        flying += w.flying * fmean(known) if known else 0.0
    passed = sum(ran) + flying
    return min(passed / max(elapsed * slots, 1e-9), 1.0) if passed > 0 else None

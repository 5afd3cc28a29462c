"""Estimate when a grid will be done from the durations of each cell's finished trials.

Durations are measured by the trials themselves (training and validation). Wall time enters only through the pace: trial
seconds per second of the current run. So a resumed run counts only its own pace, and a cell with long trials is not
mistaken for one with short trials.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger

SAMPLE = 30  # the last trials of a cell that its duration per trial is averaged over


@dataclass
class CellWork:
    """Remaining work of one cell.

    ``searching``, ``confirming``: trials it still needs; ``searched``, ``confirmed``: seconds of finished trials;
    ``flying``: completed share of the trials in flight, in trials (two half-done trials: 1.0); ``seconds_left``: rest
    of a time budget, None without one; ``trains``: False for a baseline or an ensemble."""

    searching: int
    confirming: int
    searched: list[float] = field(default_factory=list)
    confirmed: list[float] = field(default_factory=list)
    flying: float = 0.0
    seconds_left: float | None = None
    trains: bool = True

    def needs(self, search: float | None, confirm: float | None) -> float | None:
        """Return the seconds the cell needs, None if unknown; `search`, `confirm`: mean seconds in other cells.

        What does not train takes a second each, until some have ended."""
        if not self.trains:
            return self.confirming * (fmean(self.confirmed) if self.confirmed else 1.0)
        search = fmean(self.searched) if self.searched else search
        samples = self.confirmed or ([max(self.searched)] if self.searched else [])  # the longest was not pruned
        confirm = fmean(samples) if samples else confirm if confirm is not None else search
        if (self.searching and search is None) or (self.confirming and confirm is None):
            return None
        left = self.searching * (search or 0.0)
        if self.seconds_left is not None and self.searching:
            left = min(left, max(self.seconds_left, 0.0) + (search or 0.0) / 2)
        return max(left + self.confirming * (confirm or 0.0) - self.flying * (search or confirm or 0.0), 0.0)


def work(ledger: Ledger, study: StudyRecord, epochs: Mapping[str, int]) -> CellWork:
    """Return the remaining work of a recorded study; `epochs`: id of a trial in flight -> epochs it has finished."""
    planned = ledger.planned(study)
    history = ledger.history(study.id, planned)
    ended = {i: r for i, r in history.values() if r is not None}
    wanted = ledger.confirmations(study)
    confirmed = [i for i in wanted if ledger.result(i) is not None]
    alive = any(r.status == "done" for r in ended.values())
    searching = planned - sum(r is not None for _, r in history.values())
    fixed = study.confirm is not None or study.parts  # needs no search of its own
    confirming = study.runs - len(confirmed) if searching or alive or fixed else 0
    recent = [*ended][-SAMPLE:]
    cell_work = CellWork(searching, confirming, _durations(ledger, recent), _durations(ledger, confirmed))
    cell_work.trains = study.cell.is_trained
    if study.cell_seconds is not None:
        cell_work.seconds_left = study.cell_seconds - sum(map(ledger.seconds, ended))
    for trial_id in [*(i for i, r in history.values() if r is None), *wanted]:
        if trial_id in epochs and ledger.result(trial_id) is None:
            lengths = [n for i in [*recent[-3:], *confirmed[-3:]] if (n := ledger.trials[i].trained) > 0]
            length = fmean(lengths) if lengths else ledger.trials[trial_id].trial.epochs
            cell_work.flying += min(epochs[trial_id] / max(length, 1), 0.9)
    return cell_work


def _durations(ledger: Ledger, trials: Sequence[str]) -> list[float]:
    """Return the seconds of the trials, without those that failed before the first epoch: their 0 predicts nothing."""
    return [seconds for i in trials if (seconds := ledger.seconds(i)) > 0]


def needs(works: Sequence[CellWork]) -> list[float] | None:
    """Return the seconds each cell still needs; None until a trial has ended.

    A cell without finished trials is estimated by the mean of the others.
    """
    searched = [fmean(w.searched) for w in works if w.searched]
    confirmed = [fmean(w.confirmed) for w in works if w.confirmed and w.trains]
    needed = [w.needs(fmean(searched) if searched else None, fmean(confirmed) if confirmed else None) for w in works]
    return None if any(seconds is None for seconds in needed) else [seconds or 0.0 for seconds in needed]


def finishes(seconds: Sequence[float], slots: int, pace: float | None) -> list[float] | None:
    """Return when each cell will be done, in seconds of wall time from now; None while `pace` is unknown.

    Cells run in order, one per slot; if fewer cells than slots are left, they share the slots. `pace`: trial seconds
    per second of a slot.
    """
    if pace is None:
        return None
    free = [0.0] * slots
    whole = sum(seconds) / slots / pace
    ends = []
    for needed in seconds:
        start = heapq.heappop(free)
        heapq.heappush(free, start + needed / pace)
        ends.append(min(start + needed / pace, whole) if needed else 0.0)
    return ends


def pace(works: Sequence[CellWork], ran: Sequence[float], elapsed: float, slots: int) -> float | None:
    """Return the trial seconds per second of a slot in this run, at most 1.

    `elapsed`: seconds since the run began; `ran`: seconds of each trial that ended in it. None while no trial of this
    run has taken any time (a trial that fails at once takes none).
    """
    flying = 0.0
    for w in works:
        samples = w.searched or w.confirmed
        flying += w.flying * fmean(samples) if samples else 0.0
    passed = sum(ran) + flying
    return min(passed / max(elapsed * slots, 1e-9), 1.0) if passed > 0 else None

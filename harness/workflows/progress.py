"""Progress of a running grid, on stderr: one rewritten line on a terminal, else one plain line per trial."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from harness.search.studies import GridEvent
    from harness.search.study import Study

EVERY = 30.0  # seconds between plain lines about running trials
SHARE = 0.01  # largest share of the time spent on estimates: with 100,000 trials each one takes a while


class Progress:
    """Counts the trials of these studies, and estimates the remaining time from the durations of each cell's trials."""

    def __init__(self, studies: list[Study], slots: int, stream: TextIO | None = None) -> None:
        self.studies, self.slots = studies, slots
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.start = self.last_line = time.monotonic()
        self.began: float | None = None  # start of the first trial, after Ray has started
        self.ended = self.failed = 0
        self.total = sum(study.to_run() for study in studies)
        self.best: dict[object, float] = {}
        self.epochs: dict[str, int] = {}  # of trials in flight
        self.ran: list[float] = []  # seconds of this run's trials
        self._left, self._due = "", 0.0

    def __call__(self, event: GridEvent) -> None:
        cell = event.assignment.trial.cell
        if self.began is None:
            self.began = time.monotonic()
        if event.kind == "epoch":
            self.epochs[event.assignment.trial.id] = event.epoch + 1
            self.best[cell] = max(self.best.get(cell, 0.0), event.value)
        if event.kind == "ended" and event.result is not None:
            self.ended += 1
            self.epochs.pop(event.assignment.trial.id, None)
            self.ran.append(event.result.info.get("seconds", 0.0))
            self.failed += event.result.status == "failed"
            if not self.live or event.result.status == "failed":
                self.line(f"[{self.ended}/{self.total}] {describe(event)}   {self.eta()}")
        elif not self.live and time.monotonic() - self.last_line > EVERY:
            self.line(f"[{self.ended}/{self.total}] {cell}: epoch {event.epoch + 1}, NDCG@10 {event.value:.4f}")
        if self.live:
            best = f"best {self.best[cell]:.4f}" if cell in self.best else ""
            text = f"[{self.ended}/{self.total}] {cell} {best}   {self.eta()}"
            self.stream.write(f"\r\x1b[2K{text[:150]}")
            self.stream.flush()

    def line(self, text: str) -> None:
        self.last_line = time.monotonic()
        self.stream.write(("\r\x1b[2K" if self.live else "") + text + "\n")
        self.stream.flush()

    def eta(self) -> str:
        """Return the elapsed and, once trials have ended, the remaining time."""
        now = time.monotonic()
        if now >= self._due and self.ended:
            self._left = self._estimate(now)
            self._due = now + (time.monotonic() - now) / SHARE
        text = f"{clock(now - self.start)} elapsed{self._left}"
        return text + (f", {self.failed} failed" if self.failed else "")

    def _estimate(self, now: float) -> str:
        """Return the remaining time as text. Recounts the trials, since a time budget shortens searches."""
        from harness.workflows import eta

        self.total = self.ended + sum(study.to_run() for study in self.studies)
        works = [eta.work(study.ledger, study.record(), self.epochs) for study in self.studies]
        needed = eta.needs(works)
        if needed is None or self.began is None:
            return ""
        ends = eta.finishes(needed, self.slots, eta.pace(works, self.ran, now - self.began, self.slots))
        return "" if ends is None else f", about {clock(max(ends, default=0.0))} left"

    def close(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def describe(event: GridEvent) -> str:
    """Return one line about an ended trial."""
    trial, result = event.assignment.trial, event.result
    assert result is not None
    what = f"seed {trial.seed}" if trial.role == "confirm" else f"trial {event.assignment.number}"
    what += f", fold {trial.protocol.fold}" if trial.protocol.folds and trial.role == "confirm" else ""
    if result.status == "failed":
        return f"{trial.cell} {what} failed: {result.reason}"
    if result.status == "pruned":
        return f"{trial.cell} {what} pruned after {len(result.curve)} epochs at {result.best:.4f}"
    seconds = result.info.get("seconds", 0.0)
    return f"{trial.cell} {what}: validation NDCG@10 {result.best:.4f} in {clock(seconds)}"


def clock(seconds: float) -> str:
    """Format a duration for people.

    >>> clock(7.4), clock(754), clock(90061)
    ('7s', '12m34s', '25h01m')
    """
    s = int(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"

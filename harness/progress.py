"""What is told while the grid runs: one rewritten line on a terminal, a plain line a trial elsewhere. To stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from harness.studies import Event

EVERY = 30.0  # seconds between plain lines about trials that still run


class Progress:
    """Counts trials of a plan of `total` and estimates the rest from those that ended in this run."""

    def __init__(self, total: int, slots: int, stream: TextIO | None = None) -> None:
        self.total, self.slots = total, slots
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.start = self.told = time.monotonic()
        self.ended = self.failed = 0
        self.best: dict[object, float] = {}

    def __call__(self, event: Event) -> None:
        cell = event.assignment.trial.cell
        if event.kind == "epoch":
            self.best[cell] = max(self.best.get(cell, 0.0), event.value)
        if event.kind == "ended" and event.result is not None:
            self.ended += 1
            self.failed += event.result.status == "failed"
            if not self.live or event.result.status == "failed":
                self.line(f"[{self.ended}/{self.total}] {describe(event)}   {self.eta()}")
        elif not self.live and time.monotonic() - self.told > EVERY:
            self.line(f"[{self.ended}/{self.total}] {cell}: epoch {event.epoch + 1}, NDCG@10 {event.value:.4f}")
        if self.live:
            best = f"best {self.best[cell]:.4f}" if cell in self.best else ""
            text = f"[{self.ended}/{self.total}] {cell} {best}   {self.eta()}"
            self.stream.write(f"\r\x1b[2K{text[:150]}")
            self.stream.flush()

    def line(self, text: str) -> None:
        self.told = time.monotonic()
        self.stream.write(("\r\x1b[2K" if self.live else "") + text + "\n")
        self.stream.flush()

    def eta(self) -> str:
        """Elapsed time and, once trials have ended, what is left at their pace."""
        elapsed = time.monotonic() - self.start
        text = f"{clock(elapsed)} gone"
        if self.ended:
            text += f", about {clock(elapsed / self.ended * (self.total - self.ended))} to go"
        return text + (f", {self.failed} failed" if self.failed else "")

    def close(self) -> None:
        if self.live:
            self.stream.write("\r\x1b[2K")
            self.stream.flush()


def describe(event: Event) -> str:
    """One ended trial in words."""
    trial, result = event.assignment.trial, event.result
    assert result is not None
    what = f"seed {trial.seed}" if trial.role == "confirm" else f"trial {event.assignment.number}"
    if result.status == "failed":
        return f"{trial.cell} {what} failed: {result.reason}"
    if result.status == "pruned":
        return f"{trial.cell} {what} pruned after {len(result.curve)} epochs at {result.best:.4f}"
    seconds = result.info.get("seconds", 0.0)
    return f"{trial.cell} {what}: validation NDCG@10 {result.best:.4f} in {clock(seconds)}"


def clock(seconds: float) -> str:
    """A duration for people.

    >>> clock(7.4), clock(754), clock(90061)
    ('7s', '12m34s', '25h01m')
    """
    s = int(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"

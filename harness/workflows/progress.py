"""Progress of a running grid, on stderr: its standings, redrawn, on a terminal, else one plain line per trial."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from harness.workflows.standings import Standings

if TYPE_CHECKING:
    from harness.search.studies import GridEvent
    from harness.search.study import Study

EVERY = 30.0  # seconds between plain lines about running trials
REDRAW = 0.25  # shortest time in seconds between two drawings of the standings
FRAME = 4  # lines of a terminal that the standings leave free
SHARE = 0.01  # largest share of the time spent on estimates: with 100,000 trials each one takes a while


class Progress:
    """Counts the trials of these studies, and estimates the remaining time from the durations of each cell's trials.

    shown: the cells of the standings, also those with nothing left to run (default: the studies).
    """

    def __init__(
        self, studies: list[Study], slots: int, stream: TextIO | None = None, shown: Sequence[Study] | None = None
    ) -> None:
        self.studies, self.slots = studies, slots
        self.stream = stream or sys.stderr
        self.standings = Standings(studies if shown is None else shown)
        self.complete = self.standings.complete
        self.live = self._screen()
        self.drawn = 0.0
        self.start = self.last_line = time.monotonic()
        self.began: float | None = None  # start of the first trial, after Ray has started
        self.ended = self.failed = 0
        self.total = sum(study.to_run() for study in studies)
        self.epochs: dict[str, int] = {}  # of trials in flight
        self.ran: list[float] = []  # seconds of this run's trials
        self._left, self._due = "", 0.0

    def __call__(self, event: GridEvent) -> None:
        trial = event.assignment.trial
        if self.began is None:
            self.began = time.monotonic()
        if event.kind == "started":
            self.standings.started(trial.cell)
        if event.kind == "reused" and event.result is not None:
            self.standings.reused(trial.cell, trial.role, event.result)
        if event.kind == "epoch":
            self.epochs[trial.id] = event.epoch + 1
        if event.kind == "ended" and event.result is not None:
            self.ended += 1
            self.epochs.pop(trial.id, None)
            self.ran.append(event.result.info.get("seconds", 0.0))
            self.failed += event.result.status == "failed"
            self.standings.ended(trial.cell, trial.role, event.result)
            if self.live is None or event.result.status == "failed":
                self.line(f"[{self.ended}/{self.total}] {describe(event)}   {self.eta()}")
        elif event.kind == "epoch" and self.live is None and time.monotonic() - self.last_line > EVERY:
            self.line(f"[{self.ended}/{self.total}] {trial.cell}: epoch {event.epoch + 1}, NDCG@10 {event.value:.4f}")
        self._show()

    def line(self, text: str) -> None:
        self.last_line = time.monotonic()
        if self.live is not None:
            self.live.console.print(Text(text))
            return
        self.stream.write(text + "\n")
        self.stream.flush()

    def _screen(self) -> Live | None:
        """Begin the redrawn part of a terminal; None if the stream is none."""
        if not self.stream.isatty() or os.environ.get("TERM") in (None, "dumb"):
            return None
        live = Live(console=Console(file=self.stream), auto_refresh=False, transient=True)
        live.start()
        live.console.show_cursor()  # a killed process would leave the terminal without one
        return live

    def _show(self) -> None:
        """Redraw the standings; without a terminal, write them once, when every cell has finished or failed a trial."""
        if self.live is None:
            if not self.complete and self.standings.complete and self.ended < self.total:
                self.complete = True
                self.line("Every cell has finished or failed a trial. Validation NDCG@10 so far:")
                for text in self.standings.lines():
                    self.line("  " + text)
        elif time.monotonic() - self.drawn > REDRAW:
            self.live.update(self._standings(self.live.console), refresh=True)
            self.drawn = time.monotonic()

    def _standings(self, console: Console) -> Group:
        rows = self.standings.rows()
        fit = max(1, console.size.height - FRAME)
        table = Table(box=None, pad_edge=False)
        for name in self.standings.header():
            table.add_column(name, justify="right" if name in ("NDCG@10", "trials") else "left", no_wrap=True)
        for row in rows[:fit]:
            table.add_row(*map(Text, row))
        more = f", {len(rows) - fit} cell(s) not shown" if len(rows) > fit else ""
        foot = Text(f"[{self.ended}/{self.total}] validation NDCG@10 so far{more}   {self.eta()}", overflow="ellipsis")
        foot.no_wrap = True
        return Group(table, foot)

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
        """Erase the standings; the lines stay."""
        if self.live is not None:
            self.live.stop()
            self.live = None


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

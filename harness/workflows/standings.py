"""Standings of a running bench: the validation NDCG@10 of each cell so far. A test score never appears in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from harness.types import NO_TEXT, Cell, TrialResult

if TYPE_CHECKING:
    from harness.search.study import Study

AXES = ("dataset", "encoder", "backbone")  # shown if the cells differ in them


@dataclass
class Standing:
    """One cell: its planned and ended trials, and the scores of those that finished."""

    study: Study
    planned: int
    ended: int
    running: int = 0
    searched: list[float] = field(default_factory=list)
    confirmed: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, study: Study) -> Standing:
        """Read a cell's state from the ledger."""
        winner = study.winner()
        results = [study.ledger.result(trial.id) for trial in study.confirmations(winner)] if winner else []
        standing = cls(study, study.trials + study.runs, 0)
        for role, ended in (("search", study.ended()), ("confirm", [r for r in results if r is not None])):
            for result in ended:
                standing.take(role, result)
        return standing

    def take(self, role: str, result: TrialResult) -> None:
        """Count an ended trial."""
        self.ended += 1
        if result.status == "done":
            (self.searched if role == "search" else self.confirmed).append(result.best)

    @property
    def score(self) -> float | None:
        """Best trial of the search, or the mean over seeds of a cell without one; None if there is neither."""
        if self.searched:
            return max(self.searched)
        return fmean(self.confirmed) if self.confirmed else None


class Standings:
    """The cells of a bench, in the order of its plan."""

    def __init__(self, studies: Sequence[Study]) -> None:
        self.cells = {study.cell: Standing.of(study) for study in studies}
        self.axes = [axis for axis in AXES if len(self._values(axis)) > 1]

    def _values(self, axis: str) -> set[str]:
        return {getattr(cell, axis) for cell in self.cells if cell.is_trained} - {NO_TEXT}

    def started(self, cell: Cell) -> None:
        self.cells[cell].running += 1

    def ended(self, cell: Cell, role: str, result: TrialResult) -> None:
        standing = self.cells[cell]
        standing.running = max(0, standing.running - 1)
        standing.take(role, result)

    def reused(self, cell: Cell, role: str, result: TrialResult) -> None:
        """Count a trial of another search, whose result this one takes."""
        self.cells[cell].take(role, result)

    @property
    def complete(self) -> bool:
        """Whether every trained cell has ended a trial."""
        return all(standing.ended for cell, standing in self.cells.items() if cell.is_trained)

    def header(self) -> list[str]:
        return [*(axis.replace("dataset", "data set") for axis in self.axes), "adapter", "NDCG@10", "trials"]

    def rows(self) -> list[list[str]]:
        """Return one row of text per cell: best first, cells without a score last."""
        ranked = sorted(self.cells.items(), key=lambda pair: -(pair[1].score or 0.0))
        return [self._row(cell, standing) for cell, standing in ranked]

    def _row(self, cell: Cell, standing: Standing) -> list[str]:
        score = "" if standing.score is None else f"{standing.score:.4f}"
        running = "+" if standing.running else ""
        axes = [getattr(cell, axis) for axis in self.axes]
        return [*axes, cell.adapter, score, f"{standing.ended}{running}/{standing.planned}"]

    def lines(self) -> list[str]:
        """Return the standings as aligned lines, the header first."""
        table = [self.header(), *self.rows()]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in table]

"""Every row of a section against every other: what a reader who narrows the table or takes another reference needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.stats import resampling
from harness.stats.crossed_effects import CrossedRows
from harness.types import Cell


@dataclass(frozen=True)
class Pairs:
    """The n rows of a section that have results, compared in the headline metric; entry [i, j] is row i against j.

    ``low``, ``high`` (n, n): the 95 % interval of the gain of i over j in percent of the mean of j, paired by user;
    NaN where j may score nothing. ``p`` (n, n): of no difference, not adjusted for the number of tests.
    """

    cells: tuple[Cell, ...]
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray

    @classmethod
    def of(cls, cells: tuple[Cell, ...], section: CrossedRows) -> Pairs:
        return cls(cells, *section.gains, section.p)

    def adjusted(self, reference: Cell) -> dict[Cell, float]:
        """Holm-adjusted p-values of the family of all rows but the reference against the reference."""
        j = self.cells.index(reference)
        others = [i for i in range(len(self.cells)) if i != j]
        p = resampling.holm(self.p[others, j]) if others else np.empty(0)
        return {self.cells[i]: float(value) for i, value in zip(others, p, strict=True)}

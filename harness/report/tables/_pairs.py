"""Comparisons of all pairs of rows in a section, so that the page can filter rows or change the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.stats import resampling
from harness.stats.crossed_effects import CrossedRows
from harness.types import Cell


@dataclass(frozen=True)
class Pairs:
    """Comparisons of the n rows with results in the headline metric; entry [i, j] is row i against row j.

    ``low``, ``high`` (n, n): 95 % interval of the gain of i over j in percent of the mean of j, paired by user; NaN
    where the score of j may be zero. ``p`` (n, n): p-value of no difference, not adjusted for the number of tests.
    """

    cells: tuple[Cell, ...]
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray

    @classmethod
    def of(cls, cells: tuple[Cell, ...], section: CrossedRows) -> Pairs:
        return cls(cells, *section.gains, section.p)

    def adjusted(self, reference: Cell) -> dict[Cell, float]:
        """Return the Holm-adjusted p-values of all other rows against the reference."""
        j = self.cells.index(reference)
        others = [i for i in range(len(self.cells)) if i != j]
        p = resampling.holm(self.p[others, j]) if others else np.empty(0)
        return {self.cells[i]: float(value) for i, value in zip(others, p, strict=True)}

"""Every row of a section against every other: what a reader who narrows the table or takes another reference needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import stats
from harness.metrics._all import HEADLINE
from harness.tables._sample import Sample, metrics
from harness.types import Cell


@dataclass(frozen=True)
class Pairs:
    """The n rows of a section that have results, compared in the headline metric; entry [i, j] is row i against j.

    ``low``, ``high`` (n, n): the 95 % interval of the gain of i over j in percent of the mean of j, paired by user;
    NaN where j scores nothing in some round. ``p`` (n, n): of no difference, not adjusted for the number of tests.
    """

    cells: tuple[Cell, ...]
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray

    def adjusted(self, reference: Cell) -> dict[Cell, float]:
        """Holm-adjusted p-values of the family of all rows but the reference against the reference."""
        j = self.cells.index(reference)
        others = [i for i in range(len(self.cells)) if i != j]
        p = stats.holm(self.p[others, j]) if others else np.empty(0)
        return {self.cells[i]: float(value) for i, value in zip(others, p, strict=True)}


def pairs(rows: list[Sample]) -> Pairs:
    """Compare rows that share their draws of users; at least one."""
    draws = np.stack([row.draws[:, metrics().index(HEADLINE)] for row in rows], 1)  # (R, n)
    low, high = np.full((2, len(rows), len(rows)), np.nan)
    ends = [(1 - stats.LEVEL) / 2, (1 + stats.LEVEL) / 2]
    for j in range(len(rows)):
        if (draws[:, j] > 0).all():
            low[:, j], high[:, j] = np.quantile(100 * (draws / draws[:, j : j + 1] - 1), ends, axis=0)
    users, noise = np.stack([row.users for row in rows], 1), np.stack([row.noise for row in rows], 1)
    return Pairs(tuple(row.cell for row in rows), low, high, stats.pairwise(users, noise))

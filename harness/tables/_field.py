"""The rows of one section against one another: ranks, marks, gains and groups."""

from __future__ import annotations

import numpy as np

from harness import stats
from harness.metrics._all import HEADLINE
from harness.tables._pairs import pairs
from harness.tables._sample import ALPHA, Gain, Sample, gain, is_reference, metrics
from harness.types import Cell


class Field:
    """The rows of one section that have results, compared with one another."""

    def __init__(self, samples: list[Sample]) -> None:
        self.ranked = sorted(samples, key=lambda s: (-s.headline, s.cell))
        self.place = {sample.cell: place for place, sample in enumerate(self.ranked)}
        self.reference = next((s for s in self.ranked if is_reference(s.cell)), None)
        self.pairs = pairs(self.ranked) if self.ranked else None
        self.groups = stats.letters(stats.holm_pairs(self.pairs.p) < ALPHA) if self.pairs else []
        self.p_best = self.pairs.adjusted(self.ranked[0].cell) if self.pairs else {}
        self.p_id = self.pairs.adjusted(self.reference.cell) if self.pairs and self.reference else {}
        self.first = _first(self.ranked)

    def get(self, cell: Cell) -> Sample | None:
        return self.ranked[self.place[cell]] if cell in self.place else None

    def rank(self, row: Sample) -> int:
        return 1 + sum(other.headline > row.headline for other in self.ranked)

    def stability(self, row: Sample) -> float:
        """Share of the resamples of users and seeds in which the row ranks first; rows with equal scores share it."""
        return float(self.first[self.place[row.cell]])

    def group(self, row: Sample) -> str:
        return self.groups[self.place[row.cell]]

    def vs_id(self, row: Sample) -> Gain | None:
        if self.reference is None or row is self.reference:
            return None
        return gain(row, self.reference, self.p_id[row.cell], len(self.p_id))

    def vs_rival(self, row: Sample) -> Gain | None:
        """The gain over the best row that is neither this one nor a baseline."""
        rival = next((s for s in self.ranked if s is not row and not s.cell.is_baseline), None)
        return gain(row, rival) if rival else None

    def marks(self, row: Sample) -> list[str]:
        place = {1: "best", 2: "second"}.get(self.rank(row))
        p_best = self.p_best.get(row.cell, 0.0)
        p_id = self.p_id.get(row.cell, 1.0)
        found = (place, p_best >= ALPHA and "tied", p_id < ALPHA and "differs", row.rising and "rising")
        return [mark for mark in found if mark]


def _first(rows: list[Sample]) -> np.ndarray:
    """How often each of n rows is first over their shared draws, (n,)."""
    if not rows:
        return np.empty(0)
    draws = np.stack([row.draws[:, metrics().index(HEADLINE)] for row in rows], 1)
    first = draws == draws.max(1, keepdims=True)
    return (first / first.sum(1, keepdims=True)).mean(0)

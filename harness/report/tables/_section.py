"""Compare the rows of one section: intervals, ranks, marks, gains and groups."""

from __future__ import annotations

import numpy as np

from harness.metrics._all import HEADLINE
from harness.report.tables._pairs import Pairs
from harness.report.tables._scores import REFERENCE, Gain, RowScores, compared, is_reference, metrics
from harness.stats import resampling
from harness.stats.crossed_effects import ALPHA
from harness.types import Cell


class SectionComparison:
    """Comparison of the rows of one section that have results. draws (R, U): resampled users."""

    def __init__(self, samples: list[RowScores], draws: np.ndarray) -> None:
        self.ranked = sorted(samples, key=lambda s: (-s.headline, s.cell))
        self.place = {sample.cell: place for place, sample in enumerate(self.ranked)}
        self.reference = next((s for s in self.ranked if is_reference(s.cell)), None)
        self.pairs: Pairs | None = None
        self.p_id: dict[Cell, float] = {}
        if self.ranked:
            self._compare(draws)

    def _compare(self, draws: np.ndarray) -> None:
        by_metric = {name: compared([row.scores[m] for row in self.ranked]) for m, name in enumerate(metrics())}
        self.headline = by_metric[HEADLINE]
        self._intervals = {name: rows.intervals() for name, rows in by_metric.items()}
        self.pairs = Pairs.of(tuple(row.cell for row in self.ranked), self.headline)
        self.p_pairs = resampling.holm_pairs(self.pairs.p)
        self.p_id = self.pairs.adjusted(self.reference.cell) if self.reference else {}
        self.differs = self._differences()
        self.groups = resampling.letters(self.differs)
        self.first = self.headline.firsts(draws, [row.stream for row in self.ranked])

    def _differences(self) -> np.ndarray:
        """Return which rows differ significantly (n, n), by the tests of all pairs or, from `id`, by those against it.

        The data choose the best row; `id` is chosen beforehand, so its tests are a family of their own.
        """
        differs = self.p_pairs < ALPHA
        if self.reference is not None:
            j = self.place[self.reference.cell]
            others = [self.place[cell] for cell, p in self.p_id.items() if p < ALPHA]
            differs[others, j] = differs[j, others] = True
        return differs

    def get(self, cell: Cell) -> RowScores | None:
        return self.ranked[self.place[cell]] if cell in self.place else None

    def intervals(self, row: RowScores) -> dict[str, resampling.Interval]:
        """Return the mean of every metric with its 95 % interval."""
        return {name: intervals[self.place[row.cell]] for name, intervals in self._intervals.items()}

    def rank(self, row: RowScores) -> int:
        return 1 + sum(other.headline > row.headline for other in self.ranked)

    def stability(self, row: RowScores) -> float | None:
        """Return the share of resamples of users and seeds, or of folds, in which the row ranks first; tied rows share
        it. None with too few folds."""
        share = float(self.first[self.place[row.cell]])
        return None if np.isnan(share) else share

    def group(self, row: RowScores) -> str:
        return self.groups[self.place[row.cell]]

    def vs_id(self, row: RowScores) -> Gain | None:
        if self.reference is None or row is self.reference:
            return None
        return self._gain(row, self.reference, self.p_id[row.cell], len(self.p_id))

    def vs_rival(self, row: RowScores) -> Gain | None:
        """Return the gain over the best other row that is not a baseline."""
        rival = next((s for s in self.ranked if s is not row and not s.cell.is_baseline), None)
        return self._gain(row, rival, None, 1) if rival else None

    def _gain(self, row: RowScores, other: RowScores, p: float | None, tests: int) -> Gain | None:
        """Return the relative gain in the headline metric; None where the score of the other row may be zero.

        tests: number of tests in the comparison's family.
        """
        assert self.pairs is not None
        i, j = self.place[row.cell], self.place[other.cell]
        low, high = float(self.pairs.low[i, j]), float(self.pairs.high[i, j])
        if not np.isfinite([low, high]).all():
            return None
        difference = self.headline.difference(i, j)
        return Gain(
            against=other.cell,
            percent=100 * (row.headline / other.headline - 1),
            low=low,
            high=high,
            p=p,
            difference=difference.mean,
            effect=resampling.effect(row.users - other.users),
            detectable=None if self.headline.too_few(tests) else 100 * difference.detectable(tests) / other.headline,
            preliminary=other.rising,
        )

    def unresolved(self) -> list[str]:
        """Return a sentence for each family of tests that cannot be significant with so few users."""
        n = len(self.ranked)
        families = {f"against '{REFERENCE}'": n - 1} if n > 1 and self.reference else {}
        families |= {"of all pairs": self._pairs} if n > 1 else {}
        return [f"Tests {name}: {why}" for name, tests in families.items() if (why := self.headline.too_few(tests))]

    def ties(self, best: RowScores, row: RowScores) -> bool:
        """Return whether `row` does not differ significantly from `best`."""
        return not self.differs[self.place[best.cell], self.place[row.cell]]

    def tied_with_best(self) -> tuple[RowScores, int, int, float] | None:
        """Return the best trained row, how many of how many other trained rows do not differ from it significantly, and
        the median difference that these tests detect with 80 % power, in percent of its score, NaN if they detect none;
        None without others."""
        trained = [row for row in self.ranked if not row.cell.is_baseline]
        if len(trained) < 2 or not trained[0].headline:
            return None
        best, others = trained[0], trained[1:]
        tied = sum(self.ties(best, row) for row in others)
        if self.headline.too_few(self._pairs):
            return best, tied, len(others), np.nan
        places = [(self.place[best.cell], self.place[row.cell]) for row in others]
        found = np.median([self.headline.difference(i, j).detectable(self._pairs) for i, j in places])
        return best, tied, len(others), 100 * float(found) / best.headline

    @property
    def _pairs(self) -> int:
        return len(self.ranked) * (len(self.ranked) - 1) // 2

    def users_for(self, percent: float) -> float:
        """Return about how many users, at the seeds of the rows, separate the best trained row from another one that
        differs by `percent` of its score, with 80 % power; the median over the others, infinite if more users do not
        suffice.

        Of the variance of a difference, the users' part shrinks with their number, that of the seeds does not.
        """
        trained = [row for row in self.ranked if not row.cell.is_baseline]
        best, others = trained[0], trained[1:]
        needed = []
        for row in others:
            difference = self.headline.difference(self.place[best.cell], self.place[row.cell])
            users = len(best.users)
            of_users = float(np.var(best.users - row.users, ddof=1)) / users
            of_seeds = max(difference.error**2 - of_users, 0.0)
            factor = difference.detectable(self._pairs) / difference.error if difference.error else 1.0
            room = (percent / 100 * best.headline / factor) ** 2 - of_seeds
            needed.append(users * of_users / room if room > 0 else np.inf)
        return float(np.median(needed))

    def marks(self, row: RowScores) -> list[str]:
        place = {1: "best", 2: "second"}.get(self.rank(row))
        best, p_id = self.ranked[0], self.p_id.get(row.cell, 1.0)
        tied = row is not best and self.ties(best, row)
        marks = (place, tied and "tied", p_id < ALPHA and "differs", row.rising and "rising")
        return [mark for mark in marks if mark]

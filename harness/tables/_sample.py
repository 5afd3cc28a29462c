"""The statistics of a row and of its differences from others, computed once a row and shared by its sections."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness import registry, stats
from harness.metrics._all import CUTOFFS, HEADLINE, per_user
from harness.tables._frames import Confirmed
from harness.types import Cell, digest

FIRST = ("ndcg", "hr", "mrr")  # how papers order them; a new metric follows


@dataclass(frozen=True)
class Gain:
    """How much better in the headline metric, in percent of the other row's mean, with its 95 % interval.

    ``p``: Holm-adjusted over the rows of the section, None where no test is made.
    """

    against: Cell
    percent: float
    low: float
    high: float
    p: float | None


@dataclass(frozen=True)
class Sample:
    """A row's scores (M metrics, R rounds, U users): means (M,), draws (R, M); of the headline metric users (U,),
    averaged over seeds, and noise (F,), how far the choice of seeds moves the mean."""

    cell: Cell
    means: np.ndarray
    draws: np.ndarray
    users: np.ndarray
    noise: np.ndarray

    @property
    def headline(self) -> float:
        return float(self.means[metrics().index(HEADLINE)])

    def intervals(self) -> dict[str, stats.Interval]:
        return {name: stats.percentile(self.means[m], self.draws[:, m]) for m, name in enumerate(metrics())}


def metrics() -> list[str]:
    """`NDCG@5` and the like: every metric of the folder at every cut-off, in the order that tables have them."""
    known = registry.names(registry.METRICS)
    ordered = [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]
    return [f"{name.upper()}@{k}" for name in ordered for k in CUTOFFS]


def sample(cell: Cell, confirmed: Confirmed, draws: np.ndarray) -> Sample:
    """Scores of a cell under the user draws (R, U) that all rows of its data set share."""
    scores = [_scores(confirmed, name) for name in metrics()]
    seeds, stream = confirmed.ranks.shape[1], int(digest(str(cell))[:8], 16)  # seeds of two rows are independent
    headline = scores[metrics().index(HEADLINE)]
    resampled = stats.bootstrap(np.stack(scores, 2), draws, stats.seed_draws(seeds, len(draws), stream))
    return Sample(
        cell=cell,
        means=np.array([values.mean() for values in scores]).round(stats.DIGITS),
        draws=resampled,
        users=headline.mean(1),
        noise=stats.seed_noise(headline.mean(0), seed=stream),
    )


def gain(row: Sample, reference: Sample, p: float | None = None) -> Gain | None:
    """Relative gain in the headline metric; None where the reference scores nothing in some round."""
    m = metrics().index(HEADLINE)
    if (reference.draws[:, m] <= 0).any():
        return None
    ratio = stats.percentile(
        100 * (row.headline / reference.headline - 1), 100 * (row.draws[:, m] / reference.draws[:, m] - 1)
    )
    return Gain(reference.cell, ratio.mean, ratio.low, ratio.high, p)


def _scores(confirmed: Confirmed, name: str) -> np.ndarray:
    """One metric (U, S) of the cell's ranks."""
    metric, _, k = name.rpartition("@")
    columns = [per_user(column, metric.lower(), int(k), confirmed.users) for column in confirmed.ranks.T]
    return np.stack(columns, 1)

"""The statistics of a row and of its differences from others, computed once a row and shared by its sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness import registry, stats
from harness.metrics._all import CUTOFFS, HEADLINE, per_user
from harness.tables._frames import Confirmed
from harness.types import NO_TEXT, Cell, digest

ALPHA = 0.05
REFERENCE = "id"  # the adapter without text that every other is measured against
FIRST = ("ndcg", "hr", "mrr")  # how papers order them; a new metric follows


@dataclass(frozen=True)
class Gain:
    """How much better in the headline metric, in percent of the other row's mean, with its 95 % interval.

    ``p``: Holm-adjusted over the rows of the section, None where no test is made. ``difference``: the same in the
    metric's own units. ``effect``: mean over standard deviation of the users' differences, None where they do not vary.
    ``detectable``: the smallest gain, in percent, that this comparison would find four times in five.
    ``preliminary``: the other row is still rising at its last epoch, so the gain would shrink with more epochs.
    """

    against: Cell
    percent: float
    low: float
    high: float
    p: float | None
    difference: float
    effect: float | None
    detectable: float
    preliminary: bool = False


@dataclass(frozen=True)
class Sample:
    """A row's scores (M metrics, R rounds, U users): means (M,), draws (R, M); of the headline metric users (U,),
    averaged over seeds, and noise (F,), how far the choice of seeds moves the mean. ``tied``: share of the test targets
    that share their score with another candidate. ``rising``: in most seeds the best epoch is the last one allowed."""

    cell: Cell
    means: np.ndarray
    draws: np.ndarray
    users: np.ndarray
    noise: np.ndarray
    tied: float = 0.0
    rising: bool = False

    @cached_property
    def headline(self) -> float:
        return float(self.means[metrics().index(HEADLINE)])

    def intervals(self) -> dict[str, stats.Interval]:
        return {name: stats.percentile(self.means[m], self.draws[:, m]) for m, name in enumerate(metrics())}


def metrics() -> list[str]:
    """`NDCG@5` and the like: every metric of the folder at every cut-off, in the order that tables have them."""
    known = registry.names(registry.METRICS)
    ordered = [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]
    return [f"{name.upper()}@{k}" for name in ordered for k in CUTOFFS]


def samples(runs: dict[Cell, Confirmed], draws: np.ndarray, rising: set[Cell]) -> dict[Cell, Sample]:
    """Scores of the cells of a data set under the user draws (R, U) that all of them share."""
    together = max(1, stats.CELLS // max(1, draws.shape[1] * len(metrics())))  # rows
    cells, found = list(runs), {}
    for start in range(0, len(cells), together):
        part = {cell: _scores(runs[cell]) for cell in cells[start : start + together]}
        streams = {cell: int(digest(str(cell))[:8], 16) for cell in part}  # seeds of two rows are independent
        rows = [(own, stats.seed_draws(own.shape[1], len(draws), streams[cell])) for cell, own in part.items()]
        for cell, drawn in zip(part, stats.bootstraps(rows, draws), strict=True):
            tied = float(np.mean([ranks.tied.mean() for ranks in runs[cell].ranks]))
            found[cell] = _sample(cell, part[cell], drawn, streams[cell], tied, cell in rising)
    return found


def _sample(cell: Cell, scores: np.ndarray, draws: np.ndarray, stream: int, tied: float, rising: bool) -> Sample:
    headline = scores[:, :, metrics().index(HEADLINE)]
    return Sample(
        cell=cell,
        means=scores.mean((0, 1)).round(stats.DIGITS),
        draws=draws.clip(min=0),  # few users and seeds far apart reach below
        users=headline.mean(1),
        noise=stats.seed_noise(headline.mean(0), seed=stream),
        tied=tied,
        rising=rising,
    )


def gain(row: Sample, reference: Sample, p: float | None = None, tests: int = 1) -> Gain | None:
    """Relative gain in the headline metric; None where the reference scores nothing in some round. `tests`: how many
    the comparison is one of."""
    m = metrics().index(HEADLINE)
    own, other = row.draws[:, m], reference.draws[:, m]
    if (other <= 0).any():
        return None
    ratio = stats.percentile(100 * (row.headline / reference.headline - 1), 100 * (own / other - 1))
    return Gain(
        against=reference.cell,
        percent=ratio.mean,
        low=ratio.low,
        high=ratio.high,
        p=p,
        difference=row.headline - reference.headline,
        effect=stats.effect(row.users - reference.users),
        detectable=100 * stats.detectable(own - other, tests) / reference.headline,
        preliminary=reference.rising,
    )


def is_reference(cell: Cell) -> bool:
    return cell.adapter == REFERENCE and cell.encoder == NO_TEXT and not cell.is_baseline


def _scores(confirmed: Confirmed) -> np.ndarray:
    """Every metric (U, S, M) of the cell's ranks."""
    return np.stack([_score(confirmed, name) for name in metrics()], 2)


def _score(confirmed: Confirmed, name: str) -> np.ndarray:
    """One metric (U, S)."""
    metric, _, k = name.rpartition("@")
    columns = [per_user(ranks, metric.lower(), int(k), confirmed.users) for ranks in confirmed.ranks]
    return np.stack(columns, 1)

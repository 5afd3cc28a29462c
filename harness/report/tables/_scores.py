"""The statistics of a row and of its differences from others, computed once a row and shared by its sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness import registry
from harness.metrics._all import CUTOFFS, HEADLINE, per_user
from harness.report.tables._frames import Confirmed
from harness.stats import resampling
from harness.stats.crossed_effects import ScoreSummary, summary
from harness.types import NO_TEXT, Cell, digest

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
class RowScores:
    """A row's scores (M metrics, R rounds, U users): a summary of each metric, and resampled means of the headline
    metric, draws (R,). ``stream`` seeds its resampled seeds. ``tied``: share of the test targets that share their score
    with another candidate. ``rising``: in most seeds the best epoch is the last one allowed."""

    cell: Cell
    scores: tuple[ScoreSummary, ...]
    draws: np.ndarray
    stream: int
    tied: float = 0.0
    rising: bool = False

    @cached_property
    def headline(self) -> float:
        return self.scores[metrics().index(HEADLINE)].mean

    @property
    def users(self) -> np.ndarray:
        """The headline metric of each user (U,), averaged over seeds."""
        return self.scores[metrics().index(HEADLINE)].users


def metrics() -> list[str]:
    """`NDCG@5` and the like: every metric of the folder at every cut-off, in the order that tables have them."""
    known = registry.names(registry.METRICS)
    ordered = [name for name in FIRST if name in known] + [name for name in known if name not in FIRST]
    return [f"{name.upper()}@{k}" for name in ordered for k in CUTOFFS]


def samples(runs: dict[Cell, Confirmed], draws: np.ndarray, rising: set[Cell]) -> dict[Cell, RowScores]:
    """Scores of the cells of a data set under the user draws (R, U) that all of them share."""
    streams = {cell: int(digest(str(cell))[:8], 16) for cell in runs}  # seeds of two rows are independent
    headline = {cell: _score(own, HEADLINE) for cell, own in runs.items()}
    seeds = {cell: resampling.seed_draws(own.shape[1], len(draws), streams[cell]) for cell, own in headline.items()}
    drawn = resampling.bootstraps([(headline[cell], seeds[cell]) for cell in runs], draws) if runs else []
    return {
        cell: RowScores(
            cell=cell,
            scores=tuple(summary(_score(own, name), deterministic=cell.is_baseline) for name in metrics()),
            draws=resampled.clip(min=0),  # few users and seeds far apart reach below
            stream=streams[cell],
            tied=float(np.mean([ranks.tied.mean() for ranks in own.ranks])),
            rising=cell in rising,
        )
        for (cell, own), resampled in zip(runs.items(), drawn, strict=True)
    }


def is_reference(cell: Cell) -> bool:
    return cell.adapter == REFERENCE and cell.encoder == NO_TEXT and not cell.is_baseline


def _score(confirmed: Confirmed, name: str) -> np.ndarray:
    """One metric (U, S)."""
    metric, _, k = name.rpartition("@")
    columns = [per_user(ranks, metric.lower(), int(k), confirmed.users) for ranks in confirmed.ranks]
    return np.stack(columns, 1)

"""Statistics of a row and of its differences from others, computed once per row and shared by its sections."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness import registry
from harness.metrics._all import CUTOFFS, HEADLINE, per_user_of_runs
from harness.report.tables._frames import Confirmed
from harness.stats import fold_effects, resampling
from harness.stats.crossed_effects import CrossedRows, ScoreSummary, summaries
from harness.stats.resampling import check
from harness.types import NO_TEXT, Cell, digest

REFERENCE = "id"  # the adapter without text, reference of all gains
FIRST = ("ndcg", "hr", "mrr")  # order in papers; other metrics follow


@dataclass(frozen=True)
class Gain:
    """Gain in the headline metric over another row, in percent of that row's mean, with its 95 % interval.

    ``p``: Holm-adjusted over the rows of the section, None if not tested. ``difference``: the gain in units of the
    metric. ``effect``: mean over standard deviation of the users' differences, None if they do not vary.
    ``detectable``: smallest gain, in percent, that this comparison detects with 80 % power, None if too few users for
    any. ``preliminary``: the other row is still improving at its last epoch, so the gain would shrink with more epochs.
    """

    against: Cell
    percent: float
    low: float
    high: float
    p: float | None
    difference: float
    effect: float | None
    detectable: float | None
    preliminary: bool = False


@dataclass(frozen=True)
class RowScores:
    """A row's scores (M metrics, R rounds, U users): a summary of each metric, and resampled means of the headline
    metric, draws (R,).

    ``stream``: random seed for resampling its training seeds. ``tied``: share of test targets tied with another
    candidate. ``rising``: in most seeds the best epoch is the last allowed one.
    """

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
        """Headline metric of each user (U,), averaged over seeds."""
        return self.scores[metrics().index(HEADLINE)].users


def metrics() -> list[str]:
    """Return `NDCG@5` etc.: every registered metric at every cut-off, in the order of the tables."""
    names = registry.names(registry.METRICS)
    ordered = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    return [f"{name.upper()}@{k}" for name in ordered for k in CUTOFFS]


def samples(runs: dict[Cell, Confirmed], draws: np.ndarray, rising: set[Cell]) -> dict[Cell, RowScores]:
    """Return the scores of the cells of a data set, with shared draws (R, U) of users or, with folds, of folds."""
    streams = {cell: int(digest(str(cell))[:8], 16) for cell in runs}  # seeds of two rows are independent
    headline = scores_of(runs, HEADLINE)
    seeds = {cell: _seed_draws(runs[cell], x, len(draws), streams[cell]) for cell, x in headline.items()}
    drawn = resampling.bootstraps([(headline[cell], seeds[cell]) for cell in runs], draws) if runs else []
    summarised = [_summaries(runs, scores_of(runs, name)) for name in metrics()]
    return {
        cell: RowScores(
            cell=cell,
            scores=tuple(of_metric[cell] for of_metric in summarised),
            draws=resampled.clip(min=0),  # few users or a large seed variance can reach below 0
            stream=streams[cell],
            tied=float(np.mean([ranks.tied.mean() for ranks in confirmed.ranks])),
            rising=cell in rising,
        )
        for (cell, confirmed), resampled in zip(runs.items(), drawn, strict=True)
    }


def scores_of(runs: dict[Cell, Confirmed], name: str, by_query: bool = False) -> dict[Cell, np.ndarray]:
    """Return one metric of each cell of a data set, (U, S), or of each query, (Q, S)."""
    if not runs:
        return {}
    metric, _, k = name.rpartition("@")
    users = None if by_query else next(iter(runs.values())).users
    together = [ranks for confirmed in runs.values() for ranks in confirmed.ranks]
    scores = per_user_of_runs(together, metric.lower(), int(k), users)
    ends = np.cumsum([len(confirmed.ranks) for confirmed in runs.values()])
    return dict(zip(runs, np.split(scores, ends[:-1], 1), strict=True))


def _seed_draws(confirmed: Confirmed, scores: np.ndarray, rounds: int, stream: int) -> np.ndarray:
    """Return weights of the seeds (R, S). With folds they are equal: the folds' variance includes that of seeds."""
    count = scores.shape[1]
    return np.full((rounds, count), 1 / count) if confirmed.folds else resampling.seed_draws(count, rounds, stream)


def _summaries(runs: dict[Cell, Confirmed], scores: dict[Cell, np.ndarray]) -> dict[Cell, ScoreSummary]:
    """Summarise the scores (U, S) of each cell; cells with equally many seeds are summarised together."""
    found: dict[Cell, ScoreSummary] = {}
    alike: dict[tuple[int, bool], list[Cell]] = {}
    for cell, confirmed in runs.items():
        if confirmed.folds is not None:
            found[cell] = fold_effects.summary(np.ascontiguousarray(scores[cell]), confirmed.folds)
        else:
            alike.setdefault((scores[cell].shape[1], cell.is_baseline), []).append(cell)
    for (_, deterministic), cells in alike.items():
        for part in resampling.chunks(len(cells), scores[cells[0]].size):
            together = np.stack([check(scores[cell]) for cell in cells[part]], 1)
            found |= zip(cells[part], summaries(together, deterministic), strict=True)
    return found


def compared(rows: list[ScoreSummary]) -> CrossedRows:
    """Return the statistics of the rows of a section in one metric."""
    of_folds = [row for row in rows if isinstance(row, fold_effects.FoldSummary)]
    return fold_effects.FoldRows(of_folds) if of_folds else CrossedRows(rows)


def is_reference(cell: Cell) -> bool:
    return cell.adapter == REFERENCE and cell.encoder == NO_TEXT and not cell.is_baseline

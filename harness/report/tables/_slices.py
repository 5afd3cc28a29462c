"""Scores on parts of the test: cold and warm targets, popular and rare ones, short and long histories, ties, texts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from harness.metrics._all import HEADLINE, per_user
from harness.report.tables._frames import Confirmed
from harness.report.tables._scores import is_reference
from harness.stats import resampling
from harness.types import Cell, HarnessError, digest

ROUNDS = 500
HISTORY = (5, 10, 20, 50)  # events: the upper ends of all bins but the last
WORDS = (5, 10, 20)


def _bins(ends: tuple[int, ...], unit: str) -> list[str]:
    """
    >>> _bins((5, 10), "events")
    ['up to 5 events', '6 to 10 events', 'over 10 events']
    """
    between = [f"{low + 1} to {high} {unit}" for low, high in pairwise(ends)]
    return [f"up to {ends[0]} {unit}", *between, f"over {ends[-1]} {unit}"]


ORDERS = {  # the slices of each dimension
    "target": ["warm", "cold"],
    "popularity": ["head", "mid", "tail"],
    "history": _bins(HISTORY, "events"),
    "order": ["later", "tied"],
    "text": ["no text", *_bins(WORDS, "words")],
}


@dataclass(frozen=True)
class SliceScore:
    """A row's test NDCG@10 on a slice, and its gain over `id` there in percent (paired by user, no test is made)."""

    cell: Cell
    score: resampling.Interval
    vs_id: resampling.Interval | None


@dataclass(frozen=True)
class Slice:
    """A part of a data set's test. ``dimension``: what it is cut by; ``queries`` and ``users``: how many it holds."""

    dimension: str
    name: str
    queries: int
    users: int
    scores: tuple[SliceScore, ...]


@dataclass(frozen=True)
class SliceDraws:
    """A slice of a data set with the resampled means float64 (R,) of each of its cells that has results."""

    dimension: str
    name: str
    queries: int
    users: int
    means: dict[Cell, float]
    draws: dict[Cell, np.ndarray]

    def of(self, cells: list[Cell]) -> Slice:
        """The slice as the rows of one section see it."""
        known = [cell for cell in cells if cell in self.means]
        reference = next((cell for cell in known if is_reference(cell)), None)
        scores = tuple(SliceScore(cell, self._score(cell), self._gain(cell, reference)) for cell in known)
        return Slice(self.dimension, self.name, self.queries, self.users, scores)

    def _score(self, cell: Cell) -> resampling.Interval:
        return resampling.percentile(self.means[cell], self.draws[cell])

    def _gain(self, cell: Cell, reference: Cell | None) -> resampling.Interval | None:
        if reference is None or cell == reference or (self.draws[reference] <= 0).any():
            return None
        ratio = self.draws[cell] / self.draws[reference]
        return resampling.percentile(100 * (self.means[cell] / self.means[reference] - 1), 100 * (ratio - 1))


def parts(dataset: str, queries: pl.DataFrame, runs: dict[Cell, Confirmed]) -> list[SliceDraws]:
    """The slices of a data set that hold any query. queries: its part of `Results.queries`, in the order of the ranks.

    Raises HarnessError if they are of other users than the ranks.
    """
    if not runs or not queries.height:
        return []
    users = next(iter(runs.values())).users
    if not np.array_equal(queries["user"].to_numpy(), users):
        raise HarnessError(f"{dataset}: what is known of its test targets is of other users than its ranks.")
    scores = {cell: _scores(own) for cell, own in runs.items()}
    found = []
    for dimension, values in labels(queries).items():
        for name in ORDERS[dimension]:
            at = (values == name).fill_null(False).to_numpy()
            if at.any():
                found.append(_part(dimension, name, at, users, scores))
    return found


def labels(queries: pl.DataFrame) -> dict[str, pl.Series]:
    """The slice of each query along every dimension of `ORDERS`, null where there is none."""
    cold, tied, words = pl.col("cold"), pl.col("tied"), pl.col("words")
    text = _binned("words", WORDS, "words")
    named = {
        "target": pl.when(cold).then(pl.lit("cold")).otherwise(pl.lit("warm")),
        "popularity": pl.when(~cold).then(pl.col("band")),
        "history": _binned("history", HISTORY, "events"),
        "order": pl.when(tied).then(pl.lit("tied")).when(~tied).then(pl.lit("later")),
        "text": pl.when(words == 0).then(pl.lit("no text")).otherwise(text),
    }
    return queries.select(**named).to_dict()


def _binned(column: str, ends: tuple[int, ...], unit: str) -> pl.Expr:
    first, *others = _bins(ends, unit)
    found: pl.Expr = pl.lit(first)
    for end, name in zip(ends, others, strict=True):
        found = pl.when(pl.col(column) > end).then(pl.lit(name)).otherwise(found)
    return found


def _scores(own: Confirmed) -> np.ndarray:
    """The headline metric of each query and seed, (Q, S)."""
    metric, _, k = HEADLINE.rpartition("@")
    return np.stack([per_user(ranks, metric.lower(), int(k)) for ranks in own.ranks], 1)


def _part(dimension: str, name: str, at: np.ndarray, users: np.ndarray, scores: dict[Cell, np.ndarray]) -> SliceDraws:
    chosen, place = np.unique(users[at], return_inverse=True)
    counts = np.bincount(place)
    means, draws = {}, {}
    values = {cell: _by_user(own[at], place, counts) for cell, own in scores.items()}
    resampled = resampling.resampled(
        resampling.user_draws(len(chosen), ROUNDS), np.stack([v.mean(1) for v in values.values()], 1)
    )
    for column, (cell, own) in enumerate(values.items()):
        by_seed = own.mean(0)
        seeds = resampling.seed_draws(len(by_seed), ROUNDS, int(digest(f"{cell} {dimension} {name}")[:8], 16))
        means[cell] = round(float(own.mean()), resampling.DIGITS)
        drawn = resampled[:, column] + seeds @ (by_seed - by_seed.mean())
        draws[cell] = np.round(drawn, resampling.DIGITS).clip(0, 1)  # few targets and seeds far apart reach beyond
    return SliceDraws(dimension, name, int(at.sum()), len(chosen), means, draws)


def _by_user(values: np.ndarray, place: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (U, S) over the queries of each user, of values (Q, S)."""
    return np.stack([np.bincount(place, column) for column in values.T], 1) / counts[:, None]

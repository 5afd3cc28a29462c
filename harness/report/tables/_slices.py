"""Scores on parts of the test: cold and warm targets, popular and rare ones, short and long histories, ties, texts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl

from harness.metrics._all import HEADLINE
from harness.report.tables._frames import Confirmed
from harness.report.tables._scores import is_reference, scores_of
from harness.stats import resampling
from harness.stats.folds import FOLD
from harness.types import Cell, HarnessError, digest

ROUNDS = 500  # of the bootstrap
HISTORY = (5, 10, 20, 50)  # events: upper ends of the bins; the last bin is open
WORDS = (5, 10, 20)  # likewise


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
    """A row's test NDCG@10 on a slice, and its gain over `id` there in percent (paired by user, not tested)."""

    cell: Cell
    score: resampling.Interval
    vs_id: resampling.Interval | None


@dataclass(frozen=True)
class Slice:
    """A part of a data set's test. ``dimension``: property that defines it; ``queries``, ``users``: their numbers."""

    dimension: str
    name: str
    queries: int
    users: int
    scores: tuple[SliceScore, ...]


@dataclass(frozen=True)
class SliceDraws:
    """A slice of a data set, with resampled means float64 (R,) of each cell with results."""

    dimension: str
    name: str
    queries: int
    users: int
    means: dict[Cell, float]
    draws: dict[Cell, np.ndarray]

    def of(self, cells: list[Cell]) -> Slice:
        """Return the slice for the rows of one section."""
        scored = [cell for cell in cells if cell in self.means]
        reference = next((cell for cell in scored if is_reference(cell)), None)
        scores = tuple(SliceScore(cell, self._score(cell), self._gain(cell, reference)) for cell in scored)
        return Slice(self.dimension, self.name, self.queries, self.users, scores)

    def _score(self, cell: Cell) -> resampling.Interval:
        return resampling.percentile(self.means[cell], self.draws[cell])

    def _gain(self, cell: Cell, reference: Cell | None) -> resampling.Interval | None:
        if reference is None or cell == reference or (self.draws[reference] <= 0).any():
            return None
        ratio = self.draws[cell] / self.draws[reference]
        return resampling.percentile(100 * (self.means[cell] / self.means[reference] - 1), 100 * (ratio - 1))


def parts(dataset: str, queries: pl.DataFrame, runs: dict[Cell, Confirmed]) -> list[SliceDraws]:
    """Return the non-empty slices of a data set. queries: its rows of `Results.queries`, in the order of the ranks.

    Raises HarnessError if queries and ranks have different users.
    """
    if not runs or not queries.height:
        return []
    users = next(iter(runs.values())).users
    if not np.array_equal(queries["user"].to_numpy(), users):
        raise HarnessError(f"{dataset}: the recorded test targets and the test ranks have different users.")
    scores = scores_of(runs, HEADLINE, by_query=True)
    slices = []
    for dimension, values in labels(queries).items():
        for name in ORDERS[dimension]:
            at = (values == name).fill_null(False).to_numpy()
            if at.any():
                slices.append(_part(dimension, name, at, users, scores))
    return slices


def labels(queries: pl.DataFrame) -> dict[str, pl.Series]:
    """Return the slice of each query along every dimension of `ORDERS`, null if unknown."""
    cold, tied, words = pl.col("cold"), pl.col("tied"), pl.col("words")
    text = _binned("words", WORDS, "words")
    expressions = {
        "target": pl.when(cold).then(pl.lit("cold")).otherwise(pl.lit("warm")),
        "popularity": pl.when(~cold).then(pl.col("band")),
        "history": _binned("history", HISTORY, "events"),
        "order": pl.when(tied).then(pl.lit("tied")).when(~tied).then(pl.lit("later")),
        "text": pl.when(words == 0).then(pl.lit("no text")).otherwise(text),
    }
    return queries.select(**expressions).to_dict()


def _binned(column: str, ends: tuple[int, ...], unit: str) -> pl.Expr:
    first, *others = _bins(ends, unit)
    label: pl.Expr = pl.lit(first)
    for end, name in zip(ends, others, strict=True):
        label = pl.when(pl.col(column) > end).then(pl.lit(name)).otherwise(label)
    return label


def _part(dimension: str, name: str, at: np.ndarray, users: np.ndarray, scores: dict[Cell, np.ndarray]) -> SliceDraws:
    chosen, place = np.unique(users[at], return_inverse=True)
    counts = np.bincount(place)
    means, draws = {}, {}
    values = {cell: _by_user(all_scores[at], place, counts) for cell, all_scores in scores.items()}
    people, person = np.unique(chosen % FOLD, return_inverse=True)
    resampled = _resampled(person, len(people), np.stack([v.mean(1) for v in values.values()], 1))
    for column, (cell, by_user) in enumerate(values.items()):
        by_seed = by_user.mean(0)
        seeds = resampling.seed_draws(len(by_seed), ROUNDS, int(digest(f"{cell} {dimension} {name}")[:8], 16))
        means[cell] = round(float(by_user.mean()), resampling.DIGITS)
        drawn = resampled[:, column] + seeds @ (by_seed - by_seed.mean())
        draws[cell] = np.round(drawn, resampling.DIGITS).clip(
            0, 1
        )  # few targets or a large seed variance can exceed the range
    return SliceDraws(dimension, name, int(at.sum()), len(people), means, draws)


def _resampled(person: np.ndarray, people: int, means: np.ndarray) -> np.ndarray:
    """Resampled means (R, n) of means (K, n); with folds, the K of a user's folds are drawn together."""
    draws = resampling.user_draws(people, ROUNDS)
    if people == len(person):
        return resampling.resampled(draws, means)
    weights = draws[:, person]
    return resampling.resampled(weights, means) * len(person) / np.maximum(weights.sum(1, keepdims=True), 1)


def _by_user(values: np.ndarray, place: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the means (U, S) of values (Q, S) over the queries of each user."""
    if len(counts) == len(values):  # users are in ascending order
        return values
    return np.stack([np.bincount(place, column) for column in values.T], 1) / counts[:, None]

"""Comparisons over data sets, on common cells only: every compared method has a result on every counted data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from harness.report.tables._scores import RowScores, is_reference
from harness.stats import resampling
from harness.types import Cell

ENOUGH = 10  # data sets; with fewer, a rating or a critical difference is meaningless
ELO_ROUNDS = 200
CHOICES = 1000  # candidate sets of common methods kept, the largest
Method = tuple[str, str]  # adapter, encoder


@dataclass(frozen=True)
class Standing:
    """A method's results over all counted data sets.

    Mean rank (1 is best, ties share), share of the other methods that it beats (a tie counts half), mean gain over `id`
    in percent, Elo rating (mean 1000). ``group``: letters; methods that share one are within the critical difference.
    Elo and groups need `ENOUGH` data sets.
    """

    adapter: str
    encoder: str
    baseline: bool
    rank: resampling.Interval
    wins: resampling.Interval
    gain: resampling.Interval | None
    elo: resampling.Interval | None
    group: str


@dataclass(frozen=True)
class Across:
    """The methods of one backbone, and the baselines, over data sets, best mean rank first.

    ``left_out``: descriptions of data sets and methods without results in common. ``critical_difference``: of mean
    ranks (Nemenyi), None below `ENOUGH` data sets. ``folds``: whether scores are means over test windows.
    """

    backbone: str
    datasets: tuple[str, ...]
    standings: tuple[Standing, ...]
    left_out: tuple[str, ...]
    critical_difference: float | None
    folds: bool = False

    @property
    def too_few(self) -> str:
        """Why there are no Elo ratings and critical difference; empty if there are."""
        if len(self.datasets) >= ENOUGH:
            return ""
        return (
            f"No Elo rating and no critical difference: they need {ENOUGH} data sets, not {len(self.datasets)}. "
            "With so few, tests over data sets have no power and ratings diverge."
        )


@dataclass(frozen=True)
class Drawn:
    """What a comparison over data sets reads of a row: its score and the resampled means (R,)."""

    cell: Cell
    headline: float
    draws: np.ndarray

    @classmethod
    def of(cls, row: RowScores) -> Drawn:
        return cls(row.cell, row.headline, row.draws)


def across(backbone: str, samples: dict[str, dict[Method, Drawn]], folds: bool = False) -> Across | None:
    """Compare methods over data sets. samples: scores by data set and method; folds: they are over test windows.

    Returns None if no two data sets have two methods in common.
    """
    datasets, methods = common({name: set(scores) for name, scores in samples.items()})
    if len(datasets) < 2 or len(methods) < 2:
        return None
    means = np.array([[samples[name][method].headline for method in methods] for name in datasets])
    draws = np.stack([np.stack([samples[name][x].draws for x in methods], 1) for name in datasets], 1)
    weights = resampling.seed_draws(len(datasets), len(draws))  # D - 1 of D data sets per round, as for seeds
    scored = _Scored(means, draws, weights)
    cells = [samples[datasets[0]][method].cell for method in methods]
    reference = next((place for place, cell in enumerate(cells) if is_reference(cell)), None)
    enough = len(datasets) >= ENOUGH
    difference = critical_difference(len(methods), len(datasets)) if enough else None
    ranks, wins, gains = scored.ranks(), scored.wins(), scored.gains(reference)
    elo = scored.elo() if enough else [None] * len(methods)
    order = sorted(range(len(methods)), key=lambda i: (ranks[i].mean, cells[i]))
    groups = _groups([ranks[i].mean for i in order], difference)
    standings = [
        Standing(*methods[i], cells[i].is_baseline, ranks[i], wins[i], gains[i], elo[i], group)
        for i, group in zip(order, groups, strict=True)
    ]
    left_out = tuple(_left_out(samples, datasets, methods))
    return Across(backbone, tuple(datasets), tuple(standings), left_out, difference, folds)


def common(available: dict[str, set[Method]]) -> tuple[list[str], list[Method]]:
    """Choose data sets and methods such that every method has a result on every data set.

    Prefers the most cells, then the most data sets. Empty if no two data sets have two methods in common.
    """
    shared: set[frozenset[Method]] = set()
    for present in map(frozenset, available.values()):
        shared |= {present, *(present & other for other in shared)}
        shared = set(sorted((one for one in shared if len(one) >= 2), key=len)[-CHOICES:])
    best: tuple[list[str], list[Method]] = ([], [])
    for methods in sorted(map(sorted, shared)):
        datasets = sorted(name for name, present in available.items() if present.issuperset(methods))
        if len(datasets) >= 2 and _size(datasets, methods) > _size(*best):
            best = (datasets, methods)
    return best


def _size(datasets: list[str], methods: list[Method]) -> tuple[int, int]:
    return len(datasets) * len(methods), len(datasets)


def critical_difference(methods: int, datasets: int) -> float:
    """Return the critical difference of mean ranks at 5 % (Nemenyi).

    Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 2006, section 3.2.2.
    """
    return studentized_range(methods) / sqrt(2) * sqrt(methods * (methods + 1) / (6 * datasets))


def studentized_range(k: int, level: float = resampling.LEVEL) -> float:
    """Return a quantile of the range of k >= 2 standard normal draws, by bisection of its distribution function."""
    x = np.linspace(-8, 8, 2001)
    density = np.exp(-(x**2) / 2) / sqrt(2 * np.pi)
    below = np.array([erf(v / sqrt(2)) for v in x]) / 2 + 0.5
    low, high = 0.0, 20.0
    for _ in range(60):
        q = (low + high) / 2
        inside = below - np.interp(x - q, x, below, left=0.0)
        reached = np.trapezoid(k * density * inside ** (k - 1), x)
        low, high = (q, high) if reached < level else (low, q)
    return (low + high) / 2


@dataclass(frozen=True)
class _Scored:
    """Means (D, n) of n methods on D data sets, their draws (R, D, n), and weights (R, D) of the data sets."""

    means: np.ndarray
    draws: np.ndarray
    weights: np.ndarray

    def ranks(self) -> list[resampling.Interval]:
        return self._intervals(_ranks(self.means), _ranks(self.draws))

    def wins(self) -> list[resampling.Interval]:
        n = self.means.shape[-1]
        return self._intervals(*((n - _ranks(x)) / (n - 1) for x in (self.means, self.draws)))

    def gains(self, reference: int | None) -> list[resampling.Interval | None]:
        if reference is None or (self.draws[..., reference] <= 0).any():
            return [None] * self.means.shape[-1]
        percent = (100 * (x / x[..., [reference]] - 1) for x in (self.means, self.draws))
        gains: list[resampling.Interval | None] = list(self._intervals(*percent))
        gains[reference] = None
        return gains

    def elo(self) -> list[resampling.Interval]:
        """Return maximum-likelihood ratings of the observed wins.

        A tie is added between every two methods, so that ratings stay finite where a method always wins.
        """
        rounds = slice(ELO_ROUNDS)
        weights = np.concatenate([np.full((1, len(self.means)), 1 / len(self.means)), self.weights[rounds]])
        beaten = np.concatenate([_beats(self.means)[None], _beats(self.draws[rounds])])
        ratings = _bradley_terry(len(self.means) * np.einsum("rd,rdij->rij", weights, beaten))
        return [resampling.percentile(rating[0], rating[1:]) for rating in ratings.T]

    def _intervals(self, observed: np.ndarray, drawn: np.ndarray) -> list[resampling.Interval]:
        means = np.einsum("rd,rdn->rn", self.weights, drawn)
        return [resampling.percentile(mean, draws) for mean, draws in zip(observed.mean(0), means.T, strict=True)]


def _beats(scores: np.ndarray) -> np.ndarray:
    """Return 1 where the i-th of scores (..., n) is above the j-th, 1/2 where they are equal: (..., n, n)."""
    difference = scores[..., :, None] - scores[..., None, :]
    return (np.sign(difference) + 1) / 2


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Return ranks of scores (..., n) along the last axis, 1 for the highest, ties at mid-rank."""
    return scores.shape[-1] + 0.5 - _beats(scores).sum(-1)


def _bradley_terry(wins: np.ndarray, steps: int = 300) -> np.ndarray:
    """Return Elo ratings (R, n) of wins (R, n, n), mean 1000, by the method of Hunter (Annals of Statistics 2004)."""
    n = wins.shape[-1]
    wins = (wins + 0.5) * (1 - np.eye(n))
    games = wins + wins.transpose(0, 2, 1)
    strength = np.ones(wins.shape[:2])
    for _ in range(steps):
        strength = wins.sum(2) / (games / (strength[:, :, None] + strength[:, None, :])).sum(2)
        strength /= np.exp(np.log(strength).mean(1, keepdims=True))
    return 1000 + 400 * np.log10(strength)


def _groups(ranks: list[float], difference: float | None) -> list[str]:
    if difference is None:
        return [""] * len(ranks)
    at = np.array(ranks)
    return resampling.letters(np.abs(at[:, None] - at) > difference)


def _left_out(samples: dict[str, dict[Method, Drawn]], datasets: list[str], methods: list[Method]) -> Iterable[str]:
    for name in sorted(set(samples) - set(datasets)):
        yield f"data set {name} ({len(samples[name])} rows with results)"
    for method in sorted(set().union(*samples.values()) - set(methods)):
        lacking = [name for name in datasets if method not in samples[name]]
        yield (f"{label(method)} (no result on {', '.join(lacking)})" if lacking else f"{label(method)} (not compared)")


def label(method: Method) -> str:
    adapter, encoder = method
    return adapter if encoder == "none" else f"{adapter} · {encoder}"


def method_of(cell: Cell) -> Method:
    return cell.adapter, cell.encoder

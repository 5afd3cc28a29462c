"""How far each hyper-parameter, taken alone, explains a search's validation scores.

Trials are cut by one parameter into at most `BINS` groups of equal size (values that are no numbers: one group each).
Epsilon squared, (SSB - (k-1) MSW) / SST, is the share of the scores' variance that the groups explain, less what as
many groups explain by chance (Kelley, "An unbiased correlation ratio measure", PNAS 1935). Beside it stands the 95 %
quantile of the same number with the scores shuffled: a share below it says nothing. Interactions are not seen, and a
sampler that closes in on good regions leaves few trials elsewhere: it is a hint where the search was sensitive, no
test. For numbers, Spearman's rank correlation says the direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEAST = 6  # trials below which nothing is said
BINS = 3
SHUFFLES = 200


@dataclass(frozen=True)
class Importance:
    """``share`` and ``chance`` from 0 to 1; ``direction``: rank correlation from -1 to 1, None for words."""

    name: str
    share: float
    chance: float
    direction: float | None


def importance(params: Sequence[dict[str, Any]], scores: Sequence[float]) -> list[Importance]:
    """Of every parameter that varies, the largest share first; empty below `LEAST` trials or if all scores agree.

    params: one dict a trial; a parameter that a trial lacks is a value of its own.
    """
    y = np.asarray(scores, float)
    if len(y) < LEAST or np.ptp(y) == 0:
        return []
    rng = np.random.default_rng(0)
    shuffled = np.stack([y, *(rng.permutation(y) for _ in range(SHUFFLES))], 1)
    found = []
    for name in sorted({name for own in params for name in own}):
        column = [own.get(name) for own in params]
        groups = _groups(column)
        if (k := groups.max() + 1) < 2 or k >= len(y):
            continue
        shares = _explained(groups, shuffled)
        direction = _spearman(np.array(column, float), y) if _numeric(column) else None
        found.append(Importance(name, float(shares[0]), float(np.quantile(shares[1:], 0.95)), direction))
    return sorted(found, key=lambda item: (-item.share, item.name))


def _numeric(column: list[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in column)


def _groups(column: list[Any]) -> np.ndarray:
    """A group number a trial: bins of about equal size for numbers of many values, else one a value."""
    texts = [str(value) for value in column]
    if not _numeric(column) or len(set(column)) <= BINS:
        return np.unique(texts, return_inverse=True)[1]
    x = np.array(column, float)
    edges = np.quantile(x, np.arange(1, BINS) / BINS)
    return np.unique(np.searchsorted(edges, x, side="left"), return_inverse=True)[1]


def _explained(groups: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Epsilon squared of each column of y (n, C), not below 0, of which the first is the one asked for."""
    n, k = len(y), groups.max() + 1
    member = groups[:, None] == np.arange(k)  # (n, k)
    means = (member.T @ y) / member.sum(0)[:, None]  # (k, C)
    total = ((y - y.mean(0)) ** 2).sum(0)
    within = ((y - means[groups]) ** 2).sum(0)
    return np.clip((total - within - (k - 1) * within / (n - k)) / total, 0, 1)


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    a, b = _ranks(x), _ranks(y)
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) and np.ptp(b) else None


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks with the mean rank for ties."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]

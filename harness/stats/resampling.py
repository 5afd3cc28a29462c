"""Bootstrap of means and best trials, Holm's correction, effect sizes, compact letter displays.

Letters: U test users, S training seeds, P pairs compared, R rounds. Scores are one value per user and seed, (U, S).
Intervals and tests of a table's rows are in closed form (`crossed_effects`). The bootstrap serves subsets of the test
users, comparisons over data sets and searches at smaller budgets. It resamples users, jointly for all seeds, and seeds,
and adds the shifts of the mean. (Crossing the two in the weights, the pigeonhole bootstrap of Owen, Annals of Applied
Statistics 2007, counts the noise of one user under one seed three times; this counts it twice.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from harness.types import HarnessError

ROUNDS = 1000  # bootstrap rounds
LEVEL = 0.95
DIGITS = 12
CELLS = 2**23  # entries of the largest temporary array


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def user_draws(users: int, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """Number of draws of each user in each round, uint8 (rounds, users): rows are multinomial and sum to `users`.

    The draws depend only on the arguments, so table rows with the same arguments are resampled in pairs.
    """
    rng = np.random.default_rng(seed)
    counts = np.empty((rounds, users), np.uint8)
    for part in chunks(rounds, users):
        block = counts[part]
        picks = rng.integers(users, size=block.shape) + users * np.arange(len(block))[:, None]
        block[:] = np.bincount(picks.ravel(), minlength=block.size).reshape(block.shape)
    return counts


def seed_draws(seeds: int, rounds: int = ROUNDS, seed: int = 0) -> np.ndarray:
    """Weight of each training seed in each round, float64 (rounds, seeds); rows sum to 1.

    S - 1 of S seeds are drawn with replacement, so that the variance of their mean is unbiased; drawing S would make it
    too small by the factor (S - 1) / S, by a fifth at five seeds (Rao and Wu, "Resampling inference with complex survey
    data", JASA 1988, section 2). A single seed has weight 1: its spread was not observed.
    """
    if seeds == 1:
        return np.ones((rounds, 1))
    shares = np.full(seeds, 1 / seeds)
    return np.random.default_rng(seed).multinomial(seeds - 1, shares, size=rounds) / (seeds - 1)


def bootstrap(values: np.ndarray, users: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """Resampled means, float64 (R, ...), of values (U, S, ...) under `user_draws` (R, U) and `seed_draws` (R, S).

    Rounded to `DIGITS` decimals, so that they are bit-identical for any number of threads.
    Raises HarnessError if the shapes do not match.
    """
    return bootstraps([(values, seeds)], users)[0]


def bootstraps(rows: Sequence[tuple[np.ndarray, np.ndarray]], users: np.ndarray) -> list[np.ndarray]:
    """`bootstrap` for several rows, (values, seeds), of the same users, with one matrix product."""
    for values, seeds in rows:
        if values.shape[:2] != (users.shape[1], seeds.shape[1]) or len(users) != len(seeds):
            raise HarnessError(
                f"The bootstrap got values of {values.shape[:2]} users and seeds, but draws for "
                f"{(users.shape[1], seeds.shape[1])} in {len(users)} and {len(seeds)} rounds."
            )
    flat = [values.mean(1).reshape(len(values), -1) for values, _ in rows]
    columns = np.cumsum([part.shape[1] for part in flat])[:-1]
    by_user = np.split(resampled(users, np.concatenate(flat, 1)), columns, 1)
    return [_with_seeds(*row, part) for row, part in zip(rows, by_user, strict=True)]


def _with_seeds(values: np.ndarray, seeds: np.ndarray, by_user: np.ndarray) -> np.ndarray:
    by_seed = values.mean(0)
    drawn = np.tensordot(seeds, by_seed - by_seed.mean(0), 1)
    return np.round(by_user.reshape(drawn.shape) + drawn, DIGITS)


def resampled(users: np.ndarray, by_user: np.ndarray) -> np.ndarray:
    """Resampled means (R, ...) of values by user (U, ...) under `user_draws` (R, U)."""
    return np.concatenate([np.tensordot(users[part], by_user, 1) for part in chunks(*users.shape)]) / len(by_user)


def percentile(mean: float, draws: np.ndarray) -> Interval:
    """The central 95 % of the resampled means (R,) around a mean."""
    ordered = np.sort(draws)
    return Interval(float(mean), _quantile(ordered, (1 - LEVEL) / 2), _quantile(ordered, (1 + LEVEL) / 2))


def _quantile(ordered: np.ndarray, q: float) -> float:
    """Same as `np.quantile`, to the last bit, for sorted values (R,). Tables need thousands, and NumPy's checks take
    ten times as long as the computation."""
    place = q * (len(ordered) - 1)
    below = int(place)
    low, high = float(ordered[below]), float(ordered[min(below + 1, len(ordered) - 1)])
    share = place - below
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share


def holm(p: np.ndarray) -> np.ndarray:
    """Adjust the p-values (P,) of a family of P tests: claiming all below .05 has at most 5 % risk of any false claim.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    >>> holm(np.array([0.04, 0.01, 0.03])).round(3).tolist()
    [0.06, 0.03, 0.06]
    """
    order = np.argsort(p)
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(steps, 1)
    return adjusted


def holm_pairs(p: np.ndarray) -> np.ndarray:
    """Adjust a symmetric matrix (n, n) of p-values by Holm over its n (n - 1) / 2 pairs; 1 on the diagonal."""
    above = np.triu_indices(len(p), 1)
    adjusted = np.ones(p.shape)
    adjusted[above] = holm(p[above])
    return np.minimum(adjusted, adjusted.T)


def effect(differences: np.ndarray) -> float | None:
    """Standardised paired difference of users (U,): mean divided by standard deviation (Cohen's d_z).

    None if all users differ by the same amount or there is only one: the scale is unknown.
    """
    if len(differences) < 2 or not (spread := differences.std(ddof=1)) > 1e-15:
        return None
    return float(differences.mean() / spread)


def letters(differs: np.ndarray) -> list[str]:
    """Compact letter display: two of n rows share a letter exactly if they do not differ; differs: bool (n, n).

    Each letter is a maximal set of rows that do not differ, and the sets cover all pairs that do not differ (Gramm et
    al., "Algorithms for compact letter displays", Computational Statistics & Data Analysis 2008). A set is grown from
    each pair not yet covered, the most distant first. This needs at most one letter per pair; insert-and-absorb (Piepho
    2004) finds all maximal sets, which can be exponentially many. Both give the same letters if exactly the rows within
    some distance do not differ. Letters follow the order of the rows, so the first row has an `a`.

    >>> differs = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 0]], bool)
    >>> letters(differs)
    ['a', 'ab', 'b']
    """
    n = len(differs)
    alike = [_bits(row) for row in ~(differs | differs.T | np.eye(n, dtype=bool))]
    covered, groups = [0] * n, []
    for i in range(n):
        for j in _members((alike[i] & ~covered[i]) >> (i + 1) << (i + 1)):
            if not covered[i] >> j & 1:
                groups.append(_grown((1 << i) | (1 << j), alike[i] & alike[j], alike))
                _cover(groups[-1], covered)
        if not covered[i]:
            groups.append(1 << i)
            covered[i] = 1 << i
    ordered = sorted(_members(group)[::-1] for group in groups)
    labels = [""] * n
    for place, group in enumerate(ordered):
        for row in group:
            labels[row] += _letter(place)
    return labels


def _grown(group: int, candidates: int, alike: list[int]) -> int:
    """Grow a set of rows, as bits, by candidates that differ from none of its rows, first rows first."""
    while candidates:
        low = candidates & -candidates
        group |= low
        candidates &= alike[low.bit_length() - 1]
    return group


def _cover(group: int, covered: list[int]) -> None:
    for row in _members(group):
        covered[row] |= group


def _bits(row: np.ndarray) -> int:
    """A bool row as the bits of an int; index 0 is the lowest bit."""
    return int.from_bytes(np.packbits(row, bitorder="little").tobytes(), "little")


def _members(bits: int) -> list[int]:
    """Indices of the bits that are set, highest first."""
    indices = []
    while bits:
        indices.append(bits.bit_length() - 1)
        bits ^= 1 << indices[-1]
    return indices


def _letter(place: int) -> str:
    """The letter at `place`: a to z, then a' to z', and so on."""
    return chr(ord("a") + place % 26) + "'" * (place // 26)


def expected_best(values: np.ndarray, k: int) -> float:
    """Expected best of k out of the n values (n,) of a search's trials, in random order; 1 <= k <= n.

    The mean over all subsets of k trials, unbiased for k independent draws (Tang et al., "Showing Your Work Doesn't
    Always Work", ACL 2020): the i-th smallest is the best of C(i - 1, k - 1) of the C(n, k) subsets. The estimator of
    Dodge et al. ("Show Your Work", EMNLP 2019), which draws with replacement, is too low, most of all for k near n.

    >>> expected_best(np.array([1.0, 2.0, 3.0]), 1), expected_best(np.array([1.0, 2.0, 3.0]), 3)
    (2.0, 3.0)
    """
    n = len(values)
    if not 1 <= k <= n:
        raise HarnessError(f"The best of {k} trials cannot be estimated from {n}.")
    return float(np.sort(values) @ _shares(n, k))


@cache
def _shares(n: int, k: int) -> np.ndarray:
    """C(i - 1, k - 1) / C(n, k) for i = 1 ... n, (n,): the last is k / n, every other is its right neighbour times
    (i - k + 1) / i."""
    below = np.arange(n - 1, 0, -1.0)
    return (k / n * np.cumprod(np.concatenate([[1.0], np.maximum(below - k + 1, 0) / below])))[::-1]


def expected_best_with_replacement(values: np.ndarray, k: int) -> float:
    """Expected best of k draws with replacement from the values (n,), for any k >= 1 (Dodge et al. 2019)."""
    places = np.arange(len(values) + 1) / len(values)
    return float(np.sort(values) @ np.diff(places**k))


def expected_best_intervals(values: np.ndarray, k: int, rounds: int = ROUNDS, seed: int = 0) -> list[Interval]:
    """`expected_best` of each of C searches, from values (n, C), with bootstrap intervals over trials; 4 k <= n.
    Rounded as in `bootstrap`.

    No resample exceeds the best observed value, so for larger k the interval is too narrow (measured with 16 trials: it
    covers the truth in nine of ten cases at k = 4, in three of four at k = 8)."""
    n = len(values)
    if 4 * k > n:
        raise HarnessError(f"An interval for the best of {k} trials needs {4 * k} trials, not {n}.")
    ordered = np.sort(values, 0)
    draws = np.concatenate([_resampled_shares(n, k, part, seed) @ ordered for part in chunks(rounds, n)])
    means = (_shares(n, k) @ ordered).round(DIGITS)
    return [percentile(mean, drawn) for mean, drawn in zip(means, draws.round(DIGITS).T, strict=True)]


def _resampled_shares(n: int, k: int, part: slice, seed: int) -> np.ndarray:
    """Weights (rounds, n) of n sorted values in `expected_best` of each resample: the weights of the resample's order
    statistics, summed per value."""
    places = _places(n, part.start, part.stop, seed)
    weights = np.bincount(places.ravel(), np.tile(_shares(n, k), len(places)), places.size)
    return weights.reshape(places.shape)


@lru_cache(maxsize=1)
def _places(n: int, start: int, stop: int, seed: int) -> np.ndarray:
    """Flat indices of each resample's order statistics in (rounds, n): drawn and sorted once for all k."""
    drawn = np.random.default_rng([seed, start]).integers(n, size=(stop - start, n))
    return np.sort(drawn, 1) + n * np.arange(stop - start)[:, None]


def chunks(rows: int, width: int) -> Iterator[slice]:
    """Slices of rows with about `CELLS` entries each."""
    step = max(1, CELLS // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def check(values: np.ndarray) -> np.ndarray:
    """Return the values. Raises HarnessError unless they are a finite table (users, seeds)."""
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise HarnessError(f"Scores must be finite numbers of shape (users, seeds), not {values.dtype} {values.shape}.")
    return values

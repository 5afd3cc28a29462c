"""Closed-form intervals and tests with users and seeds as crossed random effects.

Letters: U test users, S training seeds, n rows of a section. Scores have the shape (U, S): every seed ranks the same
users, and all rows of a section share their users. A score is modelled as

    mean of the row + effect of the user + effect of the seed + noise of this user under this seed.

The variance of a row's mean, or of the difference of two means, has two parts. The seeds' part is the variance of the
seed means over S. It includes the noise of users under seeds, which is therefore subtracted from the users' part
(Milliken and Johnson, "Analysis of Messy Data", 1992, chapter 18). The seeds' part of one row has only S - 1 degrees of
freedom, so the rows of a section share a prior (`fit_prior`).

Degrees of freedom of the sum are the variance-weighted harmonic mean of the parts'. To first order, this is how
Cochran and Cox ("Experimental Designs", 1957, section 4.14) weight critical values. With Satterthwaite's weights, the
squared variances, a test at 5 % would reject up to 8 % of equal rows at two seeds.

An interval covers other users of the same population and other seeds of the same configuration. It does not cover
another hyper-parameter search, split or data set. Level, coverage and power: `benchmarks/results/significance.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from harness.stats import sign_flips, student_t
from harness.stats.resampling import DIGITS, Interval, check, resampled
from harness.types import HarnessError

ALPHA = 0.05
POWER = 0.8
FEW = 30  # users, below which sign-flip tests are used too
PRIOR_DF = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64], np.float64)
TINY = 1e-300
STEPS = 100
EVIDENCE = 1.353  # gain in log-likelihood for rows to differ: half the 10 % point of chi-squared(1), on a boundary


@dataclass(frozen=True)
class ScoreSummary:
    """Summary of a row's scores (U, S) in one metric.

    users: means over seeds (U,). seeds: S. seed: variance of the seed means, divided by S. residual: variance of the
    noise of users under seeds, divided by U S. Both are 0 with one seed or if all seeds score alike. deterministic:
    another seed would score the same.
    """

    users: np.ndarray
    seeds: int
    seed: float = 0.0
    residual: float = 0.0
    deterministic: bool = False

    @cached_property
    def mean(self) -> float:
        return round(float(self.users.mean()), DIGITS)


@dataclass(frozen=True)
class Prior:
    """Distribution of the seeds' part of rows: scaled inverse chi-squared around `expected`.

    excess: variance between single seeds beyond the noise of users under seeds. scale: of the distribution, 1 if the
    rows are pooled and seeds differ by more than that noise. df: its degrees of freedom; infinite if the rows are
    pooled. evidence: degrees of freedom from which excess and scale are estimated.
    """

    excess: float
    scale: float
    df: float
    evidence: float

    def expected(self, row: ScoreSummary) -> float:
        """Prior expectation of a row's seeds' part. The noise of a single seed is already in its users' part."""
        residual = row.residual if row.seeds > 1 else 0.0
        return self.scale * (residual + self.excess / row.seeds)


@dataclass(frozen=True)
class Difference:
    """Mean of one row minus mean of another over the same users.

    error: standard error. df: degrees of freedom. p: two-sided p-value of no difference, not adjusted. low, high: 95 %
    interval, which excludes 0 exactly if p < .05; NaN if there are too few users for a bound.
    """

    mean: float
    error: float
    df: float
    p: float
    low: float
    high: float

    def within(self, bound: float) -> tuple[float, float]:
        """The interval, clipped to the possible range -bound..bound; the whole range if there are too few users."""
        low, high = (self.low, self.high) if np.isfinite([self.low, self.high]).all() else (-bound, bound)
        return max(low, -bound), min(high, bound)

    def detectable(self, tests: int = 1) -> float:
        """Smallest true difference that a test detects with 80 % power, in units of the metric; `tests`: size of the
        family, at the strictest step of Holm."""
        df = np.array(self.df)
        return float(self.error * (student_t.quantile(1 - ALPHA / (2 * tests), df) + student_t.quantile(POWER, df)))


def summary(scores: np.ndarray, deterministic: bool = False) -> ScoreSummary:
    """Summarise scores (U, S); `deterministic` for a row without training (a baseline), which needs one seed.

    Raises HarnessError unless the scores are finite and two-dimensional.
    """
    check(scores)
    [found] = summaries(scores[:, None], deterministic)
    return found


def summaries(scores: np.ndarray, deterministic: bool = False) -> list[ScoreSummary]:
    """`summary` of each of n rows, from scores (U, n, S)."""
    users, n, seeds = scores.shape
    by_user, by_seed = scores.mean(2), scores.mean(0)  # (U, n), (n, S)
    rounded = np.ascontiguousarray(by_user.round(DIGITS).T)  # equal rows stay equal under another order of addition
    if deterministic or seeds == 1:
        return [ScoreSummary(row, seeds, deterministic=deterministic) for row in rounded]
    noise = scores - by_user[:, :, None] - (by_seed - by_seed.mean(1, keepdims=True))
    squares = np.ascontiguousarray((noise**2).transpose(1, 0, 2)).reshape(n, -1).sum(1)
    residual = squares / max(1, (users - 1) * (seeds - 1)) / (users * seeds)
    found = []
    for row, seed, rest in zip(rounded, *_settled(np.stack([by_seed.var(1, ddof=1) / seeds, residual])), strict=True):
        if np.sqrt(max(seed, rest)) < 10.0**-DIGITS:
            found.append(ScoreSummary(row, seeds, deterministic=True))
        else:
            found.append(ScoreSummary(row, seeds, float(seed), float(rest)))
    return found


def fit_prior(rows: Iterable[ScoreSummary]) -> Prior | None:
    """Fit the prior to the rows with several seeds; None without one. A single one is its own prior, and lends it to
    rows with one seed.

    As limma does for genes (Smyth, "Linear models and empirical Bayes methods for assessing differential expression in
    microarray experiments", 2004), the seeds' part divided by its expectation follows a scaled F(S - 1, df). The
    expectation is the row's residual plus an excess common to all rows. Scale and df are fitted by likelihood; Smyth's
    moments of logarithms vary too much at one degree of freedom. Rows are pooled unless they differ at the 5 % level.
    """
    chosen = [row for row in rows if row.seeds > 1 and row.residual > 0]
    if not chosen:
        return None
    df = np.array([row.seeds - 1.0 for row in chosen])
    beyond = np.array([row.seeds * (row.seed - row.residual) for row in chosen])
    excess = max(float(df @ beyond / df.sum()), 0.0)
    ratios = np.array([row.seed / (row.residual + excess / row.seeds) for row in chosen])
    if not ratios.any():  # only coarse scores give every seed the same total: it says nothing about other seeds
        return Prior(0.0, 1.0, np.inf, float(df.sum()))
    scale, pooled = _fit_pooled(ratios, df)
    scales, likelihoods = _fit_scales(ratios, df)
    best, prior_df = int(likelihoods.argmax()), np.inf
    if likelihoods[best] > pooled + EVIDENCE:
        scale, prior_df = float(scales[best]), float(PRIOR_DF[best])
    return Prior(excess, scale, prior_df, float((1 / (1 / df + 1 / prior_df)).sum()))


def _fit_pooled(ratios: np.ndarray, df: np.ndarray) -> tuple[float, float]:
    """Scale and log-likelihood of ratios ~ scale chi-squared(df) / df, without terms that depend only on the ratios."""
    scale = max(float(ratios @ df / df.sum()), TINY)
    terms = df / 2 * np.log(df / (2 * scale)) - special.gammaln(df / 2) - df * ratios / (2 * scale)
    return scale, float(terms.sum())


def _fit_scales(ratios: np.ndarray, df: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scales and log-likelihoods of ratios ~ scale F(df, prior) for every prior of `PRIOR_DF`."""
    prior = PRIOR_DF[:, None]
    scale = np.full(prior.shape, max(float(ratios @ df / df.sum()), TINY))
    for _ in range(STEPS):  # expectation and maximisation
        weights = (df + prior) / (prior + df * ratios / scale)
        before, scale = scale, np.maximum((weights * df * ratios).sum(1, keepdims=True) / df.sum(), TINY)
        if (abs(scale - before) <= 1e-6 * scale).all():
            break
    terms = df / 2 * np.log(df / (prior * scale)) - special.betaln(df / 2, prior / 2)
    terms = terms - (df + prior) / 2 * np.log1p(df * ratios / (prior * scale))
    return scale[:, 0], terms.sum(1)


class CrossedRows:
    """Statistics of rows with the same users in one metric, per row and per pair of rows.

    seed (n,): moderated seeds' part of the variance of each mean. residual (n,): user-by-seed noise in the users' part.
    loose (n,): 1 / degrees of freedom of `seed` around the prior. borrowed (n,): the part of `seed` that moves with
    the prior. spread (n, n): variance of the users' mean difference. (n, n) arrays compare row i with row j at [i, j].

    Raises HarnessError if there are no rows or their numbers of users differ.
    """

    def __init__(self, rows: Sequence[ScoreSummary]) -> None:
        if not rows:
            raise HarnessError("A section needs at least one row.")
        counts = {len(row.users) for row in rows}
        if len(counts) != 1:
            raise HarnessError(f"Rows of a section must have the same users; these have {sorted(counts)} users.")
        self.rows = tuple(rows)
        self.count = counts.pop()
        self.users = np.stack([row.users for row in rows], 1)
        self.means = np.array([row.mean for row in rows])
        self.prior = fit_prior(rows)
        moderated = np.array([_moderate(row, self.prior) for row in rows])
        self.seed, self.residual, self.loose, self.borrowed = moderated.T
        self.evidence = self.prior.evidence if self.prior else np.inf

    @property
    def few(self) -> bool:
        return self.count < FEW

    @cached_property
    def spread(self) -> np.ndarray:
        centred = self.users - self.users.mean(0)
        product = centred.T @ centred
        squares = np.diag(product)
        spread = squares[:, None] + squares - 2 * product
        close = spread < 1e-6 * (squares[:, None] + squares)  # cancellation: subtract before squaring
        for i in np.flatnonzero(close.any(1)):
            others = np.flatnonzero(close[i])
            spread[i, others] = ((centred[:, others] - centred[:, [i]]).round(DIGITS) ** 2).sum(0)
        return _settled(spread) / max(1, self.count - 1) / self.count

    @cached_property
    def single(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance and degrees of freedom of each mean, (n,)."""
        users = self.users.var(0, ddof=1) / self.count if self.count > 1 else np.full(len(self.rows), np.nan)
        return self._sum(users - self.residual, self.seed, self.seed**2 * self.loose, self.borrowed)

    @cached_property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Variance and degrees of freedom of each difference, (n, n)."""
        loose = self.seed**2 * self.loose
        users = self.spread - _both(self.residual) if self.count > 1 else np.full_like(self.spread, np.nan)
        variance, df = self._sum(users, _both(self.seed), _both(loose), _both(self.borrowed))
        np.fill_diagonal(variance, 0)
        return variance, df

    def _sum(
        self, users: np.ndarray, seed: np.ndarray, loose: np.ndarray, borrowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sum of users' and seeds' part, and its degrees of freedom."""
        users = np.maximum(users, 0)
        total = users + seed
        with np.errstate(divide="ignore", invalid="ignore"):
            by_seed = np.where(seed > 0, (loose + borrowed**2 / self.evidence) / seed, 0)  # seed / its df
            df = total / (users / max(1, self.count - 1) + by_seed)
        return _settled(total), np.where(total > 0, df, max(1, self.count - 1))

    def intervals(self) -> list[Interval]:
        """Mean of each row with its 95 % interval, clipped to 0..1; NaN with one user."""
        variance, df = self.single
        half = student_t.quantile(1 - ALPHA / 2, df) * np.sqrt(variance)
        ends = zip(self.means.tolist(), np.maximum(self.means - half, 0), np.minimum(self.means + half, 1), strict=True)
        return [Interval(mean, float(low), float(high)) for mean, low, high in ends]

    @cached_property
    def differences(self) -> np.ndarray:
        """Mean of row i minus mean of row j, (n, n)."""
        return (self.means[:, None] - self.means).round(DIGITS)

    @cached_property
    def p(self) -> np.ndarray:
        """p-values (n, n) of no difference, not adjusted; 1 on the diagonal. With few users, the larger of the t test
        and the sign-flip test."""
        variance, df = self.pairs
        with np.errstate(divide="ignore", invalid="ignore"):
            p = student_t.two_sided(self.differences / np.sqrt(variance), df)
        p[(variance == 0) & (self.differences != 0)] = 2.0 ** (1 - self.count)  # equal for all users: as sign flips
        p[(self.differences == 0) | np.isnan(p)] = 1
        return np.maximum(p, self._flipped[0]) if self.few else p

    @cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % intervals (n, n) of the differences: lower and upper ends; NaN with too few users for a bound."""
        half = self._quantiles * np.sqrt(self.pairs[0])
        low, high = self.differences - half, self.differences + half
        if self.few:
            low, high = np.minimum(low, self._flipped[1]), np.maximum(high, self._flipped[2])
        return _bounded(low), _bounded(high)

    @cached_property
    def gains(self) -> tuple[np.ndarray, np.ndarray]:
        """95 % intervals (n, n) of the gain of i over j in percent of the mean of j, by Fieller's theorem ("Some
        problems in interval estimation", JRSS B 1954): the ratios that the data do not reject. Unlike those of the
        delta method, they exclude 0 exactly if p < .05. NaN if the mean of j may be 0."""
        (own, other, covariance), square = self._joint, self._quantiles**2
        products = self.means[:, None] * self.means - square * covariance
        top, bottom = self.means[:, None] ** 2 - square * own, self.means**2 - square * other
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(np.maximum(products**2 - top * bottom, 0))  # below 0 by rounding only
            low, high = (products - root) / bottom - 1, (products + root) / bottom - 1
            if self.few:
                low = np.minimum(low, self._flipped[1] / self.means)
                high = np.maximum(high, self._flipped[2] / self.means)
        bounded = (bottom > 0) & (self.means > 0) & np.isfinite(low) & np.isfinite(high)
        return _percent(low, bounded), _percent(high, bounded)

    @property
    def _joint(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Variances of means i and j and their covariance, (n, n), as one covariance matrix.

        Each part of a variance is clipped at 0 by itself, so the three can be impossible together. A difference that
        varies too much raises the variances of its means, so that intervals of differences and gains agree on 0; one
        that varies too little only has its covariance lowered.
        """
        variance, _ = self.pairs
        root = np.sqrt(self.single[0])
        most = (root[:, None] + root) ** 2
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(variance > most, np.where(most > 0, variance / most, 1), 1)
        own, other = factor * root[:, None] ** 2, factor * root**2
        return own, other, np.minimum((own + other - variance) / 2, np.sqrt(own * other))

    def difference(self, i: int, j: int) -> Difference:
        """Row i minus row j."""
        variance, df = self.pairs
        low, high = self.bounds
        numbers = (self.differences[i, j], np.sqrt(variance[i, j]), df[i, j], self.p[i, j], low[i, j], high[i, j])
        return Difference(*map(float, numbers))

    @cached_property
    def _quantiles(self) -> np.ndarray:
        return student_t.quantile(1 - ALPHA / 2, self.pairs[1])

    @cached_property
    def _flipped(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """p-values, lower and upper ends (n, n) of the sign-flip tests."""
        return sign_flips.pairs(self.users, ALPHA)

    def too_few(self, tests: int) -> str:
        """Why no result of a family of `tests` tests can be significant; "" if one can."""
        least = sign_flips.smallest(self.count) if self.few else 0.0
        if least * tests < ALPHA:
            return ""
        return (
            f"{self.count} test users cannot resolve {tests} tests: the smallest p-value is {least:.1g}, and the first "
            f"step of Holm needs less than {ALPHA / tests:.1g}."
        )

    def firsts(self, draws: np.ndarray, streams: Sequence[int]) -> np.ndarray:
        """Share of resamples in which each row's mean is the highest, (n,); ties share.

        Users are resampled jointly, with `draws` (R, U) from `resampling.user_draws`. Seeds are resampled per row, by
        normal deviates of the row's stream, with the part of the seeds' variance that resampled users do not include.
        """
        beyond = np.sqrt(np.maximum(self.seed - self.residual, 0))
        normal = np.stack([np.random.default_rng([s, 1]).standard_normal(len(draws)) for s in streams], 1)
        moved = (resampled(draws, self.users) + beyond * normal).round(DIGITS)
        first = moved == moved.max(1, keepdims=True)
        return (first / first.sum(1, keepdims=True)).mean(0)


def _moderate(row: ScoreSummary, prior: Prior | None) -> tuple[float, float, float, float]:
    """`seed`, `residual`, `loose` and `borrowed` of a row."""
    df = row.seeds - 1
    if row.deterministic or (prior is None and not df):
        return 0.0, 0.0, 0.0, 0.0
    if prior is None or (df and not row.residual):
        return row.seed or row.residual, row.residual, 1 / df, 0.0
    expected = prior.expected(row)
    weight = 1 / (1 + df / prior.df)  # of the prior: 1 if pooled
    return weight * expected + (1 - weight) * row.seed, row.residual, 1 / (df + prior.df), weight * expected


def compare(a: np.ndarray, b: np.ndarray, deterministic: bool = False) -> Difference:
    """Mean of a minus mean of b, from scores (U, S) and (U, S') of the same users in the same order.

    Raises HarnessError if scores are not finite or the numbers of users differ.
    """
    return CrossedRows([summary(scores, deterministic) for scores in (a, b)]).difference(0, 1)


def _both(values: np.ndarray) -> np.ndarray:
    return values[:, None] + values


def _percent(shares: np.ndarray, bounded: np.ndarray) -> np.ndarray:
    return np.where(bounded, 100 * np.maximum(shares, -1), np.nan)


def _bounded(ends: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(ends), ends, np.nan)


def _settled(values: np.ndarray) -> np.ndarray:
    """Round to 40 bits, so that the order of addition (number of threads) does not matter."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**40), exponent - 40)

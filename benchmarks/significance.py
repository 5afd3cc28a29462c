"""Level, coverage and power of the tables' intervals and tests, simulated with a known truth.

Rows resemble NDCG@10: most users have no hit, a user's chance of a hit is the same in all rows, and a seed multiplies
all users' chances by one factor. `seed sd` is the standard deviation of that factor times .05; `noise` is the share of
a user's luck that each seed draws independently, the rest is fixed per row. True means are equal except in the power
curves. `before` is the test that the present one replaced: 9,999 sign flips (here 1,999) widened by resampled seed
means.

Simulated tables per setting, times `--scale`: 1,500 at 300 users and 240 at 5,000, of 12 rows; 4 times as many of two
rows; 400 per power.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator

import _measure
import numpy as np

from harness.stats import crossed_effects, resampling
from harness.stats.crossed_effects import ALPHA, CrossedRows, summary

BASE = 0.05
GAINS = 1 / np.log2(2 + np.arange(10))
ROWS = 12  # in a section
FLIPS = 1999


def rows(
    rng: np.random.Generator, n: int, shape: tuple[int, int], sd: float, noise: float, gain: float = 0
) -> list[np.ndarray]:
    """Simulate scores (U, S) of n rows over the same users; the first is better by the share `gain`."""
    users, seeds = shape
    chance = rng.beta(0.25, 4, users).astype(np.float32)
    tables = []
    for row in range(n):
        factor = np.maximum(1 + rng.normal(0, sd / BASE, (seeds, 1)), 0) * (1 + gain * (row == 0))
        fresh, fixed = rng.random((seeds, users), np.float32), rng.random(users, np.float32)
        luck = fresh if noise == 1 else np.where(rng.random((seeds, users), np.float32) < noise, fresh, fixed)
        reach = np.minimum(chance * factor.astype(np.float32), 1)
        scores, hit = np.zeros((seeds, users)), luck < reach
        scores[hit] = GAINS[(10 * luck[hit] / reach[hit]).astype(int).clip(max=9)]
        tables.append(scores.T)
    return tables


def truth(sd: float) -> float:
    """The expected score of the simulated rows."""
    rng = np.random.default_rng(99)
    chance, factor = rng.beta(0.25, 4, 4_000_000), np.maximum(1 + rng.normal(0, sd / BASE, 4_000_000), 0)
    return float(np.minimum(chance * factor, 1).mean() * GAINS.mean())


def before(pair: list[np.ndarray], rng: np.random.Generator) -> float:
    """p-value of the replaced test."""
    a, b = pair
    difference = a.mean(1) - b.mean(1)
    moved = difference[difference != 0]
    null = (2.0 * rng.integers(2, size=(FLIPS, len(moved))) - 1) @ moved / len(a)
    for x in (a, b):
        null += resampling.seed_draws(x.shape[1], FLIPS, int(rng.integers(2**31))) @ (x.mean(0) - x.mean())
    return (1 + (np.abs(null) >= abs(difference.mean()) - 1e-12).sum()) / (1 + FLIPS)


def settings() -> Iterator[tuple[int, int, float, float]]:
    """Seeds, users, seed sd, noise; without a seed sd for one seed, from which it cannot be estimated."""
    for one in itertools.product((1, 2, 5), (300, 5000), (0.0, 0.01, 0.03), (0.3, 1.0)):
        if one[0] > 1 or not one[2]:
            yield one


def levels(scale: float) -> list[dict[str, object]]:
    lines = []
    for seeds, users, sd, noise in settings():
        rng, shape = np.random.default_rng(1), (users, seeds)
        many = max(4, int(scale * (1500 if users == 300 else 240)))
        mean = truth(sd)
        alone = [pair(rng, shape, sd, noise, mean) for _ in range(4 * many)]
        old = [before(rows(rng, 2, shape, sd, noise), rng) < ALPHA for _ in range(many)]
        together = [section(rng, shape, sd, noise, mean) for _ in range(many)]
        claims, covered = np.mean(together, 0)
        line = {"seeds": seeds, "users": users, "seed sd": sd, "noise": noise, "before": float(np.mean(old))}
        line |= {"two rows": float(np.mean(alone, 0)[0]), f"{ROWS} rows": claims, "interval covers": covered}
        lines.append(line | {"gain covers": float(np.mean(alone, 0)[1])})
        print(lines[-1], flush=True)
    return lines


def section(
    rng: np.random.Generator, shape: tuple[int, int], sd: float, noise: float, mean: float
) -> tuple[float, float]:
    """Share of pairs of equal rows called different, and of intervals that cover the truth."""
    crossed = CrossedRows([summary(x) for x in rows(rng, ROWS, shape, sd, noise)])
    claims = float((crossed.p[np.triu_indices(ROWS, 1)] < ALPHA).mean())
    return claims, float(np.mean([one.low <= mean <= one.high for one in crossed.intervals()]))


def pair(rng: np.random.Generator, shape: tuple[int, int], sd: float, noise: float, mean: float) -> tuple[float, float]:
    """Whether two equal rows are called different, and whether the gain of a row better by a fifth is covered."""
    crossed = CrossedRows([summary(x) for x in rows(rng, 2, shape, sd, noise)])
    low, high = CrossedRows([summary(x) for x in rows(rng, 2, shape, sd, noise, 0.2)]).gains
    return crossed.p[0, 1] < ALPHA, not (low[0, 1] > 20 or high[0, 1] < 20)  # NaN is no bound, so it covers


def power(scale: float) -> list[dict[str, object]]:
    lines, many = [], max(4, int(scale * 400))
    for seeds, sd, noise in itertools.product((2, 5), (0.0, 0.003), (0.3, 1.0)):
        line: dict[str, object] = {"seeds": seeds, "seed sd": sd, "noise": noise}
        for gain in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3):
            rng, shape = np.random.default_rng(2), (2000, seeds)
            hits = []
            for _ in range(many):
                simulated = rows(rng, ROWS, shape, sd, noise, gain)
                now = CrossedRows([summary(x) for x in simulated]).p[0, 1] < ALPHA
                hits.append((before(simulated[:2], rng) < ALPHA, now))
            line[f"+{gain:.0%}"] = " / ".join(f"{share:.2f}" for share in np.mean(hits, 0))
        lines.append(line)
        print(line, flush=True)
    return lines


def best(scale: float) -> list[dict[str, object]]:
    """Share of tables of equal rows in which the best row is called better than one of the others, by family."""
    lines, many = [], max(4, int(scale * 400))
    for n in (5, 10, 20, 33):
        rng, wrong = np.random.default_rng(4), np.zeros(2)
        for _ in range(many):
            simulated = [summary(x) for x in rows(rng, n, (1000, 2), 0.003, 0.5)]
            p, top = CrossedRows(simulated).p, int(np.argmax([one.mean for one in simulated]))
            others = [row for row in range(n) if row != top]
            families = resampling.holm(p[others, top]), resampling.holm_pairs(p)[others, top]
            wrong += [bool((adjusted < ALPHA).any()) for adjusted in families]
        lines.append({"rows": n, "against the best": wrong[0] / many, "all pairs": wrong[1] / many})
        print(lines[-1], flush=True)
    return lines


def cost() -> list[dict[str, object]]:
    """CPU seconds to compute all p-values, gains and letters of a section."""
    rng, lines = np.random.default_rng(3), []
    for n, users in ((20, 5000), (100, 5000), (400, 5000), (100, 50_000)):
        summaries = [summary(x) for x in rows(rng, n, (users, 5), 0.003, 0.5)]

        def run(summaries: list[crossed_effects.ScoreSummary] = summaries) -> None:
            section = CrossedRows(summaries)
            differs = resampling.holm_pairs(section.p) < ALPHA
            _ = section.gains, resampling.letters(differs)

        lines.append({"rows": n, "users": users, "CPU s": _measure.cpu_seconds(run, repeats=3)[0]})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the number of simulated tables")
    parser.add_argument("--best", action="store_true", help="only the tests against the best row, in a file of its own")
    options = parser.parse_args()
    scale = options.scale
    if options.best:
        _measure.write(
            "significance_best",
            "Tests against the best row",
            "Equal rows, 1,000 users, 2 seeds, seed sd .003, noise .5; share of tables in which the best row is called "
            "better than one of the others (nominal 5 %), if the family of Holm's correction is the tests against it, "
            "or all pairs. The data choose the best row, so the first family promises too much.",
            _measure.table(best(scale)),
        )
        return
    _measure.write(
        "significance",
        "Level, coverage and power",
        (__doc__ or "").partition("\n\n")[2].strip(),
        "## Equal rows called different at a nominal 5 %, and truths covered by 95 % intervals",
        _measure.table(levels(scale)),
        f"## Power over 2,000 users, before / now, for a row that is better by this share, in a section of {ROWS} rows",
        _measure.table(power(scale)),
        "## All pairs of a section: p-values, gains and letters",
        _measure.table(cost()),
    )


if __name__ == "__main__":
    main()

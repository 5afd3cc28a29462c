"""Compare two launches, homes or MLflow stores: common cells, differences of their test metrics and of settings.

A cell is compared if both sides ranked the same users under the same protocol. The difference B - A is then paired by
user, its interval is over users and seeds, and the p-value of the headline metric is Holm-adjusted over all cells.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import registry
from harness.metrics._all import CUTOFFS, HEADLINE, per_user
from harness.paths import expanded
from harness.record import artifacts
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.report import ledger_frames, row_lookup
from harness.report.row_lookup import LedgerRow
from harness.report.tables._format import p_value
from harness.stats import crossed_effects, fold_effects, resampling
from harness.stats.folds import Folds
from harness.types import Cell, HarnessError, Inputs, Json

ALPHA = 0.05
MLFLOW = "mlflow:"


@dataclass(frozen=True)
class Side:
    """One side: its `name` as given by the user, ledger and rows; `ranks_of` reads the test ranks of a trial."""

    name: str
    ledger: Ledger
    rows: dict[Cell, LedgerRow]
    launch: LaunchRecord
    ranks_of: Callable[[str], pl.DataFrame | None] = field(repr=False)

    def finished(self, trial_id: str) -> bool:
        result = self.ledger.result(trial_id)
        return result is not None and result.status == "done"


@dataclass(frozen=True)
class MetricDifference:
    """A metric's means and B - A with its 95 % interval."""

    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedCell:
    """A cell of both sides.

    ``why_not``: why it is not compared, else empty; ``same_runs``: both sides have the same trials and ranks; ``p``: of
    no difference in the headline metric, Holm-adjusted; ``notes``: differences in configuration and inputs."""

    cell: Cell
    why_not: str
    same_runs: bool = False
    metrics: dict[str, MetricDifference] = field(default_factory=dict)
    p: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        return self.p is not None and self.p < ALPHA


@dataclass(frozen=True)
class Comparison:
    """Comparison of two sides. ``settings``: name -> (A's, B's) of the settings that differ."""

    a: str
    b: str
    settings: dict[str, tuple[Any, Any]]
    cells: tuple[ComparedCell, ...]
    only_a: tuple[Cell, ...]
    only_b: tuple[Cell, ...]

    @property
    def exit_code(self) -> int:
        """0: every common cell was compared and none differs; 1: some differ or could not be compared."""
        return int(not self.cells or any(cell.why_not or cell.differs for cell in self.cells))

    def verdict(self) -> str:
        done = [cell for cell in self.cells if not cell.why_not]
        better = [cell for cell in done if cell.differs]
        for_b = sum(cell.metrics[HEADLINE].difference > 0 for cell in better)
        same = sum(cell.same_runs for cell in done)
        words = [f"{_count(len(self.cells), 'cell')} in both, {len(done)} compared"]
        if done:
            different = f"{len(better)} differ (B better in {for_b}, worse in {len(better) - for_b})"
            words.append(f"{different}, {len(done) - len(better)} are indistinguishable")
        words += [f"{same} of them are the same runs"] if same else []
        words += [f"{n} only in {name}" for n, name in ((len(self.only_a), "A"), (len(self.only_b), "B")) if n]
        words += (
            [f"{_count(len(self.settings), 'setting')} differ{'s' * (len(self.settings) == 1)}"]
            if self.settings
            else ["no setting differs"]
        )
        return "; ".join(words) + "."

    def to_json(self) -> Json:
        return {
            "a": self.a,
            "b": self.b,
            "verdict": self.verdict(),
            "settings": {name: {"a": a, "b": b} for name, (a, b) in self.settings.items()},
            "cells": [asdict(cell) | {"differs": cell.differs} for cell in self.cells],
            "only_a": [asdict(cell) for cell in self.only_a],
            "only_b": [asdict(cell) for cell in self.only_b],
        }

    def frame(self) -> pl.DataFrame:
        """Return a row per common cell: its names, `why_not`, `same_runs`, `p`, and per metric `<metric>_a`, `_b`,
        `_difference`, `_low`, `_high`."""
        records = []
        for cell in self.cells:
            record = asdict(cell.cell) | {"why_not": cell.why_not, "same_runs": cell.same_runs, "p": cell.p}
            for name, metric in cell.metrics.items():
                record |= {f"{name}_{key}": value for key, value in asdict(metric).items()}
            records.append(record)
        return pl.DataFrame(records, infer_schema_length=None)


def compare(a: str, b: str, home: Path) -> Comparison:
    """Compare two launches of `home` (names or unique prefixes), home folders or MLflow stores (`mlflow:<uri>` or URI).

    Raises HarnessError if one of them does not exist or has no results.
    """
    sides = side(a, home), side(b, home)
    first, second = sides
    common = [cell for cell in sorted(first.rows) if cell in second.rows]
    barrier = _protocols_differ(first, second)
    cells = [_cell(cell, sides, barrier) for cell in common]
    return Comparison(
        a,
        b,
        _settings(sides, common),
        tuple(_adjusted(cells)),
        tuple(sorted(set(first.rows) - set(second.rows))),
        tuple(sorted(set(second.rows) - set(first.rows))),
    )


def side(word: str, home: Path) -> Side:
    """Return the side that `word` names. Raises HarnessError, with the nearest launch, if there is none."""
    uri = word.removeprefix(MLFLOW)
    if word.startswith(MLFLOW) or "://" in word:
        from harness.record import tracking

        ledger, sources = tracking.read(uri, home)
        return _side(word, ledger, None, sources.ranks)
    folder = expanded(word)
    if folder.is_dir():
        if not (folder / "ledger").is_dir():
            raise HarnessError(f"{word} is a folder, but not a home with results: it has no folder 'ledger'.")
        return _side(word, Ledger.open(folder), None, lambda i: artifacts.load_ranks(folder, i))
    ledger = Ledger.open(home)
    runs = [run for run in sorted(ledger.launches) if run.startswith(word)] if word else []
    if len(runs) != 1:
        newest = sorted(ledger.launches, reverse=True)[: row_lookup.SHOWN]
        if not newest:
            raise HarnessError(f"'{word}' is not a folder or MLflow store, and {home} has no launches.")
        what = f"matches {len(runs)} launches of {home}" if runs else f"is not a launch of {home}, a folder or a store"
        raise HarnessError(f"'{word}' {what}. {registry.suggest(word, newest)}")
    return _side(word, ledger, runs[0], lambda i: artifacts.load_ranks(home, i))


def _side(word: str, ledger: Ledger, run: str | None, ranks_of: Callable[[str], pl.DataFrame | None]) -> Side:
    if not ledger.launches:
        raise HarnessError(f"{word} has no results yet; a bench or, for MLflow, `harness sync` writes them.")
    rows = row_lookup.of(ledger, run)
    if run is not None:  # without the rows that its table took over from earlier launches
        rows = {cell: row for cell, row in rows.items() if row.run == run}
    return Side(word, ledger, rows, ledger.launches[run or max(ledger.launches)], ranks_of)


def _protocols_differ(a: Side, b: Side) -> str:
    one, other = (asdict(side.launch.protocol) | {"ties": side.launch.ties} for side in (a, b))
    names = [f"{key} is {one[key]} / {other[key]}" for key in one if one[key] != other[key]]
    return f"the protocols differ: {', '.join(names)}" if names else ""


def _cell(cell: Cell, sides: tuple[Side, Side], barrier: str) -> ComparedCell:
    if barrier:
        return ComparedCell(cell, barrier)
    ids, ranks = [], []
    for name, side in zip("AB", sides, strict=True):
        if outdated := side.rows[cell].outdated:
            return ComparedCell(cell, f"{name}'s table skips it: {outdated}")
        runs = [run for run in side.ledger.by_seed(side.rows[cell].study) if all(map(side.finished, run))]
        done = [trial_id for run in runs for trial_id in run]
        frames = [side.ranks_of(i) for i in done]
        if not done:
            return ComparedCell(cell, f"{name} has no confirmed run yet")
        if any(frame is None for frame in frames):
            return ComparedCell(
                cell, f"the test ranks of {sum(f is None for f in frames)} of {name}'s runs are missing"
            )
        ids.append(done)
        by_id = {i: frame for i, frame in zip(done, frames, strict=True) if frame is not None}
        together = [artifacts.of_folds([by_id[i] for i in run]) for run in runs]
        ranks.append([frame.sort("user", maintain_order=True) for frame in together])
    trials = [side.ledger.trials[done[0]].trial for side, done in zip(sides, ids, strict=True)]
    hashes = [trial.inputs.data for trial in trials]
    if hashes[0] != hashes[1]:
        return ComparedCell(cell, f"the data differ (hash {hashes[0][:8]} / {hashes[1][:8]}): so the users differ")
    users = [frames[0]["user"].to_numpy() for frames in ranks]
    if not np.array_equal(*users):
        return ComparedCell(cell, f"the test targets differ ({len(users[0])} / {len(users[1])} targets)")
    notes = ["the same trials with other ranks, as from another machine"] if ids[0] == ids[1] else []
    notes += _notes(trials[0].params, trials[1].params, trials[0].inputs, trials[1].inputs)
    seeds = [len(frames) for frames in ranks]
    notes += [f"seeds {seeds[0]} / {seeds[1]}"] if seeds[0] != seeds[1] else []
    notes += [] if cell.is_baseline or sides[0].launch.protocol.folds else _on_seeds(seeds)
    values = [_scores(frames, users[0]) for frames in ranks]
    folds = Folds.of(users[0]) if sides[0].launch.protocol.folds else None
    if ids[0] == ids[1] and np.array_equal(values[0], values[1]):
        means = dict(zip(_names(), _means(values[0], folds).tolist(), strict=True))
        return ComparedCell(
            cell, "", True, {name: MetricDifference(m, m, 0.0, 0.0, 0.0) for name, m in means.items()}, 1.0
        )
    metrics, p = _differences(values[0], values[1], cell.is_baseline, folds)
    return ComparedCell(cell, "", False, metrics, p, tuple(notes))


def _on_seeds(seeds: list[int]) -> list[str]:
    """Say what the test does not know of seeds."""
    if max(seeds) == 1:
        return ["one seed each: the test covers the choice of users, not that of seeds"]
    if min(seeds) == 1:
        return ["one seed on one side: the variance over seeds is estimated from the other"]
    return []


def _notes(a: Json, b: Json, inputs_a: Inputs, inputs_b: Inputs) -> list[str]:
    """Return the differences between two winning configurations and their inputs."""
    notes = [f"{key} {a.get(key)} / {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]
    one, other = inputs_a.versions, inputs_b.versions
    notes += [
        f"version of {key} {one.get(key)} / {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    if inputs_a.embedding != inputs_b.embedding:
        notes.append(f"embedding {inputs_a.embedding[:8]} / {inputs_b.embedding[:8]}")
    return notes


def _names() -> list[str]:
    return [f"{name.upper()}@{k}" for name in registry.names(registry.METRICS) for k in CUTOFFS]


def _scores(frames: list[pl.DataFrame], users: np.ndarray) -> np.ndarray:
    """Return every metric of every user and seed, (U, S, M)."""
    columns = [artifacts.bounds(frame) for frame in frames]
    parts = [name.lower().partition("@") for name in _names()]
    return np.stack([np.stack([per_user(c, m, int(k), users) for m, _, k in parts], 1) for c in columns], 1)


def _means(values: np.ndarray, folds: Folds | None) -> np.ndarray:
    """Return the mean of each metric (M,) of scores (U, S, M): over users or, with folds, over the means of folds."""
    return values.mean((0, 1)) if folds is None else folds.means(values.mean(1)).mean(0)


def _differences(
    a: np.ndarray, b: np.ndarray, deterministic: bool, folds: Folds | None
) -> tuple[dict[str, MetricDifference], float]:
    """Return B - A of every metric from scores (U, S, M), paired by user, and the headline metric's raw p-value."""
    differences, p = {}, 1.0
    for m, name in enumerate(_names()):
        if folds is None:
            gap = crossed_effects.compare(b[:, :, m], a[:, :, m], deterministic)
        else:
            gap = fold_effects.compare(b[:, :, m], a[:, :, m], folds)
        one, other = (float(x[:, :, m].mean() if folds is None else folds.means(x[:, :, m]).mean()) for x in (a, b))
        differences[name] = MetricDifference(one, other, gap.mean, *gap.within(1.0))
        p = gap.p if name == HEADLINE else p
    return differences, p


def _adjusted(cells: list[ComparedCell]) -> list[ComparedCell]:
    tested = [cell for cell in cells if cell.p is not None and not cell.same_runs]
    adjusted = resampling.holm(np.array([cell.p for cell in tested])) if tested else []
    p = {cell.cell: float(value) for cell, value in zip(tested, adjusted, strict=True)}
    return [replace(cell, p=p[cell.cell]) if cell.cell in p else cell for cell in cells]


def _settings(sides: tuple[Side, Side], common: list[Cell]) -> dict[str, tuple[Any, Any]]:
    """Return the options and run conditions that differ between the launches, by name."""
    a, b = (_flat(side, common) for side in sides)
    return {key: (a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)}


def _flat(side: Side, common: list[Cell]) -> Json:
    ledger, launch = side.ledger, side.launch
    trials = [i for cell in common for i in ledger_frames.trials_of(ledger, side.rows[cell].study)]
    provenance = ledger_frames.provenance(ledger, trials, launch)
    parts = {
        "protocol": asdict(launch.protocol),
        "preparation": asdict(launch.prep),
        "budget": launch.budget.to_json(),
        "search": launch.search,
        "versions": {"python": provenance["python"], "harness": provenance["harness"], **provenance["versions"]},
        "machine": provenance["machine"],
        "code": {"git": provenance["git"], "changed since": provenance["dirty"], "hash": provenance.get("code")},
        "data": {name: launch.data[name]["hash"] for name in {c.dataset for c in common} if name in launch.data},
    }
    return {f"{part} {key}": value for part, values in parts.items() for key, value in values.items()}


def text(comparison: Comparison) -> str:
    """Format a comparison as lines: settings, cells, cells of only one side, the verdict."""
    lines = [f"A = {comparison.a}", f"B = {comparison.b}", ""]
    if comparison.settings:
        width = max(map(len, comparison.settings))
        lines += ["Settings that differ (A / B)"]
        lines += [f"  {name:{width}s}  {a} / {b}" for name, (a, b) in comparison.settings.items()] + [""]
    if comparison.cells:
        width = max(len(str(cell.cell)) for cell in comparison.cells)
        lines += [f"{'Cell':{width}s}  {HEADLINE} A    B        B - A [95 %]                 p"]
        lines += [line for cell in comparison.cells for line in _lines(cell, width)] + [""]
    for name, cells in (("A", comparison.only_a), ("B", comparison.only_b)):
        lines += [f"Only in {name}: {cell}" for cell in cells]
    return "\n".join([*lines, comparison.verdict()])


def _lines(cell: ComparedCell, width: int) -> list[str]:
    name = f"{cell.cell!s:{width}s}"
    if cell.why_not:
        return [f"{name}  not compared: {cell.why_not}"]
    m = cell.metrics[HEADLINE]
    mark = "the same runs" if cell.same_runs else f"{p_value(cell.p)}{' *' if cell.differs else ''}"
    numbers = f"{m.a:.4f}       {m.b:.4f}   {m.difference:+.4f} [{m.low:+.4f}, {m.high:+.4f}]"
    notes = f"{' ' * width}    {'; '.join(cell.notes)}"
    return [f"{name}  {numbers}   {mark}", *([notes] if cell.notes else [])]


def _count(n: int, word: str) -> str:
    return f"{n} {word}" + ("" if n == 1 else "s")

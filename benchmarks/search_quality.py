"""Do model-based samplers find better configurations than random search in the same number of trials?

Every sampler searches six real cells (MovieLens-100K and Office; SASRec with `id`, `linear` and `spectran`) with ten
seeds, and every trial is trained: no surrogate and no lookup table. Short training of a narrow model takes a second or
two per trial; the spaces are the default ones, in the ranges of training that were shipped when it was recorded.

    python benchmarks/search_quality.py run --home FOLDER --samplers tpe,random    (resumes if interrupted)
    python benchmarks/search_quality.py report --home FOLDER                       (from the searches that are complete)

A name such as `gp+median` is a sampler with a pruner; without one, no trial is pruned.
`--registry FOLDER` adds `auto`, Optuna's AutoSampler: a checkout of github.com/optuna/optunahub-registry; needs the
package `optunahub`. Nothing is downloaded.
"""

from __future__ import annotations

import _measure  # isort: skip  (sets the threads before torch is imported)

import argparse
import importlib
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cases
import numpy as np
import torch
from optuna.samplers import BaseSampler

from harness.data import preparation, reader, splits
from harness.data.splits import Split
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import plan, samplers, spaces
from harness.search.axes import Choices, Range
from harness.search.plan import Study
from harness.search.samplers import STARTUP_TRIALS
from harness.search.studies import StudySearch, TrialQueue
from harness.stats.resampling import expected_best
from harness.training import trial
from harness.types import Budget, Cell, Engine, Inputs, PrepSpec, Protocol, Trial, TrialResult, digest

TRIALS, SEEDS, EPOCHS = 16, 10, 5
PINS = {"train.d": 16, "train.max_len": 20}
RANGES = {"train.lr": Range(3e-4, 1e-2, log=True), "train.weight_decay": Range(1e-7, 1e-3, log=True)}
SOURCE = spaces.SpaceSource(fixed=PINS, ranges=RANGES)
# short histories and a dense part of Office, for trials of a second or two
DATA = {
    "ml-100k": ("last 20 events", PrepSpec(max_history=20)),
    "amazon2014-office": ("10-core, last 20 events", PrepSpec(kcore=10, max_history=20)),
}
ADAPTERS = ("id", "linear", "spectran")
CELLS = [Cell(dataset, "file", "sasrec", adapter) for dataset in DATA for adapter in ADAPTERS]
COLOURS = {"random": "#777777", "tpe": "#1f77b4", "gp": "#d62728", "auto": "#9467bd", "cmaes": "#2ca02c"}
DEFAULT = ("random", "tpe", "gp", "tpe+median", "gp+median")
PRUNED = ", may be pruned"  # in the data of trials that a pruner may stop: their results are no others' results
MARKS = (6, 10, 13, 16)  # trials after which the best value so far is reported
SIZES = (1, 2, 4, 8, 16, 32, 64)  # numbers of random trials whose expected best is reported


def offer_auto(registry: Path) -> None:
    """Add AutoSampler to the samplers of this process."""
    module = importlib.import_module("optunahub").load_local_module(
        "samplers/auto_sampler", registry_root=str(registry / "package")
    )

    def auto(seed: int, space: spaces.Space) -> BaseSampler:
        return module.AutoSampler(seed=seed)

    samplers.SAMPLERS["auto"] = auto
    plan.SAMPLERS = (*plan.SAMPLERS, "auto")


def study(cell: Cell, sampler: str, seed: int, ledger: Ledger, trials: int = TRIALS) -> Study:
    """A search of a cell by one sampler (and pruner); the seed changes only which points are drawn, not how trials
    train.

    Draws are seeded from the first digits of the id, which the samplers of a cell and seed share: their first random
    points are equal, except those of `auto`, which derives another seed.
    """
    space = spaces.of_cell(cell, SOURCE)
    budget = Budget("search", trials, EPOCHS, 0, 0)
    name, _, pruner = sampler.partition("+")
    inputs = Inputs(data=f"{cell.dataset}, {DATA[cell.dataset][0]}{PRUNED if pruner else ''}")
    study = Study(cell, space, budget, Protocol(), Engine(name, pruner or "none"), inputs, ledger)
    vars(study)["id"] = digest([str(cell), seed])[:7] + digest([study.id, seed])[7:]
    return study


@dataclass(frozen=True)
class Data:
    """A prepared data set without its test events, and the arrays of its text."""

    split: Split
    arrays: dict[str, np.ndarray]

    @classmethod
    def of(cls, name: str, folder: Path, home: Path) -> Data:
        word = str(folder / name) if (folder / name).is_dir() else name
        whole = preparation.prepare(reader.open_dataset(word, home), DATA[name][1], home)
        return cls(splits.split(whole, Protocol()).sealed(), cases.text(whole, folder, home))

    def train(self, work: Trial, ledger: Ledger, prune: Callable[[int, float], bool]) -> TrialResult:
        """Train until the end or until `prune` of an epoch and its value."""
        curve: list[float] = []
        for value in self._values(work, ledger):
            curve.append(value)
            if prune(len(curve) - 1, value):
                return TrialResult("pruned", "", max(curve), int(np.argmax(curve)), curve)
        return TrialResult("done", "", max(curve), int(np.argmax(curve)), curve)

    def _values(self, work: Trial, ledger: Ledger) -> Iterator[float]:
        """Validation values by epoch: as recorded where the same configuration was trained without pruning."""
        twin = replace(work, inputs=replace(work.inputs, data=work.inputs.data.removesuffix(PRUNED)))
        if (recorded := ledger.result(twin.id)) is not None:
            yield from recorded.curve
            return
        training = trial.Training(work, self.split, trial.spectrum(self.arrays, self.split.n_items))
        while not training.over:
            training.epoch()
            yield training.curve[-1]


def search(grid: TrialQueue, ledger: Ledger, data: dict[str, Data]) -> None:
    """Train the trials of one search, one after another."""
    while (task := grid.next()) is not None:
        name = task.trial.id

        def prune(epoch: int, value: float, name: str = name, pruner: str = task.study.engine.pruner) -> bool:
            return pruner != "none" and grid.epoch(name, epoch, value)

        grid.ended(name, data[task.trial.cell.dataset].train(task.trial, ledger, prune))


def run(home: Path, folder: Path, names: list[str], seeds: int) -> None:
    """Search every cell with every sampler, seed by seed, skipping trials that the ledger already has."""
    torch.set_num_threads(1)
    data = {name: Data.of(name, folder, home) for name in DATA}
    segment = Segment(home)
    for seed in range(seeds):
        for cell in CELLS:
            for sampler in names:
                start, ledger = time.monotonic(), Ledger.open(home)
                search(TrialQueue([study(cell, sampler, seed, ledger)], segment, lambda event: None), ledger, data)
                print(f"seed {seed} {cell} {sampler}: {time.monotonic() - start:.0f} s", flush=True)


@dataclass(frozen=True)
class Searches:
    """The complete searches of one cell, of the seeds that every sampler of the comparison has completed.

    ``values``: (seeds, trials) per sampler, in the order in which trials were drawn; 0 for pruned trials, which cannot
    win. ``known``: values of all finished trials of the cell. ``epochs``: trained per search, by sampler.
    """

    cell: Cell
    seeds: list[int]
    values: dict[str, np.ndarray]
    known: np.ndarray
    epochs: dict[str, float]

    @classmethod
    def of(cls, cell: Cell, names: list[str], ledger: Ledger) -> Searches:
        ended = {name: [study(cell, name, seed, ledger).ended() for seed in range(SEEDS)] for name in names}
        seeds = [seed for seed in range(SEEDS) if all(len(ended[name][seed]) == TRIALS for name in names)]
        values, epochs = {}, {}
        for name in names:
            results = [ended[name][seed] for seed in seeds]
            values[name] = np.array([[r.best * (r.status == "done") for r in row] for row in results])
            epochs[name] = sum(len(r.curve) for row in results for r in row) / max(1, len(seeds))
        every = [r.best for rows in ended.values() for row in rows for r in row if r.status == "done"]
        return cls(cell, seeds, values, np.array(every), epochs)

    @property
    def name(self) -> str:
        return f"{self.cell.dataset}, {self.cell.adapter}"

    @property
    def axes(self) -> dict[str, Range | Choices]:
        return spaces.of_cell(self.cell, SOURCE).searched

    @property
    def conditional(self) -> int:
        return sum(axis.when is not None for axis in self.axes.values())

    def best(self, name: str) -> np.ndarray:
        """Best value so far, (seeds, trials)."""
        return np.maximum.accumulate(self.values[name], 1)

    def gain(self, name: str, other: str) -> np.ndarray:
        """Final value of a sampler minus another's by seed, in percent of the other's mean, (seeds,)."""
        mine, theirs = self.best(name)[:, -1], self.best(other)[:, -1]
        return 100 * (mine - theirs) / theirs.mean()

    @property
    def winner(self) -> str:
        return max(self.values, key=lambda name: self.best(name)[:, -1].mean())

    def share(self, k: int) -> float | None:
        """Expected best of k random trials as a share of the best known value; None if there are fewer than 2 k."""
        drawn = self.values["random"][:, 1:].ravel()  # without the default point
        return expected_best(drawn, k) / self.known.max() if 2 * k <= len(drawn) else None


def mean_and_error(values: np.ndarray) -> str:
    """Mean and its standard error, from independent values (seeds,)."""
    error = f"{values.std(ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else "?"
    return f"{values.mean():+.2f} ± {error}"


def draw_seconds(name: str, ledger: Ledger) -> tuple[list[float], Counter[str]]:
    """CPU seconds of each draw that follows the random ones, in the first search of every cell, and the samplers that
    `auto` chose for these draws."""
    seconds, chosen = [], Counter()
    for cell in CELLS:
        for number in range(STARTUP_TRIALS, TRIALS):
            search = StudySearch(study(cell, name, 0, ledger, trials=number))
            start = time.process_time()
            search._ask(number)
            seconds.append(time.process_time() - start)
            chosen[search._optuna.trials[-1].system_attrs.get("auto:sampler", "")] += 1
    return seconds, chosen


def references(names: list[str]) -> list[str]:
    """The searches that the others are compared with."""
    return [name for name in ("random", "tpe", "tpe+median") if name in names]


def overall(searches: list[Searches], names: list[str], ledger: Ledger) -> list[dict[str, object]]:
    """A row per sampler: gains over all cells, with the mean over cells of a seed as the independent value."""
    common = sorted(set.intersection(*({*cell.seeds} for cell in searches)))

    def gains(name: str, other: str) -> str:
        by_cell = [cell.gain(name, other)[[cell.seeds.index(seed) for seed in common]] for cell in searches]
        return "" if name == other else mean_and_error(np.mean(by_cell, 0))

    rows: list[dict[str, object]] = []
    for name in names:
        seconds, _ = draw_seconds(name, ledger)
        row: dict[str, object] = {"sampler": name, "seeds": len(common)}
        row |= {"cells won": f"{sum(cell.winner == name for cell in searches)} of {len(searches)}"}
        row |= {f"% over {other}": gains(name, other) for other in references(names)}
        row |= {"epochs a search": float(np.mean([cell.epochs[name] for cell in searches]))}
        row |= {"ms a draw, median": 1000 * statistics.median(seconds), "longest": 1000 * max(seconds)}
        rows.append(row)
    return rows


def by_cell(searches: list[Searches], names: list[str]) -> list[dict[str, object]]:
    """A row per cell and sampler: mean of the best value so far, and gains over the references."""
    rows: list[dict[str, object]] = []
    for cell in searches:
        for name in names:
            row: dict[str, object] = {"cell": cell.name, "sampler": name, "seeds": len(cell.seeds)}
            row |= {f"after {mark}": f"{cell.best(name)[:, mark - 1].mean():.4f}" for mark in MARKS}
            for other in references(names):
                row[f"% over {other}"] = "" if name == other else mean_and_error(cell.gain(name, other))
            rows.append(row)
    return rows


def dimensions(searches: list[Searches]) -> list[dict[str, object]]:
    """A row per cell: expected best of k random trials, and of the default point, as shares of the best known value."""
    rows: list[dict[str, object]] = []
    for cell in searches:
        shares = {k: cell.share(k) for k in SIZES}
        default = cell.values["random"][0, 0] / cell.known.max()
        row: dict[str, object] = {"cell": cell.name, "searched": len(cell.axes), "conditional": cell.conditional}
        row |= {"default": f"{default:.3f}"} | {f"k = {k}": f"{v:.3f}" if v else "" for k, v in shares.items()}
        row |= {"best known": f"{cell.known.max():.4f}", "trials": len(cell.known)}
        rows.append(row)
    return rows


def report(home: Path, names: list[str]) -> None:
    """Write the tables of the seeds that all samplers in `names` (with `random`) have completed."""
    ledger = Ledger.open(home)
    searches = [found for found in (Searches.of(cell, names, ledger) for cell in CELLS) if found.seeds]
    if len(searches) < len(CELLS):
        raise SystemExit(f"Only {len(searches)} of {len(CELLS)} cells have a seed that {', '.join(names)} completed.")
    counts = sorted({len(cell.seeds) for cell in searches})
    relative = {name: np.mean([cell.best(name).mean(0) / cell.known.max() for cell in searches], 0) for name in names}
    picture = _measure.HERE / "results" / "search-quality.svg"
    picture.write_text(svg(relative), encoding="utf-8")
    data = "; ".join(f"{name}, {words}" for name, (words, _) in DATA.items())
    how = (
        f"Six cells: SASRec with {', '.join(ADAPTERS)} on two data sets ({data}). The default spaces with "
        f"{', '.join(f'{k}={v}' for k, v in PINS.items())}, {EPOCHS} epochs per trial, training seed 0. "
        f"{TRIALS} trials per search, the first at the defaults; best validation NDCG@10 so far. A seed changes which "
        "points a sampler draws, not the result of a point. Every trial was trained. Searches of a cell and seed share "
        f"their {STARTUP_TRIALS - 1} random points (not `auto`), so gains are paired by seed (± standard error). "
        "`+median`: with the median pruner; a pruned trial counts as one of the trials and cannot win. "
        f"Complete seeds per cell: {' to '.join(map(str, counts))} of {SEEDS}. CPU seconds of a draw are measured "
        f"after {STARTUP_TRIALS} to {TRIALS - 1} trials."
    )
    parts = [
        how,
        "![mean over cells of the best value so far, as a share of the best known value](search-quality.svg)",
        _measure.table(overall(searches, names, ledger)),
        "By cell:",
        _measure.table(by_cell(searches, names)),
        "Equal trials and the number of dimensions: expected best of k random trials and the default point, as shares "
        "of the best value of any trial of the cell. That value is itself lower than the optimum, the more so the more "
        "dimensions there are.",
        _measure.table(dimensions(searches)),
    ]
    if "auto" in names:
        chosen = ", ".join(f"{name} {count}" for name, count in draw_seconds("auto", ledger)[1].items())
        parts.append(f"Samplers that `auto` chose for the timed draws: {chosen}.")
    _measure.write("search-quality", "Search quality at equal trials", *parts)


def svg(means: dict[str, np.ndarray], width: int = 640, height: int = 320) -> str:
    """Draw the mean best-so-far curves from the second trial on, with axes and names, as SVG."""
    low = min(curve[1] for curve in means.values())
    high = max(curve[-1] for curve in means.values())

    def at(number: int, value: float) -> str:
        x = 60 + (number - 1) / (TRIALS - 2) * (width - 140)
        return f"{x:.1f},{height - 40 - (value - low) / (high - low) * (height - 70):.1f}"

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for value in np.linspace(low, high, 5):
        x, y = at(1, value).split(",")
        parts.append(f'<line x1="{x}" x2="{width - 80}" y1="{y}" y2="{y}" stroke="#dddddd"/>')
        parts.append(f'<text x="{float(x) - 6}" y="{float(y) + 4}" font-size="11" text-anchor="end">{value:.4f}</text>')
    for number in range(2, TRIALS + 1, 3):
        x, y = at(number - 1, low).split(",")
        parts.append(f'<text x="{x}" y="{float(y) + 18}" font-size="11" text-anchor="middle">{number}</text>')
    parts.append(f'<text x="{width / 2}" y="{height - 6}" font-size="12" text-anchor="middle">trials</text>')
    for place, (name, curve) in enumerate(means.items()):
        colour, dash = COLOURS[name.partition("+")[0]], ' stroke-dasharray="5 3"' if "+" in name else ""
        points = " ".join(at(n, curve[n]) for n in range(1, TRIALS))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        parts.append(f'<text x="70" y="{24 + 15 * place}" font-size="12" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare samplers with random search on real cells")
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=cases.FOLDER)
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--samplers", default="")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds to run; a report has all that are complete")
    options = parser.parse_args()
    if options.registry:
        offer_auto(options.registry)
    names = options.samplers.split(",") if options.samplers else [*DEFAULT, *(["auto"] if options.registry else [])]
    if options.action == "report":
        return report(options.home, names)
    os.makedirs(options.home, exist_ok=True)
    return run(options.home, options.data, names, options.seeds)


if __name__ == "__main__":
    main()

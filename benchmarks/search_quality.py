"""Do model-based samplers find better configurations than random search in the same number of trials?

Every sampler searches six real cells (MovieLens-100K and Office; SASRec with `id`, `linear` and `spectran`) with ten
seeds, and every trial is trained: no surrogate and no lookup table. Short training of a narrow model takes a second or
two per trial; the spaces are the default ones.

    python benchmarks/search_quality.py run --home FOLDER --samplers tpe,random    (resumes if interrupted)
    python benchmarks/search_quality.py report --home FOLDER                       (from the searches that are complete)

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
from dataclasses import dataclass
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
from harness.search.plan import Study
from harness.search.studies import StudySearch, TrialQueue
from harness.stats.resampling import expected_best
from harness.training import trial
from harness.types import Budget, Cell, Engine, Inputs, PrepSpec, Protocol, Trial, TrialResult, digest

TRIALS, SEEDS, EPOCHS = 16, 10, 5
PINS = {"train.d": 16, "train.max_len": 20}
# short histories and a dense part of Office, for trials of a second or two
DATA = {
    "ml-100k": ("last 20 events", PrepSpec(max_history=20)),
    "amazon2014-office": ("10-core, last 20 events", PrepSpec(kcore=10, max_history=20)),
}
ADAPTERS = ("id", "linear", "spectran")
CELLS = [Cell(dataset, "file", "sasrec", adapter) for dataset in DATA for adapter in ADAPTERS]
COLOURS = {"random": "#777777", "tpe": "#1f77b4", "gp": "#d62728", "auto": "#9467bd", "cmaes": "#2ca02c"}
DEFAULT = ("random", "tpe", "gp")
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
    """A search of a cell by one sampler; the seed changes only which points are drawn, not how trials train.

    Draws are seeded from the first digits of the id, which the samplers of a cell and seed share: their first random
    points are equal, except those of `auto`, which derives another seed.
    """
    space = spaces.of_cell(cell, spaces.SpaceSource(fixed=PINS))
    budget = Budget("search", trials, EPOCHS, 0, 0)
    inputs = Inputs(data=f"{cell.dataset}, {DATA[cell.dataset][0]}")
    study = Study(cell, space, budget, Protocol(), Engine(sampler, "none"), inputs, ledger)
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

    def train(self, work: Trial) -> TrialResult:
        training = trial.Training(work, self.split, trial.spectrum(self.arrays, self.split.n_items))
        while not training.over:
            training.epoch()
        return TrialResult("done", "", max(training.curve), training.best_epoch, training.curve)


def run(home: Path, folder: Path, names: list[str]) -> None:
    """Search every cell with every sampler, seed by seed, skipping trials that the ledger already has."""
    torch.set_num_threads(1)
    data = {name: Data.of(name, folder, home) for name in DATA}
    segment = Segment(home)
    for seed in range(SEEDS):
        for cell in CELLS:
            for sampler in names:
                grid = TrialQueue([study(cell, sampler, seed, Ledger.open(home))], segment, lambda event: None)
                start = time.monotonic()
                while (task := grid.next()) is not None:
                    grid.ended(task.trial.id, data[cell.dataset].train(task.trial))
                print(f"seed {seed} {cell} {sampler}: {time.monotonic() - start:.0f} s", flush=True)


def report(home: Path) -> None:
    raise NotImplementedError


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare samplers with random search on real cells")
    parser.add_argument("action", choices=["run", "report"])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=cases.FOLDER)
    parser.add_argument("--registry", type=Path)
    parser.add_argument("--samplers", default="")
    options = parser.parse_args()
    if options.registry:
        offer_auto(options.registry)
    if options.action == "report":
        return report(options.home)
    os.makedirs(options.home, exist_ok=True)
    names = options.samplers.split(",") if options.samplers else [*DEFAULT, *(["auto"] if options.registry else [])]
    return run(options.home, options.data, names)


if __name__ == "__main__":
    main()

"""Do the epochs of budget `quick` suffice? Validation NDCG@10 by epoch as a share of its level at 20 epochs.

SASRec with `id` and with `spectran` at their defaults, on MovieLens-100K and Amazon Office, three seeds. The level is
the best validation value within 20 epochs; likewise, early stopping at a budget of e epochs reaches the best value
within e. A cell costs its search trials plus its seeds, in runs.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import cases
import numpy as np

from harness.data import splits
from harness.data.splits import Prepared
from harness.search import spaces
from harness.types import BUDGETS, NO_TEXT, Budget, Cell, Inputs, Protocol, Trial

DATASETS, ADAPTERS = ("ml-100k", "amazon2014-office"), ("id", "spectran")
SEEDS, LEVEL = (1, 2, 3), 20
EPOCHS = (4, 6, 8, 10, 15, LEVEL)
BEFORE = replace(BUDGETS["quick"], trials=3, epochs=4, patience=2)  # `quick` before ranks were recorded with ties


def curves(whole: Prepared, adapter: str, folder: Path, home: Path) -> tuple[np.ndarray, float]:
    """Validation NDCG@10 (seeds, epochs) at the default parameters, and CPU seconds per epoch."""
    split = splits.split(whole, Protocol()).sealed()
    cell = Cell(whole.name, NO_TEXT if adapter == "id" else "file", "sasrec", adapter)
    params = spaces.of_cell(cell, spaces.SpaceSource()).default
    arrays = {} if adapter == "id" else cases.text(whole, folder, home)
    values, start = [], time.process_time()
    for seed in SEEDS:
        training = cases.training(Trial(cell, "search", seed, LEVEL, 0, params, Protocol(), Inputs()), split, arrays)
        while not training.over:
            training.epoch()
        values.append(training.curve)
    return np.array(values), (time.process_time() - start) / len(SEEDS) / LEVEL


def row(name: str, adapter: str, values: np.ndarray, seconds: float) -> dict[str, object]:
    reached = {e: values[:, :e].max(1).mean() for e in EPOCHS}
    shares = {f"{e} epochs": f"{100 * reached[e] / reached[LEVEL]:.1f} %" for e in EPOCHS[:-1]}
    level = {f"level at {LEVEL}": f"{reached[LEVEL]:.4f}", "CPU s per epoch": seconds}
    return {"data": name, "adapter": adapter, **shares, **level}


def cost(budget: Budget) -> str:
    runs = budget.trials + budget.seeds
    return f"{runs} runs of up to {budget.epochs} epochs = {runs * budget.epochs} epochs per cell"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cases.FOLDER)
    folder = parser.parse_args().data
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in DATASETS:
            whole = cases.prepared(name, folder, Path(scratch))
            if whole is None:
                print(f"{name} is neither in {folder} nor built in; left out.")
                continue
            for adapter in ADAPTERS:
                rows.append(row(name, adapter, *curves(whole, adapter, folder, Path(scratch))))
    _measure.write(
        "quick",
        "Budget quick: default parameters after few epochs",
        f"Best validation NDCG@10 within e epochs as a share of the best within {LEVEL}, mean over {len(SEEDS)} seeds.",
        _measure.table(rows),
        f"Budget quick before: {cost(BEFORE)}. Now: {cost(BUDGETS['quick'])}, without a search.",
    )


if __name__ == "__main__":
    main()

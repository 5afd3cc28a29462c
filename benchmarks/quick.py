"""Do the epochs of budget `quick` suffice? Validation NDCG@10 by epoch as a share of its level at 20 epochs.

SASRec with `id` and with `spectran` on MovieLens-100K and Amazon Office, three seeds, at the defaults and with the
parameters that the budget sets. The level is the best validation value within 20 epochs at the defaults; likewise,
early stopping at a budget of e epochs reaches the best value within e. `quick` is the budget itself: its share of the
level at the end of its early stopping, and the epochs until then.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import tempfile
import time
from pathlib import Path

import cases
import numpy as np

from harness.data import splits
from harness.data.splits import Prepared
from harness.search import spaces
from harness.types import BUDGET_PARAMS, BUDGETS, NO_TEXT, Cell, Inputs, Params, Protocol, Trial

DATASETS, ADAPTERS = ("ml-100k", "amazon2014-office"), ("id", "spectran")
SEEDS, LEVEL = (1, 2, 3), 20
EPOCHS = (3, 4, 5, 6, 8, 10, 15, LEVEL)
QUICK = BUDGETS["quick"]
SIDES = {"defaults": {}, "of the budget": BUDGET_PARAMS["quick"]}


def curves(whole: Prepared, adapter: str, more: Params, folder: Path, home: Path) -> tuple[np.ndarray, float]:
    """Validation NDCG@10 (seeds, epochs) at the default parameters with `more`, and CPU seconds per epoch."""
    split = splits.split(whole, Protocol()).sealed()
    cell = Cell(whole.name, NO_TEXT if adapter == "id" else "file", "sasrec", adapter)
    params = spaces.of_cell(cell, spaces.SpaceSource()).default | more
    arrays = {} if adapter == "id" else cases.text(whole, folder, home)
    values, start = [], time.process_time()
    for seed in SEEDS:
        training = cases.training(Trial(cell, "search", seed, LEVEL, 0, params, Protocol(), Inputs()), split, arrays)
        while not training.over:
            training.epoch()
        values.append(training.curve)
    return np.array(values), (time.process_time() - start) / len(SEEDS) / LEVEL


def row(name: str, adapter: str, side: str, values: np.ndarray, level: float, seconds: float) -> dict[str, object]:
    shares = {f"{e} epochs": f"{100 * values[:, :e].max(1).mean() / level:.1f} %" for e in EPOCHS}
    ends = [stop(curve) for curve in values]
    reached = np.mean([curve[:end].max() for curve, end in zip(values, ends, strict=True)])
    quick = {"quick": f"{100 * reached / level:.1f} %", "epochs of quick": f"{np.mean(ends):.1f}"}
    cost = {"level at 20": f"{level:.4f}", "CPU s per epoch": seconds}
    return {"data": name, "adapter": adapter, "parameters": side, **shares, **quick, **cost}


def stop(curve: np.ndarray) -> int:
    """Epochs until the early stopping of the budget."""
    for end in range(1, QUICK.epochs):
        if end - 1 - int(curve[:end].argmax()) >= QUICK.patience:
            return end
    return QUICK.epochs


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
                found = {side: curves(whole, adapter, more, folder, Path(scratch)) for side, more in SIDES.items()}
                level = float(found["defaults"][0].max(1).mean())
                rows += [row(name, adapter, side, values, level, cpu) for side, (values, cpu) in found.items()]
    _measure.write(
        "quick",
        "Budget quick: default parameters after few epochs",
        f"Best validation NDCG@10 within e epochs as a share of the best within {LEVEL}, mean over {len(SEEDS)} seeds. "
        f"The budget sets {BUDGET_PARAMS['quick']}. Budget quick: {QUICK.seeds} runs of up to {QUICK.epochs} epochs, "
        f"patience {QUICK.patience}, without a search; before: 10 epochs at the defaults.",
        _measure.table(rows),
    )


if __name__ == "__main__":
    main()

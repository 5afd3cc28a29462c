"""Growth of the training cost with items, users, text dimension and history length, on synthetic data.

Costs are CPU microseconds per trained target in steady steps: forward, backward, clipping, optimiser; without
validation. A table's last row has the slopes: the exponent of the cost between its last two sizes, so 1 is linear.

`python benchmarks/growth.py [--large]`: `--large` measures instead a million items with texts of 4,096 components, from
embedding to ranks (half an hour, 33 GB in the temporary folder; `results/growth_large.md`).
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import basis
from _measure import table, write  # before torch: sets the threads

# isort: split

import numpy as np
import torch

from adapters._base import Spectrum
from harness.data.splits import Queries, Split
from harness.search import spaces
from harness.text import embeddings
from harness.training import batches, trial
from harness.training.batches import Windows
from harness.types import Cell, Inputs, Protocol, Trial

torch.set_num_threads(1)
D_TEXT = 128  # text dimension unless it is varied
BATCH = 1024
LARGE = (1_000_000, 4096)  # items and text dimension of the whole pipeline
QUERIES = 1_000  # users ranked there
SAMPLED = {"train.loss": "sampled_softmax"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    if parser.parse_args().large:
        with tempfile.TemporaryDirectory() as folder:
            parts = [_about_whole(), table(whole(*LARGE, Path(folder)))]
        write("growth_large", "Growth: a large catalogue", f"Load of the machine: {os.getloadavg()[0]:.0f}.", *parts)
        return
    setting = f"Batches of {BATCH:,} targets, d = 64, SASRec of two blocks, text of {D_TEXT} components."
    parts = [
        "## Items\n\nCPU microseconds per target. Full softmax grows with the catalogue. A sampled loss computes only "
        "the rows of its step; under `id` the optimiser still grows, since it updates every row of the table.",
        _growing([items(n) for n in (1_000, 10_000, 100_000, 1_000_000)]),
        "## Users\n\n10,000 items, histories of 2 to 40 events.",
        _growing([users(n) for n in (2_000, 20_000, 200_000)]),
        "## Text dimension\n\n12,101 items, full softmax: the whole table is computed once per step. Milliseconds per "
        "step beyond those of `id`.",
        _growing([dimension(D) for D in (384, 768, 1024, 2048, 4096)]),
        "## History length\n\n1,000 items; all histories fill the model's maximum length.",
        _growing([length(n) for n in (10, 25, 50, 100, 200)]),
    ]
    write("growth", "Growth", setting, *parts)


def _growing(rows: list[dict[str, float]]) -> str:
    """The table of costs, with their slopes between the last two sizes (the first column)."""
    size, last, before = next(iter(rows[0])), rows[-1], rows[-2]
    step = math.log(last[size] / before[size])
    slopes = {name: f"{math.log(last[name] / before[name]) / step:.2f}" for name in last if name != size}
    return table([*rows, {size: "slope"} | slopes])


def items(n: int) -> dict[str, float]:
    split = random_split(4_000 if n < 1_000_000 else 400, n, (2, 40))
    costs: dict[str, float] = {"items": n}
    for adapter in ("id", "spectran"):
        for loss, extra in (("softmax", {}), ("softmax", {"train.precision": "bfloat16"}), ("sampled_softmax", {})):
            name = f"{adapter}, {loss}{' bfloat16' if extra else ''}"
            costs[name] = cost(split, adapter, text(n, D_TEXT), **{"train.loss": loss}, **extra)
    return costs


def users(n: int) -> dict[str, float]:
    split = random_split(n, 10_000, (2, 40))
    start = time.process_time()
    windows = Windows.of(split, 50)
    cut = time.process_time() - start
    return {
        "users": n,
        "events": len(split.items),
        "µs per target": cost(split, "id", text(10_000, 1)),
        "cutting windows, ms": 1e3 * cut,
        "an epoch's batches without training, µs per target": order_cost(windows, split),
    }


def order_cost(windows: Windows, split: Split) -> float:
    """CPU microseconds per target of shuffling, sorting and gathering only."""
    flat = torch.tensor(split.items)
    start = time.process_time()
    for cut in windows.batches(BATCH, np.random.default_rng(0)):
        batches.gather(flat, *cut)
    return 1e6 * (time.process_time() - start) / (windows.lengths - 1).sum()


def dimension(D: int) -> dict[str, float]:
    split, spectrum = random_split(4_000, 12_101, (2, 40)), text(12_101, D)
    base = cost(split, "id", spectrum)
    rows = {name: 1e-3 * BATCH * (cost(split, name, spectrum) - base) for name in ("linear", "spectran", "mlp")}
    return {"D": D, "id, whole step": 1e-3 * BATCH * base} | rows


def length(n: int) -> dict[str, float]:
    split = random_split(400_000 // n // 4, 1_000, (n + 1, n + 2))
    costs = {b: cost(split, "id", text(1_000, 1), backbone=b, **{"train.max_len": n}) for b in ("sasrec", "gru4rec")}
    return {"length": n} | {f"{b}, µs per target": value for b, value in costs.items()}


def _about_whole() -> str:
    n, D = LARGE
    return (
        f"## {n:,} items, {D:,} components\n\nFrom a matrix on disk (float32, memory-mapped, {4e-9 * n * D:.0f} GB) to "
        f"ranks: `spectran`, `sampled_softmax`, one thread. Memory: the peak of anonymous memory; mapped files "
        "come on top as far as there is room."
    )


def whole(n: int, D: int, folder: Path) -> list[dict[str, object]]:
    """The steps from an embedding of n items with D components to the ranks of QUERIES users, each a row."""
    E = np.lib.format.open_memmap(folder / "E.npy", "w+", np.float32, (n, D))
    rng, scale = np.random.default_rng(0), np.geomspace(1, 1e-3, D, dtype=np.float32)
    for start in range(0, n, basis.BLOCK):
        rows = E[start : start + basis.BLOCK]
        rows[:] = rng.standard_normal(rows.shape, dtype=np.float32) * scale
    E.flush()
    split = random_split(20_000, n, (2, 40), valid=QUERIES)
    rows, kept = [], {}

    def step(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        kept[name], peak, cpu = basis.watched(call)
        rows.append({"step": name, "CPU s": cpu, "wall s": time.perf_counter() - start, "peak MB": peak / 2**20})

    step("basis", lambda: embeddings.basis(E, "whole", folder))
    found = kept["basis"]
    arrays = {"U": found.U, "S": found.S, "V": found.V, "mean": found.mean, "E": E}
    step("model and its first table", lambda: training_of(split, "spectran", trial.spectrum(arrays, n), **SAMPLED))
    made = kept["model and its first table"]
    steps = f"an epoch of {int((made.windows.lengths - 1).sum()):,} targets, without validation"
    step(steps, lambda: epoch(made))
    step(f"ranks of {QUERIES:,} users", lambda: made.ranks(split.valid))
    return rows


def epoch(training: trial.Training) -> None:
    training.model.train()
    generator = torch.Generator().manual_seed(0)
    for cut in training.windows.batches(BATCH, np.random.default_rng(0)):
        training.step(training.batch(*cut), generator)


def random_split(users: int, n: int, between: tuple[int, int], valid: int = 0) -> Split:
    """Random histories, all used for training; lengths are drawn from `between`. The last event of each of the first
    `valid` users is a query too."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(*between, size=users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    none = Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
    history = rng.integers(1, n + 1, size=offsets[-1]).astype(np.int32)
    queries = Queries(np.arange(valid, dtype=np.int32), lengths[:valid].astype(np.int64) - 1) if valid else none
    return Split(n, history, offsets, None, lengths, queries, none)


def text(n: int, D: int) -> Spectrum:
    """A random spectrum of the right shapes; the cost does not depend on its values."""
    U = torch.randn(n, D) / n**0.5
    return Spectrum(U, torch.linspace(1, 0.1, D), torch.eye(D), torch.zeros(D), U)


def cost(split: Split, adapter: str, spectrum: Spectrum, backbone: str = "sasrec", **params: object) -> float:
    """CPU microseconds per target: the median over steps without the first."""
    training = training_of(split, adapter, spectrum, backbone, **params)
    training.model.train()
    steps = 3 if split.n_items >= 1_000_000 else 12
    generator, seconds = torch.Generator().manual_seed(0), []
    for cut in islice(training.windows.batches(BATCH, np.random.default_rng(0)), steps):
        batch = training.batch(*cut)
        start = time.process_time()
        training.step(batch, generator)
        seconds.append((time.process_time() - start) / (cut[1] - 1).sum())
    return 1e6 * float(np.median(seconds[1:]))


def training_of(
    split: Split, adapter: str, spectrum: Spectrum, backbone: str = "sasrec", **params: object
) -> trial.Training:
    """A trial at the default point with `params`."""
    source = spaces.SpaceSource(fixed={"train.loss": params.get("train.loss", "softmax"), "train.batch_size": BATCH})
    cell = Cell("random", "random", backbone, adapter)
    point = spaces.of_cell(cell, source).default
    point = {name: "none" if name == "text.fusion" else value for name, value in point.items()} | params
    return trial.Training(Trial(cell, "search", 0, 1, 0, point, Protocol(), Inputs()), split, spectrum)


if __name__ == "__main__":
    main()

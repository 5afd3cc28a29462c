"""Cost of a training step with each adapter and each backbone, compared with a model of its matrix products.

Amazon Beauty's catalogue (12,101 items) and MiniLM vectors (noise of the same width without the data), d 64, 1,024
targets a step, full softmax, one thread, default parameters without fusion. Adapters are measured under SASRec, and
their cost is the time they add to `id`; backbones are measured with `id`. The model counts multiply-adds of the
adapter's products, forward and backward (frozen inputs get no gradient); its time uses the machine's best rate for such
a product, measured in the same run.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cases
import numpy as np
import torch

from harness import registry
from harness.data import splits
from harness.data.splits import Split
from harness.types import Protocol

DATASET = "amazon2014-beauty"
BATCH, STEPS, ROUNDS = 1024, 6, 3


class Sizes:
    """Letters of the cost model: N items, D text dimension, r rank, d model dimension, d_k of SpecTran, E experts,
    h hidden units, m items per step, k components before the experts."""

    def __init__(self, n: int, width: int, rank: int, items: int) -> None:
        self.N, self.D, self.r, self.d, self.m = n, width, rank, 64, items
        self.d_k, self.E, self.h, self.k = 128, 8, 256, 256


def two_layers(s: Sizes, hidden: float) -> float:
    return s.N * (s.D + s.d) * hidden + s.N * (s.D + 2 * s.d) * hidden


def spectran(s: Sizes) -> float:
    return 2 * s.N * s.r * s.d + 3 * s.d * s.r * s.d_k


MODEL: dict[str, Callable[[Sizes], float]] = {  # multiply-adds of a step, forward and backward
    "linear": lambda s: 2 * s.N * s.D * s.d,
    "linear_whiten": lambda s: 2 * s.N * s.r * s.d,
    "linear2": lambda s: 2 * s.N * s.D * s.d + 3 * s.D * (s.D / 2) * s.d,  # the two matrices are multiplied first
    "mlp": lambda s: two_layers(s, s.h),
    "whitenrec": lambda s: two_layers(s, s.h),
    "whitenrec_plus": lambda s: 2 * two_layers(s, s.h),
    "unisrec_moe": lambda s: 2 * s.E * s.N * s.D * s.d + 4 * s.N * s.D * s.E,
    "pca_moe": lambda s: 2 * s.E * s.N * s.k * s.d + 4 * s.N * s.k * s.E,
    "pca": lambda s: two_layers(s, s.h) + 3 * s.D * s.h * s.h,  # its first two matrices are multiplied first
    "rlmrec_con": lambda s: 2 * s.m * (s.D + s.d) * (s.D + s.d) / 2 + 3 * s.m * s.m * s.d,
    "rlmrec_gen": lambda s: 0.1 * BATCH * 3 * (s.D + s.d) * (s.D + s.d) / 2,
    "llmemb": lambda s: two_layers(s, s.D / 2) + two_layers(s, s.D / 2) * s.m / s.N + 4 * s.m * s.m * s.d,
    "llmesr": lambda s: two_layers(s, s.D / 2) + 3 * BATCH * s.N * s.d,  # and twice the width of the logits
    "faerec": lambda s: two_layers(s, s.D / 2) + 3 * s.N * 2 * s.d * 3 * s.d + 2 * 3 * s.m * s.m * s.d,
    "tedrec": lambda s: 2 * s.E * s.N * s.D * s.d + 4 * s.N * s.D * s.E,
    "spectran": spectran,
    **dict.fromkeys(
        ("spectran_wo_pos", "spectran_dense", "spectran_softmax", "spectran_text", "spectran_us"), spectran
    ),
    "spectran_wo_attn": lambda s: 2 * s.N * s.r * s.d,
    **dict.fromkeys(("id", "svd", "svd_whiten", "alphafuse", "llminit", "ace", "pq"), lambda s: 0.0),
}


class Side:
    """The model of a cell; a call runs `STEPS` steps and returns the CPU milliseconds of each."""

    def __init__(self, split: Split, arrays: dict[str, np.ndarray], adapter: str, backbone: str) -> None:
        attributes = registry.schema(registry.ADAPTERS, adapter).attributes
        reads, fuses = attributes.get("uses_text", True), attributes.get("fuses", False)
        params = {"train.batch_size": BATCH} | ({"text.fusion": "none"} if reads and not fuses else {})
        trial = cases.make_trial(DATASET, adapter, backbone, params)
        self.training = cases.training(trial, split, arrays if reads else {})
        self.training.model.train()
        self.generator = torch.Generator().manual_seed(0)
        self.parameters = sum(p.numel() for p in self.training.model.parameters() if p.requires_grad)

    def __call__(self) -> list[float]:
        milliseconds = []
        for starts, lengths in islice(self.training.windows.batches(BATCH, np.random.default_rng(0)), STEPS):
            batch = self.training.batch(starts, lengths)
            begin = time.process_time()
            self.training.step(batch, self.generator)
            milliseconds.append(1e3 * (time.process_time() - begin))
        return milliseconds


def measure(sides: dict[str, Side]) -> dict[str, float]:
    """Median milliseconds per step of each side; sides alternate after one untimed call each."""
    for side in sides.values():
        side()
    steps: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            steps[name] += side()
    return {name: statistics.median(values) for name, values in steps.items()}


def rate(s: Sizes) -> float:
    """Multiply-adds per millisecond of the linear adapter's product, best of several runs."""
    X, W = torch.randn(s.N, s.D), torch.randn(s.D, s.d)
    best = min(_measure.cpu_seconds(lambda: X @ W, repeats=3)[0] for _ in range(3))
    return s.N * s.D * s.d / best / 1e3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        whole = cases.prepared(DATASET, cases.FOLDER, home)
        if whole is None:
            raise SystemExit(f"{DATASET} is not in {cases.FOLDER}")
        split, arrays = splits.split(whole, Protocol()), cases.text(whole, cases.FOLDER, home)
        sizes = Sizes(split.n_items, arrays["E"].shape[1], arrays["U"].shape[1], items=600)
        each = rate(sizes)
        parts = [adapters(split, arrays, sizes, each), backbones(split, arrays)]
        about = (
            f"{sizes.N:,} items, text {sizes.D} wide of rank {sizes.r}, d {sizes.d}, {BATCH} targets a step. The "
            f"product behind the model's times, X W of (N, D) and (D, d), ran at {2 * each / 1e6:.0f} GFLOP/s."
        )
        _measure.write("components", "Cost of a step with each adapter and backbone", about, *parts)


def adapters(split: Split, arrays: dict[str, np.ndarray], sizes: Sizes, each: float) -> str:
    names = registry.names(registry.ADAPTERS)
    sides = {name: Side(split, arrays, name, "sasrec") for name in names}
    medians = measure(sides)
    rows = [
        {
            "adapter": name,
            "trained parameters": sides[name].parameters,
            "step, ms": medians[name],
            "over id, ms": medians[name] - medians["id"],
            "model, M multiply-adds": MODEL[name](sizes) / 1e6 if name in MODEL else "–",
            "model, ms": MODEL[name](sizes) / each if name in MODEL else "–",
        }
        for name in sorted(names, key=lambda name: medians[name])
    ]
    return "## Adapters, under SASRec\n\n" + _measure.table(rows)


def backbones(split: Split, arrays: dict[str, np.ndarray]) -> str:
    names = registry.names(registry.BACKBONES)
    sides = {name: Side(split, arrays, "id", name) for name in names}
    medians = measure(sides)
    rows = [
        {
            "backbone": name,
            "trained parameters": sides[name].parameters,
            "step, ms": medians[name],
            "over sasrec": medians[name] / medians["sasrec"],
        }
        for name in sorted(names, key=lambda name: medians[name])
    ]
    return "## Backbones, with the ID embedding\n\n" + _measure.table(rows)


if __name__ == "__main__":
    main()

"""The card: equality with the CPU, targets per second, softmax heads, compiled backbones, trials side by side.

Synthetic data in the shape of Amazon Beauty, MovieLens-1M and a catalogue of a million items. Needs torch, numpy,
polars, safetensors and scipy, no Ray and no network. Every section has a time budget and reports what it left out;
the whole run takes under 8 minutes.

`python benchmarks/gpu.py [--out FOLDER]`; `--device cpu --small --out FOLDER` runs everything at a tiny size.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any

from _measure import table, write  # before torch: sets the threads

# isort: split

import _heads
import _parity
import growth
import numpy as np
import torch
from _card import PRECISIONS, Settings, attempt, left_out, precise

from adapters._base import Spectrum
from harness.data.splits import Split
from harness.search import spaces
from harness.training import schedules, trial
from harness.types import Cell, Inputs, Protocol, Trial

BATCHES = (1024, 4096, 16384)  # targets a step
HEADS = [(1024, 12_101, 64), (4096, 12_101, 64), (4096, 3_416, 64), (16384, 12_101, 64), (256, 1_000_000, 64)]
TRIALS = (1, 2, 4, 8)
WARM_UP = 5  # untimed steps
CAPTURES = 100  # untimed steps of a compiled backbone: every size of a batch is captured once


@dataclass(frozen=True)
class Case:
    """A data set's shape and the components trained on it."""

    name: str
    users: int
    items: int
    lengths: tuple[int, int]
    adapter: str = "id"
    loss: str = "softmax"
    max_len: int = 50


CASES = (
    Case("Beauty, id", 22_363, 12_101, (3, 15)),
    Case("Beauty, spectran", 22_363, 12_101, (3, 15), adapter="spectran"),
    Case("ml-1m, id", 6_040, 3_416, (20, 310), max_len=200),
    Case("1 M items, spectran, sampled", 20_000, 1_000_000, (2, 40), adapter="spectran", loss="sampled_softmax"),
    Case("1 M items, spectran, softmax", 20_000, 1_000_000, (2, 40), adapter="spectran"),
)
TINY = (
    Case("tiny, id", 40, 60, (3, 15)),
    Case("tiny, linear, sampled", 40, 60, (3, 15), adapter="linear", loss="sampled_softmax"),
)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: check that the benchmark runs")
    parser.add_argument("--out", type=Path, help="write gpu.md in this folder instead of benchmarks/results")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("torch finds no CUDA device; to check the benchmark, use --device cpu --small --out FOLDER")
    if options.device == "cpu" and not options.out and options.child is None:
        parser.error("--device cpu needs --out FOLDER: results/gpu.md is for a card only")
    settings = Settings(torch.device(options.device), options.small)
    precise("float32")
    if options.child is not None:
        child(settings, options.child)
        return
    sections = (parity, speed, head, compiled, side_by_side)
    write("gpu", "The card", about(settings), *(part for s in sections for part in s(settings)), folder=options.out)


def about(settings: Settings) -> str:
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    if settings.device.type != "cuda":
        return f"No card: run on the {settings.device.type}, {versions}. The figures only show that the benchmark runs."
    card = torch.cuda.get_device_properties(settings.device)
    return (
        f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {versions}. Medians or means of wall time with the device "
        "waited for at both ends. TF32 is float32 with `torch.set_float32_matmul_precision('high')`."
    )


# Equality with the CPU


def parity(settings: Settings) -> list[str]:
    chosen = _parity.combinations()
    rows = _parity.compare(settings.device, settings.budgets["parity"], chosen)
    failed, refused = _parity.failures(rows), sum("refused" in row for row in rows)
    text = (
        f"## Equality with the CPU\n\nLoss and gradients of one step, float32 without TF32, random numbers drawn on "
        f"the CPU for both. {len(rows):,} of {len(chosen):,} combinations of adapter, backbone and loss in the time; "
        f"{len(chosen) - len(rows):,} left out; {refused} cannot be built; {len(failed)} fail. "
        f"Tolerances: {_parity.LOSS_TOLERANCE:g} for the "
        f"loss, {_parity.GRADIENT_TOLERANCE:g} for the gradient of each parameter (L2 norm of the difference over that "
        f"of the CPU's gradient, or over {_parity.NEGLIGIBLE:g} of the whole gradient's, whichever is larger). The "
        "worst differences by component:"
    )
    parts = [text, table(_worst_of(rows))]
    if failed:
        columns = ("adapter", "backbone", "loss", "loss difference", "gradient difference", "error")
        parts += ["Failed (at most 60 shown):", table([{c: row.get(c, "") for c in columns} for row in failed[:60]])]
    return parts


def _worst_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a component with the largest differences among its combinations."""
    worst = []
    for kind in ("adapter", "backbone", "loss"):
        for name in sorted({row[kind] for row in rows}):
            mine = [row for row in rows if row[kind] == name]
            ran = [row for row in mine if "loss difference" in row]
            most = {
                column: f"{max(row[column] for row in ran):.0e}" if ran else "–"
                for column in ("loss difference", "gradient difference")
            }
            errors, failed = sum("error" in row for row in mine), len(_parity.failures(mine))
            worst.append({"component": f"{kind} {name}", "steps": len(ran), "errors": errors, "failed": failed} | most)
    return worst


# Targets per second


def speed(settings: Settings) -> list[str]:
    cases, sizes = (TINY, (64,)) if settings.small else (CASES, BATCHES)
    left, rows, end = [], [], time.monotonic() + settings.budgets["speed"]
    for size, precision, case in product(sizes, PRECISIONS, cases):
        name = f"{case.name}, {size:,}, {precision}"
        if time.monotonic() > end:
            left.append(name)
            continue
        row = {"case": case.name, "batch": size, "precision": precision}
        rows.append(row | attempt(lambda c=case, s=size, p=precision: rate(settings, c, s, p), RATE))
    precise("float32")
    text = (
        "## Targets per second\n\nSASRec of two blocks, d = 64, training steps without validation. `host` is the share "
        "of the time until the host has queued all steps: near 100 %, launches or waits on the host bound the rate, "
        "not the card. `peak MB` is the allocator's peak, with data and model. " + left_out(left)
    )
    return [text, table(rows)]


RATE = ("targets/s", "ms per step", "host", "peak MB")


def rate(
    settings: Settings, case: Case, size: int, precision: str, mode: str = "none", warm_up: int = WARM_UP
) -> dict[str, object]:
    """Targets per second of training steps, and the peak memory. mode: `train.compile`."""
    precise(precision)
    cuda = settings.device.type == "cuda"
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(settings.device)
    steps = Steps(settings.device, case, size, precision, mode)
    for _ in range(warm_up):
        steps.take()
    settings.wait()
    targets, count, start = 0, 0, time.perf_counter()
    while time.perf_counter() - start < settings.stretch:
        targets, count = targets + steps.take(), count + 1
    queued = time.perf_counter() - start
    settings.wait()
    seconds = time.perf_counter() - start
    peak = f"{torch.cuda.max_memory_allocated(settings.device) / 2**20:,.0f}" if cuda else "–"
    values = (targets / seconds, 1e3 * seconds / count, f"{queued / seconds:.0%}", peak)
    return dict(zip(RATE, values, strict=True))


class Steps:
    """An endless run of training steps of a case."""

    def __init__(self, device: torch.device, case: Case, size: int, precision: str, mode: str = "none") -> None:
        self.training = training_of(device, case, size, precision, mode)
        self.training.model.train()
        self.generator = torch.Generator(device).manual_seed(0)
        self.cuts = self._cuts(size)

    def _cuts(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in cycle([0]):
            yield from self.training.windows.batches(size, rng)

    def take(self) -> int:
        """Take a step; return its targets."""
        starts, lengths = next(self.cuts)
        self.training.step(self.training.batch(starts, lengths), self.generator)
        return int(lengths.sum()) - len(lengths)


@cache
def data(case: Case) -> tuple[Split, Spectrum]:
    split = growth.random_split(case.users, case.items, case.lengths)
    return split, growth.text(case.items, min(128, case.items))


def training_of(device: torch.device, case: Case, size: int, precision: str, mode: str) -> trial.Training:
    cell = Cell("random", "random", "sasrec", case.adapter)
    fixed = {"train.loss": case.loss, "train.compile": mode}
    point = spaces.of_cell(cell, spaces.SpaceSource(fixed=fixed)).default
    point = {name: "none" if name == "text.fusion" else value for name, value in point.items()}
    point |= {"train.max_len": case.max_len, "train.batch_size": size}
    point |= {"train.precision": "bfloat16" if precision == "bfloat16" else "float32"}
    spec = Trial(cell, "search", 0, 1, 0, point, Protocol(), Inputs())
    return trial.Training(spec, *data(case), str(device))


# Softmax heads


def head(settings: Settings) -> list[str]:
    shapes = [(64, 100, 16)] if settings.small else HEADS
    rows, left, end = [], [], time.monotonic() + settings.budgets["head"]
    for (P, N, d), precision in product(shapes, PRECISIONS):
        if time.monotonic() > end:
            left.append(f"{P:,} x {N:,}, {precision}")
            continue
        row = {"positions": P, "items": N, "d": d, "precision": precision}
        rows.append(row | _heads.row(settings, P, N, d, precision))
    precise("float32")
    text = (
        "## Softmax heads\n\nMilliseconds, forward and backward. `products`: the three products of a step at the rate "
        "of a square product of the same precision, which no head can beat. `ours`: the fused loss by logits per block "
        "(`BLOCK_ELEMENTS` in harness/training/losses/_fused.py). Others get bfloat16 by autocast or cast. "
        + left_out(left)
    )
    return [text, table(rows)]


# Compiled backbones


def compiled(settings: Settings) -> list[str]:
    case, size = (TINY[0], 64) if settings.small else (CASES[0], BATCHES[0])
    rows, left, end = [], [], time.monotonic() + settings.budgets["compiled"]
    for mode in schedules.COMPILED:
        if time.monotonic() > end:
            left.append(mode)
            continue
        warm_up, start = CAPTURES if mode != "none" and not settings.small else WARM_UP, time.monotonic()
        row = attempt(lambda m=mode, w=warm_up: rate(settings, case, size, "TF32", m, w), RATE)
        whole = time.monotonic() - start - settings.stretch
        rows.append({"train.compile": mode, "first steps": warm_up, "their seconds": f"{whole:.1f}"} | row)
    precise("float32")
    text = (
        f"## Compiled backbones\n\n`{case.name}`, {size:,} targets a step, TF32. `their seconds`: until the measured "
        "steps begin, with building the model and compiling it. " + left_out(left)
    )
    return [text, table(rows)]


# Trials side by side


def side_by_side(settings: Settings) -> list[str]:
    rows, left, end = [], [], time.monotonic() + settings.budgets["side"]
    for count in TRIALS[:2] if settings.small else TRIALS:
        if time.monotonic() > end:
            left.append(f"{count} trials")
            continue
        together = attempt(lambda n=count: {"targets/s together": abreast(settings, n)}, ("targets/s together",))
        rows.append({"trials": count} | together)
    text = (
        f"## Trials side by side\n\nProcesses that train `{_side_case(settings).name}` on one device at the same time, "
        f"{'with' if mps() else 'without'} the multi-process service (MPS). " + left_out(left)
    )
    return [text, table(rows)]


def mps() -> bool:
    """Whether a control daemon of MPS runs."""
    folder = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")
    return (Path(folder) / "control").exists()


def _side_case(settings: Settings) -> Case:
    return (TINY if settings.small else CASES)[0]


def abreast(settings: Settings, count: int) -> float:
    """Targets per second of `count` processes together. Raises RuntimeError if one of them fails."""
    seconds = "0.5" if settings.small else "4"
    command = [sys.executable, __file__, "--device", str(settings.device), "--child", seconds]
    command += ["--small"] if settings.small else []
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(count)]
    try:
        for process in children:  # all are ready before any is timed
            assert process.stdout is not None
            process.stdout.readline()
        for process in children:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [process.communicate(timeout=60)[0] for process in children]
        if any(process.returncode for process in children):
            raise RuntimeError("a process failed; its error is on stderr")
        return sum(float(text) for text in results)
    finally:
        for process in children:
            process.kill()
            process.wait()


def child(settings: Settings, seconds: float) -> None:
    """Warm up, wait for a line, train for `seconds`, print the targets per second."""
    steps = Steps(settings.device, _side_case(settings), 64 if settings.small else 1024, "float32")
    for _ in range(WARM_UP):
        steps.take()
    settings.wait()
    print("ready", flush=True)
    sys.stdin.readline()
    targets, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        targets += steps.take()
    settings.wait()
    print(targets / (time.perf_counter() - start), flush=True)


if __name__ == "__main__":
    main()

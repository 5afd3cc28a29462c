"""Homes with real trials, made in this process: a grid run to its end without Ray, in seconds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import bench_words, harness

from harness.data import splits
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import plan, spaces
from harness.search.plan import Plan, Request
from harness.search.studies import TrialQueue
from harness.training import ensemble, trial
from harness.types import Budget, PrepSpec, Trial, TrialResult
from harness.workflows import provenance, run_bench, shared_data

SMALL = {"train.d": 16, "train.max_len": 8, "train.batch_size": 96}
BUDGET = Budget("made", trials=1, epochs=2, patience=2, seeds=2)


def request(home: Path, dataset: Path, adapters: str, **own: Any) -> Request:
    defaults = {"encoders": "noise", "budget": BUDGET, "prep": PrepSpec(kcore=0)}
    defaults["spaces"] = spaces.SpaceSource(fixed=own.pop("pins", SMALL))
    return Request(home=home, datasets=str(dataset), adapters=adapters, **(defaults | own))


def bench(home: Path, dataset: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the bench of `command_line.bench` in this process, on the CPU and without Ray, in a tenth of the time.

    For tests that need only a finished home, or the undisturbed one with which a bench on Ray (`--gpu 0`) is compared.
    """
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_bench, "_search", lambda grid, bases, *_: (train(grid, bases), False))
        done = harness(home, *bench_words(dataset, "--tracking", "off", *words))
    assert done.returncode == 0, done.stderr
    return done


def run(made: Request, fails: Callable[[Trial], bool] = lambda _: False) -> Plan:
    """The whole grid of a request, one trial after the other, into its home's ledger and artifacts.

    fails: whether a trial is made to fail.
    """
    grid = plan.make(made, Ledger.open(made.home))
    train(grid, shared_data.prepare(grid), fails)
    return grid


def train(grid: Plan, bases: shared_data.Bases, fails: Callable[[Trial], bool] = lambda _: False) -> int:
    """Run the pending trials of a grid and return their number. Nothing is pruned: epochs are not reported."""
    home, ran, segment = grid.request.home, 0, Segment(grid.request.home)
    grid.studies[0].ledger.take(
        segment.run,
        segment.append("launched", **provenance.launch(grid, {"slots": 1, "threads": 1, "gpu": 0.0}).to_json()),
    )
    engine = TrialQueue(grid.pending, segment, lambda _: None)
    while (assignment := engine.next()) is not None:
        own, encoded = assignment.trial, grid.encoded_datasets[assignment.study.cell.dataset]
        split = splits.split(encoded.prepared, own.protocol)
        key = own.inputs.embedding
        spectrum = trial.spectrum(shared_data.arrays(*bases[key]) if key else {}, split.n_items)
        ran += 1
        if fails(own):
            engine.ended(own.id, TrialResult("failed", "made to fail"))
            continue
        if own.cell.is_ensemble:
            weights = [artifacts.load_weights(home, part) for part in own.inputs.parts]
            parts = [(ensemble.trial_of(part), part) for part in weights if part is not None]
            result, left = ensemble.run(own, parts, split, ensemble.text_of(spectrum))
        else:
            result, left = trial.run(own, split if own.role == "confirm" else split.sealed(), spectrum)
        artifacts.save_artifacts(
            home, own.id, users=left.users, ranks=left.ranks, spectra=left.spectra, weights=left.weights
        )
        engine.ended(own.id, result)
    grid.studies[0].ledger.take(segment.run, segment.append("finished", ran=ran))
    segment.close()
    return ran


def matrix(path: Path, items: int, D: int = 24) -> Path:
    """A text matrix for the encoder `file:`, of full rank."""
    np.save(path, np.random.default_rng(5).normal(size=(items, D)).astype(np.float32))
    return path


def snapshot(home: Path) -> dict[str, bytes]:
    """Every file of a home but its caches."""
    files = [path for path in home.rglob("*") if path.is_file() and "cache" not in path.relative_to(home).parts]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}

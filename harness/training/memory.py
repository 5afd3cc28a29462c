"""GPU memory of trials, measured on a GPU by a few steps of each."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from harness.data.splits import Queries, Split
from harness.training import ranking, trial
from harness.types import Json, Trial

MB = 2**20


@dataclass(frozen=True)
class Probe:
    """A cell to measure: trials at its default and at other points of its space, and the keys of its split and
    spectrum in the data that is sent along. spectrum: "" for a cell without text."""

    trials: tuple[Trial, ...]
    split: tuple[str, str, int]
    spectrum: str


def measure(probes: Sequence[Probe], data: Json) -> tuple[list[float], float]:
    """Return the peak memory of each probe's tensors and the memory that the process takes beside them, MB.

    data: `splits`, `spectra` and `sizes` of the probes, as in `SharedData`. The second number is right if no other
    process uses the GPU, else too large. Raises RuntimeError without a GPU, and what the trials raise.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("no CUDA device")
    peaks = [_peak(probe, data) for probe in probes]
    torch.mm(torch.ones(2, 2, device="cuda"), torch.ones(2, 2, device="cuda"))  # loads its library if no probe did
    free, total = torch.cuda.mem_get_info()
    return peaks, (total - free - torch.cuda.memory_reserved()) / MB


def smallest_card() -> float:
    """Return the memory of the smallest GPU that this process sees, MB. Raises RuntimeError without a GPU."""
    cards = [torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())]
    if not cards:
        raise RuntimeError("no CUDA device")
    return min(cards) / MB


def without_cuda() -> str:
    """Return "" if this process can use a GPU, else the version of PyTorch that cannot."""
    return "" if torch.cuda.is_available() else f"torch {torch.__version__}"


def _peak(probe: Probe, data: Json) -> float:
    split = data["splits"][probe.split]
    arrays = data["spectra"][probe.spectrum] if probe.spectrum else {}
    spectrum = trial.spectrum(arrays, data["sizes"][probe.trials[0].inputs.data])
    first, *others = probe.trials
    peaks = [peak(first, split, spectrum)]
    for one in others:
        with contextlib.suppress(ValueError):  # these values together build no model
            peaks.append(peak(one, split, spectrum))
    return max(peaks)


def peak(work: Trial, split: Split, spectrum: Any, device: str = "cuda", cuda: Any = torch.cuda) -> float:
    """Return the peak memory of a trial's tensors, MB: two steps on the largest batch of an epoch, since the first
    creates the moments of the optimiser, validation on one block of queries, and the end of the trial. cuda: reads the
    peak."""
    cuda.empty_cache()
    cuda.reset_peak_memory_stats()
    block = Queries(*(values[: ranking.QUERIES] for values in (split.valid.users, split.valid.ends)))
    training = trial.Training(work, replace(split, valid=block), spectrum, device)
    batches = training.windows.batches(training.train["batch_size"], np.random.default_rng(0))
    largest = max(batches, key=lambda batch: len(batch[0]) * int(batch[1].max()))
    training.model.train()
    for step in range(2):
        training.step(training.batch(*largest), torch.Generator(device).manual_seed(step))
    training.validate()
    training.finish()
    return cuda.max_memory_allocated() / MB

"""Training steps that never wait for a CUDA device, checked by the operations that they call on the CPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_splits import a_split, random_histories
from small_trials import a_trial, spectrum_of
from torch.utils._python_dispatch import TorchDispatchMode

from harness import registry
from harness.training import batches, trial
from harness.training.model import Batch

DRAWN = ("bert4rec", "bsarec", "fmlp")  # their trained positions are random or depend on the history's length


class Waits(TorchDispatchMode):
    """Collects the operations for which a host would wait for a CUDA device."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_", "index_put") and any(
            x is not None and x.dtype in (torch.bool, torch.uint8) for x in args[1]
        )
        if by_mask or name in ("nonzero", "masked_select", "_local_scalar_dense"):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def a_model_and_batch(backbone, places):
    split, _ = a_split(random_histories(8, 20), 20)
    split = replace(split, times=np.arange(len(split.items), dtype=np.int64))
    spec = a_trial(backbone=backbone)
    model = trial.build(spec, split, spectrum_of(split)).train()
    lengths = np.array([3, 6, 2])
    items = batches.gather(torch.arange(1, 12), np.array([0, 3, 9]), lengths)
    at = torch.from_numpy(batches.target_places(lengths)) if places else None
    times = items if model.backbone.uses_time else None
    return model, Batch(items, torch.zeros(3, dtype=torch.int64), times, places=at)


@pytest.mark.parametrize("backbone", [b for b in registry.names(registry.BACKBONES) if b not in DRAWN])
def test_a_softmax_step_reads_no_value_from_the_device(backbone):
    model, batch = a_model_and_batch(backbone, places=True)
    with Waits() as waits:
        model.loss(batch, torch.Generator()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    # the head reads its bound once, on a CPU only (`bounded` in losses/_fused.py)
    assert waits.found == ["_local_scalar_dense"]


def test_without_places_from_the_host_a_step_waits_once_more():
    model, batch = a_model_and_batch("sasrec", places=False)
    with Waits() as waits:
        model.loss(batch, torch.Generator())
    assert sorted(waits.found) == ["_local_scalar_dense", "nonzero"]


@pytest.mark.parametrize("seed", range(3))
def test_places_are_those_of_the_real_targets(seed):
    lengths = np.random.default_rng(seed).integers(2, 9, 7)
    flat = torch.arange(1, lengths.sum() + 1)
    items = batches.gather(flat, np.cumsum(lengths) - lengths, lengths)
    expected = (items[:, 1:] > 0).flatten().nonzero().squeeze(1)
    assert batches.target_places(lengths).tolist() == expected.tolist()

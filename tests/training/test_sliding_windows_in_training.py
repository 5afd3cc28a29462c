"""No event after a fold's cut changes a weight of the models of that fold."""

from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from small_trials import a_trial, spectrum_of

from harness.data import splits
from harness.training import trial
from harness.types import Protocol

WINDOWS = Protocol("windows", quantile=0.7, folds=2)


def weights(split):
    _, artifacts = trial.run(a_trial("linear", epochs=2), split, spectrum_of(split))
    return safetensors.torch.load(artifacts.weights)


@pytest.mark.parametrize("fold", [0, 1])
def test_events_after_the_cut_of_a_fold_change_no_weight(prepared, fold):
    protocol = replace(WINDOWS, fold=fold)
    late = np.asarray(prepared.times) > splits.cuts(prepared, protocol, prepared.times)[fold]
    n = prepared.catalogue.height
    other = replace(prepared, items=np.where(late, prepared.items % n + 1, prepared.items).astype(np.int32))
    before, after = (splits.split(data, protocol) for data in (prepared, other))
    first, second = weights(before), weights(after)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_events_before_the_cut_do(prepared):
    n = prepared.catalogue.height
    other = replace(prepared, items=(np.asarray(prepared.items) % n + 1).astype(np.int32))
    first, second = (weights(splits.split(data, WINDOWS)) for data in (prepared, other))
    assert any(not torch.equal(first[name], second[name]) for name in first)

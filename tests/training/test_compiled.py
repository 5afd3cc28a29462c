"""Compiled backbones: padded batches give the same states and gradients, and one compilation serves every shape."""

import shutil

import numpy as np
import pytest
import torch
from small_trials import a_trial, spectrum_of

from harness import registry
from harness.training import compiled, schedules, trial

each_backbone = pytest.mark.parametrize("name", registry.names(registry.BACKBONES))
SHALLOW = {"backbone.n_blocks": 1, "train.compile": "kernels"}  # compiles in half the time
NO_DROPOUT = {"backbone.dropout": 0.0, "backbone.attn_dropout": 0.0}


def padded_only(function, **_):
    return function


def test_sizes_are_few_and_at_most_a_quarter_too_large():
    sizes = [compiled.size(n) for n in range(1, 4097)]
    assert all(n <= size <= 1.25 * n for n, size in enumerate(sizes, 1))
    assert len(set(sizes)) <= 8 + 4 * 9
    assert sizes == sorted(sizes)


def test_the_option_takes_what_the_module_has():
    assert ("none", *compiled.MODES) == schedules.COMPILED


@each_backbone
def test_padding_changes_neither_states_nor_gradients(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", padded_only)
    torch.manual_seed(0)
    backbone = registry.load(registry.BACKBONES, name)(8, 20).eval()
    items = torch.arange(1, 3 * 9 + 1).view(3, 9) % 7
    items[0, 5:] = items[1, 1:] = items[2, 9:] = 0
    times = torch.arange(30).view(3, 10) * 3600 if backbone.uses_time else None
    real, grads, states = items > 0, [], []
    for forward in (backbone, compiled.forward(backbone, "kernels")):
        x = torch.randn(3, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
        h = forward(x, real, times)
        assert h.shape == (3, 9, 8)
        states.append(h[real])
        backbone.zero_grad()
        h[real].square().sum().backward()
        grads.append([x.grad, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    torch.testing.assert_close(*states)
    torch.testing.assert_close(*grads)


def test_only_training_steps_on_whole_batches_are_compiled(split, monkeypatch):
    calls = []

    def counted(function, **_):
        return lambda *inputs: calls.append(1) or function(*inputs)

    monkeypatch.setattr(torch, "compile", counted)
    spec = a_trial(epochs=1, **{"train.compile": "graphs"})
    training = trial.Training(spec, split, spectrum_of(split))
    training.validate()
    assert not calls
    training.epoch()
    assert calls
    calls.clear()
    trial.Training(spec, split, spectrum_of(split), parts=2).epoch()
    assert not calls  # a CUDA graph would overwrite the first part's gradient


compiles = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@compiles
def test_a_compiled_trial_is_the_plain_one_and_is_compiled_once(split):
    torch._dynamo.utils.counters.clear()
    curves, tables, shapes = [], [], set()
    for mode in ("none", "kernels"):
        spec = a_trial(epochs=3, **SHALLOW | NO_DROPOUT | {"train.compile": mode})
        training = trial.Training(spec, split, spectrum_of(split))
        cuts = training.windows.batches(training.train["batch_size"], np.random.default_rng(0))
        shapes |= {training.batch(*cut).items.shape for cut in cuts}
        while not training.over:
            training.epoch()
        curves.append(training.curve)
        tables.append(training.model.table().detach())
    assert len(shapes) > 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
    torch.testing.assert_close(tables[1], tables[0], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@compiles
def test_a_compiled_trial_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(split):
    """Compiled code draws dropout in its own way; each epoch still draws from its own seed."""
    spec = a_trial(epochs=2, **SHALLOW)
    whole = trial.Training(spec, split, spectrum_of(split))
    whole.epoch()
    saved = whole.save()
    whole.epoch()
    resumed = trial.Training(spec, split, spectrum_of(split))
    assert resumed.restore(saved)
    resumed.epoch()
    assert resumed.curve == whole.curve
    for ours, theirs in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)

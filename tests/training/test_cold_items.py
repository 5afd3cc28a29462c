"""Training must not see held-out items: their events change no weight, and the loss does not compare with them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from small_trials import a_trial, spectrum_of
from torch.nn import functional as F

from harness.data import splits
from harness.training import ensemble, trial
from harness.training.baselines.popularity import Popularity
from harness.training.baselines.transition_knn import TransitionKNN
from harness.types import Cell, Protocol

COLD = Protocol(cold_items=0.2)


def cut(prepared: splits.Prepared, protocol: Protocol) -> Any:
    """Return the unsealed split; Any, since its optional parts are all there."""
    return splits.split(prepared, protocol)


def with_more_events(prepared, protocol):
    """The data set with a held-out item inserted before the second and the third event of every user."""
    [hidden] = np.nonzero(cut(prepared, protocol).held_out)
    places = (prepared.offsets[:-1, None] + [1, 2]).ravel()
    times = np.insert(np.asarray(prepared.times), places, prepared.times[places])
    items = np.insert(np.asarray(prepared.items), places, np.resize(hidden, len(places)).astype(np.int32))
    return replace(prepared, items=items, times=times, offsets=prepared.offsets + 2 * np.arange(len(prepared.offsets)))


def weights(work, split):
    _, artifacts = trial.run(work, split, spectrum_of(split))
    return safetensors.torch.load(artifacts.weights)


@pytest.mark.parametrize("protocol", [COLD, replace(COLD, split="gts", quantile=0.8), replace(COLD, split="users")])
@pytest.mark.parametrize(
    ("adapter", "params"), [("id", {}), ("linear", {"train.loss": "bce"}), ("llmemb", {}), ("llmesr", {})]
)
def test_training_events_of_held_out_items_change_no_weight(prepared, protocol, adapter, params):
    if params:
        params = params | {"loss.m": 2}
    work = a_trial(adapter, epochs=2, **params)
    one, other = prepared, with_more_events(prepared, protocol)
    before, after = (cut(data, protocol) for data in (one, other))
    first, second = weights(work, before), weights(work, after)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    naive = cut(other, replace(protocol, cold_items=0.0, split_seed=0))
    assert naive.train_ends.sum() > after.train_ends.sum(), "the events would be trained without the option"


@pytest.mark.parametrize(
    ("backbone", "params"),
    [
        ("bert4rec", {}),
        ("gru4rec", {"train.loss": "sampled_softmax", "loss.m": 8, "loss.alpha": 1.0, "loss.logq": True}),
    ],
)
def test_masked_models_and_popular_negatives_learn_nothing_from_held_out_items(prepared, backbone, params):
    work = a_trial("id", backbone, epochs=2, **params)
    before, after = (cut(data, COLD) for data in (prepared, with_more_events(prepared, COLD)))
    first, second = weights(work, before), weights(work, after)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_ensemble_learns_nothing_from_held_out_items(prepared):
    results = []
    for data in (prepared, with_more_events(prepared, COLD)):
        split, parts = cut(data, COLD), []
        for name in ("id", "text"):
            work = replace(a_trial(name, epochs=2), protocol=COLD)
            parts.append((work, trial.run(work, split, spectrum_of(split))[1].weights))
        whole = replace(parts[0][0], cell=Cell("toy", "noise", "sasrec", "id+text"))
        result, artifacts = ensemble.run(whole, parts, split, lambda _, split=split: spectrum_of(split))
        results.append((result.valid, result.info["weight"], artifacts.ranks.middle[~splits.cold(split, split.test)]))
    assert results[0][:2] == results[1][:2]
    assert np.array_equal(results[0][2], results[1][2])


def test_the_loss_is_the_cross_entropy_over_the_other_items(prepared):
    split = cut(prepared, COLD)
    fixed: Any = {"backbone.dropout": 0.0}
    training = trial.Training(a_trial("linear", epochs=1, **fixed), split, spectrum_of(split))
    model = training.model.eval()
    batch = training.batch(*next(training.windows.batches(40, np.random.default_rng(0))))
    inputs, targets = batch.items[:, :-1], batch.items[:, 1:]
    with torch.no_grad():
        table = model.table()
        scores = model.states(inputs, table)[targets > 0] @ table[1:].T
        scores[:, torch.from_numpy(split.held_out[1:])] = -torch.inf
        wanted = F.cross_entropy(scores, targets[targets > 0] - 1)
        found = model.loss(batch, torch.Generator().manual_seed(0))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize("baseline", [Popularity, TransitionKNN])
def test_baselines_do_not_see_held_out_items(prepared, baseline):
    before, after = (cut(data, COLD) for data in (prepared, with_more_events(prepared, COLD)))
    scores = [baseline(split, spectrum_of(split)).scores(before.valid) for split in (before, after)]
    assert torch.equal(*scores)
    assert (scores[0][:, before.held_out[1:]] == 0).all()


@pytest.mark.parametrize("params", [{}, {"train.loss": "sampled_softmax", "loss.m": 64}])
def test_the_loss_does_not_compare_with_held_out_items(prepared, params):
    split = cut(prepared, COLD)
    work = a_trial("id", epochs=3, **params)
    training = trial.Training(
        replace(work, params=work.params | {"train.weight_decay": 0.0}), split, spectrum_of(split)
    )
    start = training.model.table()[1:].detach().clone()
    for _ in range(3):
        training.epoch()
    moved = (training.model.table()[1:].detach() - start).abs().amax(1).numpy() > 0
    assert (moved == ~split.held_out[1:]).all()
    result, _ = training.finish()
    assert {"test_warm_NDCG@10", "test_cold_NDCG@10"} <= result.info.keys()


def test_a_text_row_ranks_held_out_items_above_chance_where_the_text_tells(prepared):
    """Item i is followed by i + 1: a text that places items on a circle lets a linear map go on to unseen ones."""
    split = cut(prepared, COLD)
    angle = 2 * np.pi * np.arange(split.n_items)[:, None] / split.n_items * np.arange(1, 9)
    E = np.concatenate([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    U, S, Vt = np.linalg.svd(E - E.mean(0), full_matrices=False)
    arrays = {"U": U, "S": S, "V": np.ascontiguousarray(Vt.T), "mean": E.mean(0), "E": E}
    fixed: Any = {"text.fusion": "none"}
    work = a_trial("linear", epochs=40, patience=40, **fixed)
    result, _ = trial.run(work, split, trial.spectrum(arrays, 0))
    chance = (1 / np.log2(np.arange(2, 12))).sum() / split.n_items
    assert result.info["test_cold_NDCG@10"] > 2 * chance


def test_auxiliary_losses_draw_no_held_out_items(prepared):
    split = cut(prepared, COLD)
    work = a_trial("faerec", epochs=3)
    training = trial.Training(
        replace(work, params=work.params | {"train.weight_decay": 0.0}), split, spectrum_of(split)
    )
    start = training.model.table.adapter.id.detach().clone()
    for _ in range(3):
        training.epoch()
    moved = (training.model.table.adapter.id.detach() - start).abs().amax(1).numpy() > 0
    assert not moved[split.held_out[1:]].any()
    assert moved[~split.held_out[1:]].all()

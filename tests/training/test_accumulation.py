"""Batches in parts: the same step as a whole batch, in less memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_trials import a_trial, spectrum_of

from harness.training import trial
from harness.training.batches import pieces

# Backbones that train every next item, so that the parts of a batch have the targets of the whole.
NEXT_ITEM = ["sasrec", "gru4rec", "hstu", "lrurec"]


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_pieces_are_the_batch_in_order_and_their_shares_are_of_the_targets(parts):
    rng = np.random.default_rng(parts)
    starts, lengths = rng.integers(0, 10**6, 40), np.sort(rng.integers(2, 52, 40))
    cut = pieces(starts, lengths, parts)
    assert len(cut) == parts
    assert np.concatenate([begin for _, begin, _ in cut]).tolist() == starts.tolist()
    assert np.concatenate([size for _, _, size in cut]).tolist() == lengths.tolist()
    targets = [int((size - 1).sum()) for _, _, size in cut]
    assert [share for share, _, _ in cut] == [count / sum(targets) for count in targets]
    assert max(targets) <= sum(targets) / parts + 50, "the windows at a cut are whole"


@pytest.mark.parametrize("lengths", [[51], [51, 2], [2, 51], [2, 2, 2]])
def test_no_piece_is_empty_however_few_windows_there_are(lengths):
    cut = pieces(np.arange(len(lengths)), np.array(lengths), 2)
    assert len(cut) == min(2, len(lengths))
    assert all(len(size) and share > 0 for share, _, size in cut)


def without_dropout(adapter, backbone, **fields):
    params = {name: 0.0 for name in a_trial(adapter, backbone).params if name.endswith("dropout")}
    return a_trial(adapter, backbone, **fields, **params)


def gradients(work, split, parts):
    """Loss and gradients of the first batch of a trial."""
    training = trial.Training(work, split, spectrum_of(split), parts=parts)
    training.model.train()
    starts, lengths = next(training.windows.batches(96, np.random.default_rng(0)))
    assert len(pieces(starts, lengths, parts)) == parts
    total = training.update(training.losses(starts, lengths, torch.Generator().manual_seed(0)))
    return total, {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("backbone", NEXT_ITEM)
@pytest.mark.parametrize("adapter", ["id", "linear", "spectran"])
def test_loss_and_gradient_are_those_of_the_whole_batch(split, backbone, adapter):
    """The optimiser sees nothing else, so the step is the same too."""
    work = without_dropout(adapter, backbone)
    whole, expected = gradients(work, split, 1)
    for parts in (2, 3):
        total, found = gradients(work, split, parts)
        assert total.item() == pytest.approx(whole.item(), rel=1e-5)
        assert found.keys() == expected.keys()
        largest = max(grad.abs().max().item() for grad in expected.values())
        assert largest > 0
        for name, grad in expected.items():
            assert torch.allclose(found[name], grad, rtol=1e-4, atol=1e-5 * largest), name


def test_a_trial_in_parts_learns_what_the_whole_learns_and_says_so(split):
    work = without_dropout("linear", "sasrec", epochs=3)
    whole, _ = trial.run(work, split, spectrum_of(split))
    training = trial.Training(work, split, spectrum_of(split), parts=2)
    while not training.over:
        training.epoch()
    result, _ = training.finish()
    assert result.curve == pytest.approx(whole.curve, rel=1e-3), "AdamW amplifies rounding of small gradients"
    assert result.info["accumulated"] == 2
    assert "accumulated" not in whole.info


def test_a_checkpoint_of_whole_batches_goes_on_in_parts_and_parts_stay(split):
    work = a_trial("id", epochs=4)
    first = trial.Training(work, split, spectrum_of(split))
    first.epoch()
    second = trial.Training(work, split, spectrum_of(split), parts=2)
    assert second.restore(first.save())
    assert second.curve == first.curve
    second.epoch()
    third = trial.Training(work, split, spectrum_of(split))
    assert third.restore(second.save())
    while not third.over:
        third.epoch(), second.over or second.epoch()
    assert third.curve == second.curve, "a resumed trial computes as it began"
    assert third.finish()[0].info["accumulated"] == 2

"""The training core on a small made data set with a sequential signal."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import optuna
import pytest
import safetensors.torch
import torch
from small_trials import SMALL, a_trial, spectrum_of

from harness import registry
from harness.data import preparation, reader, splits
from harness.record.ledger import Ledger
from harness.search import plan, spaces
from harness.search.plan import Request
from harness.training import precision, trial
from harness.training.batches import Windows, gather
from harness.types import Cell, PrepSpec, Protocol
from harness.workflows import shared_data


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec"])
def test_training_learns_what_follows_what(split, backbone):
    result, artifacts = trial.run(a_trial("id", backbone, epochs=25, patience=25), split, spectrum_of(split))
    chance = sum(1 / math.log2(r + 1) for r in range(1, 11)) / split.n_items
    assert result.test["NDCG@10"] > 2 * chance
    assert len(artifacts.ranks) == len(artifacts.users) == len(split.test.users)
    assert result.best == max(result.curve) == result.curve[result.best_epoch]


@pytest.mark.parametrize("adapter", ["id", "spectran", "mlp"])
def test_the_same_trial_gives_the_same_numbers(split, adapter):
    results = [trial.run(a_trial(adapter), split, spectrum_of(split))[0] for _ in range(2)]
    assert results[0].curve == results[1].curve
    assert results[0].test == results[1].test
    other, _ = trial.run(a_trial(adapter, seed=2), split, spectrum_of(split))
    assert other.curve != results[0].curve


@pytest.mark.parametrize("adapter", ["id", "spectran"])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(split, adapter):
    work = a_trial(adapter, epochs=5, patience=5)
    whole, artifacts = trial.run(work, split, spectrum_of(split))
    first = trial.Training(work, split, spectrum_of(split))
    first.epoch(), first.epoch()
    second = trial.Training(work, split, spectrum_of(split))
    assert second.restore(first.save())
    while not second.over:
        second.epoch()
    resumed, again = second.finish()
    assert second.curve == whole.curve
    assert resumed.test == whole.test
    assert again.ranks.equal(artifacts.ranks).all()


def drawn(cell, seed):
    """A point of the cell's space, drawn at random."""
    space = spaces.of_cell(cell, spaces.SpaceSource())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    free = study.ask(space.free()).params
    return free | study.ask(space.conditional(free | space.fixed)).params


@pytest.mark.parametrize(
    ("backbone", "adapter", "seed"),
    [("sasrec", name, seed) for name in registry.names(registry.ADAPTERS) for seed in (1, 2)]
    + [(name, "linear", seed) for name in registry.names(registry.BACKBONES) for seed in (3, 4)]
    + [("sasrec", "svd", seed) for seed in range(5, 9)],
)
def test_every_component_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(split, backbone, adapter, seed):
    point = drawn(Cell("toy", "noise", backbone, adapter), seed) | SMALL | {"train.d": 8}
    work = a_trial(adapter, backbone, "search", epochs=3, patience=3, **point)
    spectrum = spectrum_of(split)
    spectrum = replace(spectrum, U=spectrum.U.T.contiguous().T)  # column by column, as a basis of few items is kept
    whole, stopped = (trial.Training(work, split, spectrum) for _ in range(2))
    while not whole.over:
        whole.epoch(), stopped.epoch()
        saved, stopped = stopped.save(), trial.Training(work, split, spectrum)
        assert stopped.restore(saved)
    assert stopped.curve == whole.curve
    weights = stopped.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())


def test_a_foreign_or_damaged_checkpoint_is_not_taken(split):
    training = trial.Training(a_trial(), split, spectrum_of(split))
    training.epoch()
    saved = training.save()
    other = trial.Training(a_trial(seed=9), split, spectrum_of(split))
    assert not other.restore(saved)
    fresh = trial.Training(a_trial(), split, spectrum_of(split))
    assert not fresh.restore(saved[: len(saved) // 2])
    assert not fresh.restore(b"")
    assert not fresh.restore(safetensors.torch.save({"model.x": torch.zeros(1)}, {"curve": "[0.5]"}))
    assert fresh.curve == []


def test_a_search_trial_cannot_see_the_test(split):
    sealed = split.sealed()
    result, artifacts = trial.run(a_trial(role="search"), sealed, spectrum_of(split))
    assert result.test == {}
    assert len(artifacts.ranks) == 0
    with pytest.raises(ValueError, match="unsealed"):
        trial.run(a_trial(role="confirm", epochs=1), sealed, spectrum_of(split))
    unsealed, _ = trial.run(a_trial(role="search"), split, spectrum_of(split))
    assert unsealed.curve == result.curve, "what is cut away plays no part in training or validation"


def test_early_stopping_keeps_the_best_epoch(split):
    result, _ = trial.run(a_trial(epochs=60, patience=2, **{"train.lr": 0.05}), split, spectrum_of(split))
    assert len(result.curve) < 60
    assert len(result.curve) == result.best_epoch + 1 + 2


def test_a_loss_that_is_not_finite_fails_the_trial(split):
    training = trial.Training(a_trial("id"), split, spectrum_of(split))
    with torch.no_grad():
        next(training.model.parameters()).fill_(float("nan"))
    with pytest.raises(trial.TrialFailed, match="not finite at epoch 0, step 0"):
        training.epoch()


@pytest.mark.parametrize(("max_len", "length"), [(3, 11), (5, 11), (50, 11), (1, 4)])
def test_every_event_but_the_first_is_the_target_of_exactly_one_window(max_len, length):
    items = np.arange(1, 2 * length + 1, dtype=np.int32)
    offsets = np.array([0, length, 2 * length])
    ends = np.array([length - 2, 1])  # the second user has one training event: nothing to learn
    none = splits.Queries(np.zeros(0, np.int32), np.zeros(0, np.int64))
    split = splits.Split(2 * length, items, offsets, None, ends, none, none)
    targets = []
    for batch in batches_of(split, max_len, size=4, seed=0):
        assert batch.shape[1] <= max_len + 1
        for row in batch.tolist():
            row = [i for i in row if i]
            assert row == list(range(row[0], row[0] + len(row))), "a window is a stretch of one history"
            targets += row[1:]
    assert sorted(targets) == list(range(2, length - 1))


def batches_of(split, max_len, size, seed):
    """The batches of an epoch as the model sees them: right-padded item numbers."""
    items = torch.tensor(split.items)
    windows = Windows.of(split, max_len)
    return [gather(items, *cut) for cut in windows.batches(size, np.random.default_rng(seed))]


def test_the_order_of_batches_is_random_in_every_epoch(split):
    first, again, other = ([batch.tolist() for batch in batches_of(split, 6, 40, seed)] for seed in (0, 0, 1))
    assert first == again
    assert first != other
    neighbours = [{tuple(row) for row in batch} for batch in first]
    assert not any(n in [{tuple(row) for row in batch} for batch in other] for n in neighbours)


def test_batches_by_length_hold_little_padding_and_stay_random():
    """What sorting by length might cost: short windows always first, or the same windows together in every epoch."""
    n, lengths = 20_000, 2 + np.random.default_rng(0).geometric(0.12, 20_000).clip(max=49)
    windows = Windows(np.arange(n), lengths)
    real, padded, steps = 0, 0, []
    for seed in range(4):
        step = np.full(n, -1)
        for number, (starts, found) in enumerate(windows.batches(1_000, np.random.default_rng(seed))):
            step[starts] = number
            real, padded = real + (found - 1).sum(), padded + (found.max() - 1) * len(found)
        assert step.min() == 0, "every window is in the epoch"
        steps.append(step)
    assert 1 - real / padded < 0.15, "in batches drawn at random two thirds are padding"
    assert abs(np.mean([np.corrcoef(step, lengths)[0, 1] for step in steps])) < 0.05, "no length comes first"
    together = [step[::100, None] == step for step in steps]
    again = np.mean([(now & before).sum() / now.sum() for before, now in pairwise(together)])
    assert again < 0.1, "of the windows that share a batch hardly any share one in the next epoch"


@pytest.mark.parametrize("fusion", ["none", "add", "gate", "concat"])
def test_every_fusion_trains(split, fusion):
    result, _ = trial.run(a_trial(epochs=2, **{"text.fusion": fusion}), split, spectrum_of(split))
    assert result.status == "done"
    assert result.info["effective_rank"] > 1
    assert result.info["parameters"] > 0


@pytest.mark.parametrize("name", ["popularity", "transition_knn", "content_knn"])
def test_baselines_beat_chance_where_they_should(split, name):
    work = replace(a_trial(), cell=Cell("toy", "noise", "none", name), params={}, epochs=0)
    result, artifacts = trial.run(work, split, spectrum_of(split))
    assert len(artifacts.ranks) == len(split.test.users)
    if name == "transition_knn":
        assert result.test["HR@10"] > 0.6, "what followed follows again"


def test_the_temporal_split_trains_and_tests(dataset, home):
    prepared = preparation.prepare(reader.open_dataset(str(dataset), home), PrepSpec(kcore=0), home)
    temporal = splits.split(prepared, Protocol("gts", quantile=0.8))
    assert max(temporal.times[: temporal.offsets[1]][: temporal.train_ends[0]]) < max(temporal.times)
    result, artifacts = trial.run(a_trial("id", epochs=10, patience=10), temporal, spectrum_of(temporal))
    assert len(artifacts.ranks) == len(temporal.test.users) > 0
    assert result.test["HR@10"] > 0.3


def test_products_that_are_asked_to_be_faster_and_are_slower_are_told(dataset, home, monkeypatch, capsys):
    spaces_of = spaces.SpaceSource(None, {"train.precision": "bfloat16"})
    request = Request(home=home, datasets=str(dataset), adapters="id", encoders="noise", spaces=spaces_of)
    grid = plan.make(request, Ledger.open(home))
    for times, told in ((11.0, True), (0.5, False)):
        monkeypatch.setattr(precision, "bfloat16_slows", lambda times=times: times)
        shared_data.prepare(grid)
        assert ("11x slower" in capsys.readouterr().err) == told


def test_the_ratio_of_the_two_kinds_of_product_is_a_plausible_number():
    assert 0.05 < precision.bfloat16_slows() < 200


def test_scores_by_user_go_with_a_checkpoint_and_are_not_missed_in_one_without_them(split):
    work = a_trial(epochs=3, patience=3)
    whole, silent = (trial.Training(work, split, spectrum_of(split), keep_user_scores=tells) for tells in (True, False))
    saved = []
    while not whole.over:
        whole.epoch(), silent.epoch()
        saved.append((whole.save(), silent.save()))
    assert [len(own) for own in whole.users] == [min(256, len(split.valid.users))] * 3
    assert [sum(own) / len(own) / 10_000 for own in whole.users] == pytest.approx(whole.curve, abs=1e-4)
    for number, left in ((0, whole.users[:1]), (1, [()])):
        again = trial.Training(work, split, spectrum_of(split), keep_user_scores=True)
        assert again.restore(saved[0][number])
        while not again.over:
            again.epoch()
        assert again.users == [*left, *whole.users[1:]]


def test_a_split_that_leaves_nothing_to_train_on_fails_with_the_reason(split):
    untrained = replace(split, train_ends=np.ones_like(split.train_ends))
    with pytest.raises(trial.TrialFailed, match="no user has two events for training; choose another split"):
        trial.run(a_trial("id"), untrained, spectrum_of(split))

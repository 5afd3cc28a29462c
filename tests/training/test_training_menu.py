"""Schedules, weight averaging and label smoothing in training: against torch's schedulers, formulas and restarts."""

import copy
import math

import numpy as np
import pytest
import torch
from small_trials import a_trial, spectrum_of
from torch import nn
from torch.optim import lr_scheduler

from harness.training import optimisation, schedules, trial
from harness.training.optimisation import Average

MENU = {
    "warmup_cosine": {"train.schedule": "warmup_cosine", "train.warmup": 0.3},
    "one_cycle": {"train.schedule": "one_cycle"},
    "ema": {"train.ema": 0.9},
    "label smoothing": {"loss.label_smoothing": 0.2},
    "popularity": {"train.loss": "sampled_softmax", "loss.m": 8, "loss.alpha": 0.5, "loss.logq": True},
    "all": {"train.schedule": "one_cycle", "train.ema": 0.9, "loss.label_smoothing": 0.2},
}
each_option = pytest.mark.parametrize("option", MENU)


def rates(scheduler, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def an_optimizer(lr=1.0):
    return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)


def test_one_cycle_is_torchs():
    steps, optimizer = 20_000, an_optimizer()
    scheduler = lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=steps, cycle_momentum=False)
    ours = [schedules.factor("one_cycle", step / (steps - 1)) for step in range(steps)]
    assert np.abs(np.subtract(ours, rates(scheduler, optimizer, steps))).max() < 3e-4
    assert (ours[0], ours[-1]) == pytest.approx((1 / 25, 1 / 25e4))


@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5])
def test_warmup_cosine_is_torchs_linear_then_cosine(warmup):
    steps, optimizer = 2_000, an_optimizer()
    rise = round(warmup * steps)
    parts = [
        lr_scheduler.LinearLR(optimizer, 1e-9, 1.0, max(rise, 1)),
        lr_scheduler.CosineAnnealingLR(optimizer, steps - rise),
    ]
    scheduler = lr_scheduler.SequentialLR(optimizer, parts, [rise]) if rise else parts[1]
    optimizer.param_groups[0]["lr"] = 1e-9 if rise else 1.0
    ours = [schedules.factor("warmup_cosine", step / steps, warmup) for step in range(steps)]
    assert ours == pytest.approx(rates(scheduler, optimizer, steps), abs=1e-6)


def test_every_schedule_stays_within_its_peak_and_an_unknown_one_is_refused():
    for schedule in schedules.SCHEDULES:
        values = [schedules.factor(schedule, p) for p in np.linspace(0, 1, 501)]
        assert min(values) >= 0
        assert max(values) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match=r"'step'; it takes: constant, warmup_cosine, one_cycle"):
        schedules.factor("step", 0.5)


def rates_of(training):
    """Learning rate of each step of one epoch."""
    found, update = [], training.update

    def spy(losses):
        found.append({group["lr"] for group in training.optimizer.param_groups})
        return update(losses)

    training.update = spy
    training.epoch()
    training.update = update
    return [rate for (rate,) in found]


def test_the_rate_follows_the_share_of_the_max_epochs_whatever_the_batches(split):
    """Epochs have different numbers of steps; every epoch still covers its share of the schedule."""
    params = {"train.schedule": "warmup_cosine", "train.warmup": 0.25, "train.lr": 0.01}
    ends = {}
    for size in (40, 96):
        training = trial.Training(
            a_trial("id", epochs=4, patience=0, **params, **{"train.batch_size": size}), split, spectrum_of(split)
        )
        epochs = [rates_of(training) for _ in range(4)]
        assert all(np.diff(epochs[0]) > 0)
        assert all(np.diff(np.concatenate(epochs[1:])) < 0)
        ends[size] = [epoch[-1] for epoch in epochs]
        half = [0.01 * (1 + math.cos(math.pi * p)) / 2 for p in (0, 1 / 3, 2 / 3, 1)]
        tolerance = 0.01 * 4 / min(map(len, epochs))
        assert ends[size] == pytest.approx(half, abs=tolerance)
        assert 0 < epochs[0][0] < tolerance, "the first step trains"
    assert ends[40] != ends[96]


def test_a_constant_rate_is_lr_at_every_step(split):
    training = trial.Training(a_trial("id"), split, spectrum_of(split))
    assert set(rates_of(training)) == {0.01}


@each_option
def test_going_on_from_a_checkpoint_equals_never_having_stopped(split, option):
    work = a_trial("linear", epochs=4, patience=4, **MENU[option])
    whole, stopped = (trial.Training(work, split, spectrum_of(split)) for _ in range(2))
    while not whole.over:
        whole.epoch(), stopped.epoch()
        saved, stopped = stopped.save(), trial.Training(work, split, spectrum_of(split))
        assert stopped.restore(saved)
    assert stopped.curve == whole.curve
    weights = stopped.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.model.state_dict().items())
    (one, a), (other, b) = whole.finish(), stopped.finish()
    assert one.test == other.test
    assert a.weights == b.weights


@each_option
def test_an_option_changes_the_weights(split, option):
    kept = {key: value for key, value in MENU[option].items() if key in ("train.loss", "loss.m")}
    runs = [trial.run(a_trial("id", epochs=2, **kept | more), split, spectrum_of(split)) for more in ({}, MENU[option])]
    assert runs[0][1].weights != runs[1][1].weights


# The moving average


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def test_the_average_is_the_weighted_mean_of_the_weights_so_far():
    torch.manual_seed(0)
    model, decay = Normed(), 0.7
    average, seen = Average(model, decay), []
    for step in range(6):
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p))
            model.norm.running_mean.fill_(step)
        average.update()
        seen.append(copy.deepcopy(model.state_dict()))
    own = copy.deepcopy(model.state_dict())
    shares = np.array([decay ** (5 - s) for s in range(6)])
    with average.in_use():
        inside = copy.deepcopy(model.state_dict())
    for name, value in inside.items():
        if "norm.running" in name or "tracked" in name or name == "frozen":
            assert torch.equal(value, own[name]), f"{name} is not averaged"
        else:
            mean = sum(share * state[name].double() for share, state in zip(shares / shares.sum(), seen, strict=True))
            torch.testing.assert_close(value.double(), mean, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items()), "training goes on unmoved"


def test_the_models_weights_come_back_after_an_error():
    model = Normed()
    average = Average(model, 0.5)
    average.update()
    with torch.no_grad():
        model.linear.weight.add_(1)
    own = model.linear.weight.clone()
    inside = {}

    def fail():
        with average.in_use():
            inside["weight"] = model.linear.weight.clone()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not torch.equal(inside["weight"], own)
    assert torch.equal(model.linear.weight, own)


def test_averaging_does_not_change_what_is_trained_but_what_is_validated_and_kept(split):
    plain, averaged = (
        trial.Training(a_trial("linear", epochs=3, patience=0, **own), split, spectrum_of(split))
        for own in ({}, {"train.ema": 0.95})
    )
    for training in (plain, averaged):
        while not training.over:
            training.epoch()
    own = averaged.model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in plain.model.state_dict().items())
    assert averaged.curve != plain.curve
    with averaged.average.in_use():
        ranks = averaged.ranks(split.valid)
        last = {name: value.clone() for name, value in averaged.model.state_dict().items()}
    averaged.curve, averaged.best = [0.0, 0.0, 1.0], last
    result, artifacts = averaged.finish()
    assert result.valid["NDCG@10"] == pytest.approx(trial.means(ranks, split.valid.users)["NDCG@10"])
    assert artifacts.ranks.equal(averaged.ranks(split.test)).all()
    assert not artifacts.ranks.equal(plain.ranks(split.test)).all()


def test_without_averaging_no_weights_are_copied():
    average = Average(Normed(), 0.0)
    average.update()
    assert average.weights == {}
    assert average.updates == 0


def test_the_optimiser_updates_all_weights_that_are_trained_once(split):
    model = trial.Training(a_trial("linear"), split, spectrum_of(split)).model
    optimizer = optimisation.make(model, 0.1, 0.5)
    updated = [p for group in optimizer.param_groups for p in group["params"]]
    assert len({id(p) for p in updated}) == len(updated) == sum(p.requires_grad for p in model.parameters())

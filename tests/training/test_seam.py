"""Where adapters and backbones meet in training: interactions, views, masks, times, auxiliary losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_trials import a_trial, spectrum_of

from adapters._base import Adapter, ItemTable, Spectrum
from backbones._base import MASKED, Backbone
from harness import registry
from harness.training import model, trial
from harness.training.losses.softmax import Softmax

WIDTH = 4


class TwoViews(Adapter):
    """An adapter of two views that are free tables, with a mark of how its vectors were mixed."""

    views = 2

    def __init__(self, n=10):
        super().__init__(Spectrum.blank(n), WIDTH)
        self.table = torch.nn.Parameter(torch.randn(n, 2 * WIDTH))
        self.mixed = []

    def forward(self):
        return self.table

    def mix(self, x, real, causal):
        self.mixed.append((tuple(x.shape), real.tolist(), causal))
        return x


class Mean(Backbone):
    """The mean of the vectors so far; asks for nothing else."""

    def forward(self, x, real, times=None):
        return x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[None, :, None]


class Cloze(Backbone):
    """Gives back its input, so that a masked position shows the vector of the mask."""

    causal = False

    def __init__(self, d, max_len):
        super().__init__(d, max_len)
        self.mask = torch.nn.Parameter(torch.full((d,), 7.0))

    def forward(self, x, real, times=None):
        return x


def model_of(adapter, backbone, d=WIDTH):
    table = ItemTable(adapter, d, fusion="none", out_std=1.0, id_std=0.0)
    return model.SequenceModel(table, backbone, Softmax(adapter.n))


def test_every_view_is_read_alone_and_scores_are_their_sum():
    torch.manual_seed(0)
    model = model_of(TwoViews(), Mean(WIDTH, 6))
    items = torch.tensor([[3, 1, 2], [5, 4, 0]])
    T = model.table()
    states = model.last_states(items, T)
    for row, expected in enumerate(([3, 1, 2], [5, 4])):
        for view in range(2):
            at = slice(view * WIDTH, (view + 1) * WIDTH)
            torch.testing.assert_close(states[row, at], T[expected][:, at].mean(0))
    one, other = (states[:, at] @ T[:, at].T for at in (slice(0, WIDTH), slice(WIDTH, None)))
    torch.testing.assert_close(states @ T.T, one + other)
    assert model.table.adapter.mixed == [((2, 3, 2 * WIDTH), [[True] * 3, [True, True, False]], True)]
    torch.testing.assert_close(model.states(items, T)[0, -1], states[0])


def test_a_masked_position_is_the_backbones_own_vector_in_every_view():
    model = model_of(TwoViews(), Cloze(WIDTH, 6))
    T = model.table()
    items = torch.tensor([[3, MASKED, 2], [MASKED, 4, 0]])
    states = model.states(items, T)
    assert (states[0, 1] == 7).all()
    assert (states[1, 0] == 7).all()
    torch.testing.assert_close(states[0, 0], T[3])
    assert torch.count_nonzero(states[1, 2]) == 0
    assert model.table.adapter.mixed[0][1] == [[True] * 3, [True, True, False]], "a masked position is no padding"


def test_ranking_asks_a_cloze_backbone_for_one_masked_position_after_the_history():
    model = model_of(TwoViews(), Cloze(WIDTH, 3))
    assert (model.last_states(torch.tensor([[3, 1, 2], [5, 0, 0]]), model.table()) == 7).all()


def test_interactions_are_the_training_events_and_nothing_else(split):
    found = trial.build(a_trial("llminit"), split, spectrum_of(split)).table.adapter.spectrum.interactions
    for user in range(len(split.train_ends)):
        own = found.items[found.offsets[user] : found.offsets[user + 1]] + 1
        assert own.tolist() == split.history(user, split.train_ends[user]).tolist()
    assert found.counts(split.n_items).sum() == split.train_ends.sum()


def test_an_adapter_is_given_interactions_exactly_where_it_asks_for_them(split):
    for name, asks in (("llminit", True), ("svd", False)):
        made = trial.build(a_trial(name), split, spectrum_of(split))
        assert (len(made.table.adapter.spectrum.interactions.items) > 0) is asks


def test_times_are_those_of_the_inputs_and_of_what_follows(split, monkeypatch):
    training = trial.Training(a_trial("id", "hstu_time"), split, spectrum_of(split))
    starts, lengths = training.windows.starts[:3], training.windows.lengths[:3]
    batch = training.batch(starts, lengths)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        assert batch.times[row, :length].tolist() == split.times[start : start + length].tolist()
        assert batch.items[row, :length].tolist() == split.items[start : start + length].tolist()
        user = batch.users[row].item()
        assert split.offsets[user] <= start < split.offsets[user + 1]
    seen = []

    def spy(items, table, times=None):
        seen.append((items, times))
        return torch.zeros(len(items), 16)

    monkeypatch.setattr(training.model, "last_states", spy)
    training.ranks(split.valid)
    items, times = seen[0]
    for row, (user, end) in enumerate(zip(split.valid.users[:5], split.valid.ends[:5], strict=True)):
        length = (items[row] > 0).sum().item()
        first = split.offsets[user] + end
        assert times[row, length].item() == split.times[first], "the time of the event to be predicted"
        assert times[row, :length].tolist() == split.times[first - length : first].tolist()


def test_an_auxiliary_loss_is_given_the_epoch_also_after_a_checkpoint(split, monkeypatch):
    work, seen = a_trial("faerec", epochs=3), []
    aux = registry.load(registry.ADAPTERS, "faerec").aux

    def spy(adapter, step):
        seen.append(step.epoch)
        return aux(adapter, step)

    monkeypatch.setattr(registry.load(registry.ADAPTERS, "faerec"), "aux", spy)
    first, second = (trial.Training(work, split, spectrum_of(split)) for _ in range(2))
    first.epoch()
    first.epoch()
    steps = len(seen) // 2
    assert seen == [0] * steps + [1] * steps
    assert second.restore(first.save())
    second.epoch()
    assert seen[2 * steps :] == [2] * steps


class Folded(TwoViews):
    """Two views of which the backbone reads the sum."""

    folds = True

    def mix(self, x, real, causal):
        return x[..., :WIDTH] + x[..., WIDTH:]


@pytest.mark.parametrize("make", [Mean, Cloze])
def test_folded_views_are_read_as_one_and_scored_by_the_first(make):
    torch.manual_seed(0)
    model = model_of(Folded(), make(WIDTH, 6))
    items, T = torch.tensor([[3, 1, 2], [5, 4, 0]]), model.table()
    states = model.states(items, T)
    assert states.shape == (2, 3, WIDTH)
    torch.testing.assert_close(states[0, 0], T[3, :WIDTH] + T[3, WIDTH:])
    batch = trial.Batch(torch.tensor([[3, 1, 2, 7], [5, 4, 0, 0]]), torch.arange(2))
    inputs, targets = model.backbone.views(batch.items, torch.Generator())
    logits = model.states(inputs, T)[targets > 0] @ T[1:, :WIDTH].T
    expected = torch.nn.functional.cross_entropy(logits, targets[targets > 0] - 1)
    torch.testing.assert_close(model.loss(batch, torch.Generator()), expected)


def test_a_backbone_that_reads_times_is_refused_where_there_are_none(split):
    with pytest.raises(ValueError, match="hstu_time needs timestamps"):
        trial.build(a_trial("id", "hstu_time"), replace(split, times=None), spectrum_of(split))


def test_a_backbone_that_reads_times_is_refused_with_a_method_that_encodes_other_users(split):
    with pytest.raises(ValueError, match="llmesr encodes sequences of other users, for which hstu_time needs"):
        trial.build(a_trial("llmesr", "hstu_time"), split, spectrum_of(split))


def test_a_method_that_joins_text_and_id_itself_is_refused_another_fusion(split):
    with pytest.raises(ValueError, match="decides how text and ID are joined"):
        trial.build(a_trial("alphafuse", **{"text.fusion": "add"}), split, spectrum_of(split))


@pytest.mark.parametrize("backbone", registry.names(registry.BACKBONES))
def test_every_backbone_learns_what_follows_what(split, backbone):
    epochs = 25 * registry.schema(registry.BACKBONES, backbone).attributes.get("pace", 1)
    result, _ = trial.run(a_trial("id", backbone, epochs=epochs, patience=epochs), split, spectrum_of(split))
    popular = replace(
        a_trial(), cell=replace(a_trial().cell, backbone="none", adapter="popularity"), params={}, epochs=0
    )
    floor, _ = trial.run(popular, split, spectrum_of(split))
    assert result.test["NDCG@10"] > 2 * floor.test["NDCG@10"]


RANDOM = [
    ("llmesr", "sasrec"),
    ("faerec", "sasrec"),
    ("tedrec", "lrurec"),
    ("rlmrec_gen", "sasrec"),
    ("unisrec_moe", "gru4rec"),
    ("id", "bert4rec"),
    ("id", "fmlp"),
]


@pytest.mark.parametrize(("adapter", "backbone"), [*RANDOM, ("llmesr", "bert4rec"), ("llmemb", "hstu_time")])
def test_going_on_from_a_checkpoint_equals_never_having_stopped(split, adapter, backbone):
    work = a_trial(adapter, backbone, epochs=4, patience=4)
    whole, artifacts = trial.run(work, split, spectrum_of(split))
    first, second = (trial.Training(work, split, spectrum_of(split)) for _ in range(2))
    first.epoch()
    assert second.restore(first.save())
    while not second.over:
        second.epoch()
    resumed, again = second.finish()
    assert resumed.curve == whole.curve
    assert again.ranks.equal(artifacts.ranks).all()


@pytest.mark.parametrize(
    ("adapter", "backbone"),
    [
        ("llmesr", "sasrec"),
        ("rlmrec_con", "bert4rec"),
        ("id", "bert4rec"),
        ("tedrec", "lrurec"),
        ("tedrec", "bert4rec"),
    ],
)
def test_rows_gathered_for_a_sampled_loss_give_the_loss_of_the_whole_table(split, monkeypatch, adapter, backbone):
    found = []
    for whole_above in (0.0, 1.0):
        monkeypatch.setattr("harness.training.model.WHOLE_ABOVE", whole_above)
        params = {"train.loss": "sampled_softmax", "loss.m": 2}
        training = trial.Training(a_trial(adapter, backbone, **params), split, spectrum_of(split))
        model = training.model.double().eval()
        batch = training.batch(training.windows.starts[:3], training.windows.lengths[:3])
        loss = model.loss(batch, torch.Generator().manual_seed(3))
        loss.backward()
        found.append((loss.detach(), [p.grad for p in model.parameters()]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-13)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_id_control_with_a_gain_trains_as_the_free_table_of_a_text_method_that_ignores_its_text(split):
    common = {"backbone.dropout": 0.0, "train.weight_decay": 0.1}
    ours = trial.Training(
        a_trial("id_gain", **common, **{"adapter.out_std": 0.2}), split, Spectrum.blank(split.n_items)
    )
    text = {"adapter.weight": 0.0, "text.out_std": 0.2}
    theirs = trial.Training(a_trial("rlmrec_con", **common, **text), split, spectrum_of(split))
    assert torch.equal(ours.model.table.adapter.table, theirs.model.table.adapter.table)
    renamed = {"table.log_gain": "table.adapter.log_gain"}
    start = {renamed.get(name, name): value.clone() for name, value in theirs.model.state_dict().items()}
    ours.model.load_state_dict({name: start[name] for name in ours.model.state_dict()})
    torch.testing.assert_close(ours.model.table()[1:].std().item(), 0.2)
    for number in range(6):
        at = slice(20 * number, 20 * number + 20)
        for training in (ours, theirs):
            batch = training.batch(training.windows.starts[at], training.windows.lengths[at])
            training.step(batch, torch.Generator().manual_seed(number))
        torch.testing.assert_close(ours.model.table(), theirs.model.table(), rtol=1e-4, atol=1e-6)
        for name in ("table", "log_gain"):
            gradient = getattr(ours.model.table.adapter, name).grad
            owner = theirs.model.table if name == "log_gain" else theirs.model.table.adapter
            torch.testing.assert_close(gradient, getattr(owner, name).grad, rtol=1e-3, atol=1e-7)
    assert not torch.equal(ours.model.table.adapter.log_gain, start["table.adapter.log_gain"])


def test_diagnostics_hold_directions_of_states_and_items(split):
    result, _ = trial.run(a_trial("spectran", epochs=2), split, spectrum_of(split))
    assert 0 < result.info["alignment"] < 4
    assert -4.5 < result.info["state_uniformity"] < 0
    assert {"uniformity", "components_90", "text_components_99", "adapter_subordinate_mass"} <= set(result.info)
    assert np.isfinite(list(result.info.values())).all()

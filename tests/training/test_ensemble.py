"""Ensembles of scores against plain arithmetic on the models' whole score matrices."""

import numpy as np
import pytest
import safetensors.torch
import torch
from small_trials import a_trial, spectrum_of

from harness.data.splits import Queries
from harness.metrics._all import HEADLINE, means
from harness.record import ensembles
from harness.training import ensemble, trial
from harness.training.ensemble import Ensemble
from harness.types import Cell, Protocol


@pytest.fixture
def trained(split):
    """Confirmed trials with their weights: two seeds of `id` and one of a text-only model."""
    spectrum = spectrum_of(split)
    cells = [a_trial("id", epochs=2), a_trial("id", epochs=2, seed=2), a_trial("text", epochs=2)]
    return [(one, trial.run(one, split, spectrum)[1].weights) for one in cells]


def combined(split, parts, name, **protocol):
    cell = Cell("toy", "noise", "sasrec", name)
    by_name = {}
    for one, _ in parts:
        by_name.setdefault(one.cell.adapter, []).append(one)
    [whole] = ensembles.trials(cell, by_name)
    return ensemble.run(whole, parts, split, lambda part: spectrum_of(split))


def scores_of(split, part, queries):
    """Scores (queries, items) of a trained model, float64, from its weights."""
    one, weights = part
    model = trial.Training(one, split, spectrum_of(split))
    model.model.load_state_dict({k: v for k, v in safetensors.torch.load(weights).items() if k != "item_table"})
    model.model.eval()
    with torch.no_grad():
        table = model.model.table()
        return (model.last_states(queries, table) @ table[1:].T).double().numpy()


def ranks_by_hand(split, parts, weights, queries):
    """Rank of each target among the items that the user has not seen, by the weighted sum of z-scores."""
    matrices = [scores_of(split, part, queries) for part in parts]
    z = [(m - m.mean(1, keepdims=True)) / m.std(1, keepdims=True) for m in matrices]
    total = sum(weight * one for weight, one in zip(weights, z, strict=True))
    ranks = []
    for row, (user, end) in enumerate(zip(queries.users, queries.ends, strict=True)):
        history = split.history(int(user), int(end))
        target = int(split.items[split.offsets[user] + end]) - 1
        others = np.delete(total[row], [*{int(item) - 1 for item in history} - {target}, target])
        ranks.append(1 + int((others > total[row, target]).sum()))
    return np.array(ranks)


@pytest.mark.parametrize(("name", "chosen"), [("id+id", (0, 1)), ("id+text", (0, 2)), ("id+id+text", (0, 1, 2))])
def test_ranks_are_those_of_summed_z_scores(split, trained, name, chosen):
    parts = [trained[i] for i in chosen]
    result, left = combined(split, parts, name)
    weight = result.info.get("weight")
    weights = [1 / len(parts)] * len(parts) if weight is None else [1 - weight, weight]
    expected = ranks_by_hand(split, parts, weights, split.test)
    assert (weight is None) == (name != "id+text")
    assert np.mean(left.ranks.low == expected) > 0.99  # float32 against float64: near ties may swap
    assert result.test == means(left.ranks, split.test.users)


def test_the_weight_is_the_best_on_validation_and_the_test_has_no_say(split, trained):
    parts = [trained[0], trained[2]]
    result, _ = combined(split, parts, "id+text")
    steps = np.arange(11) / 10
    values = [
        means(trial.Ranks.untied(ranks_by_hand(split, parts, (1 - w, w), split.valid)), split.valid.users)[HEADLINE]
        for w in steps
    ]
    assert result.best == pytest.approx(max(values), abs=2e-3)
    assert values[round(10 * result.info["weight"])] == pytest.approx(max(values), abs=2e-3)
    swapped = split.__class__(**{**vars(split), "test": Queries(split.test.users[::-1], split.test.ends[::-1])})
    assert combined(swapped, parts, "id+text")[0].info["weight"] == result.info["weight"]


def test_the_scale_of_a_models_scores_does_not_matter(split, trained):
    settings = ensemble.Settings()
    models = [ensemble._load(one, weights, split, spectrum_of(split), settings) for one, weights in trained]
    before, _ = Ensemble(models[:2], split, True).ranks_and_lists(split.test, [0.5, 0.5], 0)
    norm = models[0].model.backbone.norm
    with torch.no_grad():
        norm.weight *= 1000
        norm.bias *= 1000
    after, _ = Ensemble(models[:2], split, True).ranks_and_lists(split.test, [0.5, 0.5], 0)
    assert np.mean(before.low == after.low) > 0.99


def test_a_model_with_itself_ranks_as_it_does_alone(split, trained):
    one, weights = trained[0]
    alone = trial.run(one, split, spectrum_of(split))[1].ranks
    _, left = combined(split, [(one, weights), (one, weights)], "id+id")
    assert np.mean(alone.low == left.ranks.low) > 0.99


def test_costs_and_parameters_are_recorded(split, trained):
    result, left = combined(split, trained[:2], "id+id")
    single = sum(v.numel() for k, v in safetensors.torch.load(trained[0][1]).items() if k != "item_table")
    assert result.info["parameters"] == 2 * single
    assert result.info["seconds"] > 0
    assert result.curve == []
    assert left.weights == b""


def test_weights_of_other_shapes_are_refused_with_the_reason(split, trained):
    (one, weights), other = trained[0], a_trial("id", epochs=2, **{"train.d": 8})
    with pytest.raises(trial.TrialFailed, match="do not fit"):
        ensemble.run(one, [(other, weights), (other, weights)], split, lambda part: spectrum_of(split))


def test_an_ensemble_needs_the_test(split, trained):
    with pytest.raises(ValueError, match="unsealed"):
        combined(split.sealed(), trained[:2], "id+id")


def test_the_trial_of_weights_is_read_from_them(trained):
    assert [ensemble.trial_of(weights).id for _, weights in trained] == [one.id for one, _ in trained]
    assert ensemble.trial_of(trained[0][1]).protocol == Protocol()

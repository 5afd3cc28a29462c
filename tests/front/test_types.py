from dataclasses import replace

import pytest

from harness.types import Cell, Inputs, Protocol, Trial

BASE = Trial(Cell("a", "minilm", "sasrec", "mlp"), "search", 0, 8, 3, {"train.lr": 0.1}, Protocol(), Inputs(data="h"))


@pytest.mark.parametrize(
    "changed",
    [
        {"cell": Cell("a", "minilm", "gru4rec", "mlp")},
        {"cell": Cell("a", "minilm", "sasrec", "svd")},
        {"role": "confirm"},
        {"seed": 1},
        {"epochs": 9},
        {"patience": 4},
        {"params": {"train.lr": 0.2}},
        {"params": {"train.lr": 0.1, "adapter.hidden": 64}},
        {"protocol": Protocol("gts")},
        {"protocol": Protocol(filter_seen=False)},
        {"inputs": Inputs(data="other")},
    ],
)
def test_identity_changes_with_what_changes_the_result(changed):
    assert replace(BASE, **changed).id != BASE.id


def test_identity_does_not_change_with_names_of_data_and_encoder():
    assert replace(BASE, cell=Cell("renamed", "file:moved.npy", "sasrec", "mlp")).id == BASE.id


def test_a_trial_survives_json():
    assert Trial.from_json(BASE.to_json()) == BASE
    assert Trial.from_json(BASE.to_json()).id == BASE.id


def test_order_of_parameters_is_no_part_of_identity():
    one = replace(BASE, params={"a": 1, "b": 2})
    assert replace(BASE, params={"b": 2, "a": 1}).id == one.id

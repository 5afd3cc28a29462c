"""ONNX graphs of exported models give PyTorch's states and scores at any batch and length."""

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from harness import registry
from harness.training.exported_model import Recommender
from harness.types import HarnessError
from harness.workflows import export_onnx

BACKBONES = registry.names(registry.BACKBONES)
ITEMS, D, MAX_LEN = 30, 16, 9


def recommender(backbone, loss="softmax", adapter="id", max_len=MAX_LEN):
    """A model of random weights."""
    torch.manual_seed(0)
    module = registry.load(registry.BACKBONES, backbone)(D, max_len)
    parts = {"adapter": adapter, "backbone": backbone, "loss": loss}
    config = {
        "components": {kind: {"name": name, "params": {}} for kind, name in parts.items()},
        **{"d": D, "max_len": max_len, "filter_seen": False, "row": "toy", "trial": "t", "harness": "0"},
    }
    weights = {f"backbone.{name}": value for name, value in module.state_dict().items()}
    kind, ids = registry.load(registry.ADAPTERS, adapter), [f"i{i}" for i in range(ITEMS)]
    params = registry.schema(registry.ADAPTERS, adapter).params
    config["components"]["adapter"]["params"] = params
    if (mixer := kind.mixer_of(D, params)) is not None:
        weights |= {f"mixer.{name}": value for name, value in mixer.state_dict().items()}
    return Recommender(
        config, ids, torch.randn(ITEMS, kind.views * D), torch.ones(ITEMS, dtype=torch.int64), weights, None
    )


def check(model, file):
    """Compare the graph with the model's own states and scores, which do not go through the graph's code."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    max_len = model.config["max_len"]
    for rows, longest in ((1, 1), (1, max_len), (4, min(3, max_len)), (150, min(6, max_len)), (2, max_len)):
        lengths = [longest, *rng.integers(1, longest + 1, rows - 1)]
        histories = [rng.integers(1, ITEMS + 1, n).tolist() for n in lengths]
        times = [np.sort(rng.integers(0, 10**8, n + 1)).tolist() for n in lengths] if model.needs_times else None
        inputs = {"items": padded(histories, longest)}
        if times:
            inputs["times"] = padded(times, longest + 1)
        states, scores = session.run(None, inputs)
        assert scores.shape == (rows, ITEMS)
        for wanted, actual in ((model.states(histories, times), states), (model.scores(histories, times), scores)):
            np.testing.assert_allclose(actual, wanted.numpy(), atol=1e-4 * wanted.abs().max().item())


def padded(rows, width):
    return np.array([[*row, *[0] * (width - len(row))] for row in rows], np.int64)


@pytest.mark.parametrize(
    "backbone", [name if name == "sasrec" else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES]
)
def test_a_graph_of_every_backbone_answers_alike_at_any_batch_and_length(backbone, tmp_path):
    model, file = recommender(backbone), tmp_path / export_onnx.FILE
    report = export_onnx.write(model, file)
    assert report.difference <= export_onnx.TOLERANCE
    assert report.lengths[0] == 1
    assert report.lengths[-1] == MAX_LEN
    onnx.checker.check_model(str(file))
    check(model, file)


@pytest.mark.slow
def test_scores_of_a_loss_that_normalises_are_those_of_the_model(tmp_path):
    model, file = recommender("gru4rec", "infonce"), tmp_path / export_onnx.FILE
    export_onnx.write(model, file)
    check(model, file)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["llmesr", "tedrec"])
def test_items_of_several_views_are_mixed_in_the_graph(adapter, tmp_path):
    model, file = recommender("sasrec", adapter=adapter), tmp_path / export_onnx.FILE
    export_onnx.write(model, file)
    check(model, file)


@pytest.mark.slow
@pytest.mark.parametrize("max_len", [1, 2])
def test_short_rows_are_exported(max_len, tmp_path):
    model, file = recommender("sasrec", max_len=max_len), tmp_path / export_onnx.FILE
    assert export_onnx.write(model, file).lengths[-1] == max_len
    check(model, file)


@pytest.mark.slow
def test_a_large_table_lies_in_a_second_file(monkeypatch, tmp_path):
    monkeypatch.setattr(export_onnx, "LARGEST_FILE", 0)
    model, file = recommender("gru4rec"), tmp_path / export_onnx.FILE
    export_onnx.write(model, file)
    assert (tmp_path / f"{export_onnx.FILE}.data").stat().st_size > ITEMS * D * 4
    check(model, file)


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    with pytest.raises(HarnessError, match=r"needs the package onnxscript; install the extra: pip install .*\[onnx\]"):
        export_onnx.require()


def test_a_backbone_that_cannot_be_exported_is_one_line_and_leaves_no_file(monkeypatch, tmp_path):
    model = recommender("sasrec")
    monkeypatch.setattr(
        type(model.model.backbone), "forward", lambda self, x, real, times=None: x if x.sum() > 0 else -x
    )
    with pytest.raises(HarnessError, match="Backbone sasrec cannot be exported to ONNX") as raised:
        export_onnx.write(model, tmp_path / export_onnx.FILE)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_graph_that_differs_is_refused_and_removed(monkeypatch, tmp_path):
    file = tmp_path / export_onnx.FILE
    monkeypatch.setattr(export_onnx, "TOLERANCE", -1.0)
    with pytest.raises(HarnessError, match="differs from PyTorch"):
        export_onnx.write(recommender("gru4rec"), file)
    assert not file.exists()

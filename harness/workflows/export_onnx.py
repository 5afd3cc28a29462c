"""Write an exported model as an ONNX graph from item numbers to states and scores, and compare it with PyTorch."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones._base import MASKED
from harness.training.exported_model import Recommender
from harness.types import HarnessError

FILE = "backbone.onnx"
NEEDED = ("onnx", "onnxscript")
TOLERANCE = 1e-4  # of an output, relative to the largest
LARGEST_FILE = 2**30  # bytes of the item table; protobuf cannot hold more than 2 GiB in one file
INPUTS, OUTPUTS = ("items", "times"), ("states", "scores")


@dataclasses.dataclass(frozen=True)
class OnnxReport:
    """Result of the self-test: the largest difference from PyTorch over `lengths`, relative to the largest output."""

    file: Path
    difference: float
    evaluator: str
    lengths: list[int]


def require() -> None:
    """Raise HarnessError if a package is missing that writes ONNX."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise HarnessError(
            f"--onnx needs the package {' and '.join(missing)}; install the extra: "
            "pip install -c constraints.txt '.[onnx]'."
        )


def write(model: Recommender, file: Path) -> OnnxReport:
    """Write the graph of a model to `file` and test it.

    Inputs: `items` (B, L) int64 item numbers from 1, padded with 0 on the right, 1 <= L <= max_len, no empty row;
    `times` (B, L + 1) int64 seconds if the backbone reads them. Outputs: `states` (B, w) and `scores` (B, N) float32,
    column i the item with number i + 1. Raises HarnessError if the graph cannot be exported or differs from PyTorch.
    """
    require()
    graph = _Graph(model).eval()
    name = model.config["components"]["backbone"]["name"]
    try:
        program = _exported(graph, model)
    except Exception as error:  # the exporter raises exceptions of many libraries
        raise HarnessError(
            f"Backbone {name} cannot be exported to ONNX: {_reason(error)}. The rest is exported."
        ) from error
    for key in ("row", "trial", "harness", "max_len"):
        program.model.metadata_props[f"harness.{key}"] = str(model.config.get(key, ""))
    external = graph.table.numel() * graph.table.element_size() > LARGEST_FILE
    program.save(str(file), external_data=external)
    try:
        return _self_test(graph, model, file)
    except Exception as error:
        for part in file.parent.glob(f"{file.name}*"):
            part.unlink()
        if isinstance(error, HarnessError):
            raise
        raise HarnessError(
            f"The ONNX graph of backbone {name} does not run at every batch and length: {_reason(error)}. "
            "The rest is exported."
        ) from error


class _Graph(nn.Module):
    """Item numbers to states and scores, without Python that depends on the size of the batch."""

    table: Tensor

    def __init__(self, model: Recommender) -> None:
        super().__init__()
        self.model, self.max_len = model.model, int(model.config["max_len"])
        adapter = self.model.table.adapter  # one that folds transforms whole rows: ONNX needs their length
        self.padded = self.model.backbone.unrolls or adapter.folds
        with torch.no_grad():
            self.register_buffer("table", model.model.table().detach())

    def forward(self, items: Tensor, times: Tensor | None = None) -> tuple[Tensor, Tensor]:
        backbone, at = self.model.backbone, (items > 0).sum(1, keepdim=True)
        if self.padded:  # fixed length; padding on the right changes no state before it
            place = torch.arange(self.max_len)
            inside = place < items.shape[1]
            items = torch.where(inside, items[:, place.clamp(max=items.shape[1] - 1)], 0)
        if backbone.mask is None:
            at = at - 1
        else:
            items = F.pad(items, (0, 1)).scatter(1, at, MASKED)
        h = self.model.states(items, self.table, times)
        h = self.model.project(h.gather(1, at[:, :, None].expand(-1, -1, h.shape[2]))[:, 0])
        return h, h @ self.model.project(self.model.scored(self.table[1:])).T


def _exported(graph: _Graph, model: Recommender) -> Any:
    """Return the ONNX program of a graph, with dynamic batch and length."""
    longest = graph.max_len
    batch = torch.export.Dim("batch", min=1, max=2**20)
    length: Any = torch.export.Dim("length", min=1, max=longest) if longest > 1 else 1
    lengths = ({0: batch, 1: length}, {0: batch, 1: length + 1}) if longest > 1 else ({0: batch}, {0: batch})
    example = _example(model, rows=3, length=min(longest, max(2, longest - 1)))  # a length of 1 would be fixed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        program = torch.export.export(
            graph, example, dynamic_shapes=lengths[: len(example)]
        )  # no fallback to fixed sizes
        return torch.onnx.export(
            program,
            dynamo=True,
            input_names=INPUTS[: len(example)],
            output_names=OUTPUTS,
            verbose=False,
        )


def _example(model: Recommender, rows: int, length: int) -> tuple[Tensor, ...]:
    """Draw inputs of the graph: the first row is full, the others have drawn lengths."""
    rng = np.random.default_rng(length)
    items = rng.integers(1, len(model.ids) + 1, size=(rows, length))
    for row in range(1, rows):
        items[row, rng.integers(1, length + 1) :] = 0
    times = np.sort(rng.integers(10**9, 10**9 + 10**7, size=(rows, length + 1)), axis=1)
    return tuple(map(torch.from_numpy, (items, times) if model.needs_times else (items,)))


def _self_test(graph: _Graph, model: Recommender, file: Path) -> OnnxReport:
    """Compare both outputs over lengths up to max_len and several sizes of batch."""
    evaluate, evaluator = _evaluator(file)
    lengths = sorted({1, 2, 5, graph.max_len // 2, graph.max_len} & set(range(1, graph.max_len + 1)))
    worst = 0.0
    for rows, length in zip((1, 2, 3, 7, 1), lengths, strict=False):
        example = _example(model, rows, length)
        with torch.no_grad():
            expected = [output.numpy() for output in graph(*example)]
        actual = evaluate({name: value.numpy() for name, value in zip(INPUTS, example, strict=False)})
        for wanted, got in zip(expected, actual, strict=True):
            off = float(np.abs(wanted - got).max() / max(1e-6, np.abs(wanted).max()))
            if not off <= TOLERANCE:
                raise HarnessError(
                    f"{file} differs from PyTorch by {off:.2g} of the largest output at length {length}."
                )
            worst = max(worst, off)
    return OnnxReport(file, worst, evaluator, lengths)


def _evaluator(file: Path) -> tuple[Callable[[dict[str, np.ndarray]], list[Any]], str]:
    """Return a function from inputs to outputs and its name: onnxruntime if installed, else ONNX's reference."""
    try:
        import onnxruntime
    except ImportError:
        import onnx
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(file))
        return lambda inputs: list(reference.run(None, inputs)), f"the reference evaluator of onnx {onnx.__version__}"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda inputs: list(session.run(None, inputs)), f"onnxruntime {onnxruntime.__version__}"


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).splitlines()), type(error).__name__)[:200].rstrip(".")

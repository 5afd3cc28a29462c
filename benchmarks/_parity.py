"""Loss and gradients of one step on a device, compared with the CPU, for combinations of components."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, product
from typing import Any

import growth
import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from harness import registry
from harness.data.splits import Split
from harness.search import spaces
from harness.training import batches, trial
from harness.training.model import Batch, SequenceModel
from harness.types import Cell, Inputs, Protocol, Trial

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-3  # relative, L2 norm of each parameter
NEGLIGIBLE = 1e-3  # of the whole gradient's norm: a parameter below it is compared with this share instead
USERS, ITEMS, TEXT = 24, 120, 48
SMALL = {"train.d": 16, "train.max_len": 12, "train.batch_size": 128}
FACTORIES = (torch.rand, torch.randn, torch.randint, torch.randperm, torch.rand_like, torch.randn_like)
IN_PLACE = (Tensor.random_, Tensor.uniform_, Tensor.normal_, Tensor.bernoulli_)

Combination = tuple[str, str, str]  # adapter, backbone, loss


class Refused(Exception):
    """The components cannot be combined; the device plays no part."""


class DrawOnCPU(TorchFunctionMode):
    """Draw every random number on the CPU and copy it to `device`, so that two devices see the same draws."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device, self.generator = device, torch.Generator().manual_seed(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in FACTORIES and func not in IN_PLACE:
            return func(*args, **kwargs)
        host = [x.detach().cpu() if isinstance(x, Tensor) else x for x in args]
        if func in FACTORIES:
            kwargs["device"] = "cpu"
            return func(*host, **kwargs | {"generator": self.generator}).to(self.device)
        kwargs["generator"] = self.generator
        return args[0].copy_(func(torch.empty_like(host[0]), *host[1:], **kwargs))


def combinations() -> list[Combination]:
    """All adapters x backbones x losses: first each pair with `id`, `sasrec` or `softmax` as the third, then the rest
    in a fixed random order, so that a run that ends early has seen every component."""
    adapters, backbones, losses = map(registry.names, (registry.ADAPTERS, registry.BACKBONES, registry.LOSSES))
    pairs = chain(
        product(adapters, ["sasrec"], ["softmax"]),
        product(["id"], backbones, ["softmax"]),
        product(["id"], ["sasrec"], losses),
        product(adapters, backbones, ["softmax"]),
        product(adapters, ["sasrec"], losses),
        product(["id"], backbones, losses),
    )
    rest = list(product(adapters, backbones, losses))
    np.random.default_rng(0).shuffle(rest)
    return list(dict.fromkeys([*pairs, *(tuple(map(str, row)) for row in rest)]))  # pyright: ignore[reportReturnType]


def compare(device: torch.device, seconds: float, chosen: list[Combination]) -> list[dict[str, Any]]:
    """One row a combination: relative differences of loss and gradients, or the error. Stops after `seconds`."""
    split, spectrum = data()
    rows, end = [], time.monotonic() + seconds
    for combination in chosen:
        if time.monotonic() > end:
            break
        row: dict[str, Any] = dict(zip(("adapter", "backbone", "loss"), combination, strict=True))
        try:
            row |= differences(combination, split, spectrum, device)
        except Refused as error:
            row["refused"] = str(error)
        except Exception as error:  # one combination must not end the run
            row["error"] = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        rows.append(row)
    return rows


def data() -> tuple[Split, Any]:
    split = growth.random_split(USERS, ITEMS, (2, 16))
    generator = torch.Generator().manual_seed(0)
    E = torch.randn(ITEMS, TEXT, generator=generator)
    U, S, Vt = torch.linalg.svd(E - E.mean(0), full_matrices=False)
    arrays = {"U": U, "S": S, "V": Vt.T.contiguous(), "mean": E.mean(0), "E": E}
    times = np.arange(len(split.items), dtype=np.int64) * 3600
    return replace(split, times=times), trial.spectrum({name: x.numpy() for name, x in arrays.items()}, 0)


def differences(combination: Combination, split: Split, spectrum: Any, device: torch.device) -> dict[str, float]:
    """Relative differences between one step on the CPU and on `device`, without dropout. float32, TF32 off."""
    adapter, backbone, loss = combination
    cell = Cell("random", "random", backbone, adapter)
    point = spaces.of_cell(cell, spaces.SpaceSource(fixed={"train.loss": loss})).default
    point = {name: 0.0 if "dropout" in name else value for name, value in point.items()} | SMALL
    torch.manual_seed(0)
    try:
        model = trial.build(Trial(cell, "search", 0, 1, 0, point, Protocol(), Inputs()), split, spectrum)
    except ValueError as error:
        raise Refused(str(error)) from error
    sides = [step(copy.deepcopy(model), split, place) for place in (torch.device("cpu"), device)]
    (expected, wanted), (value, gradients) = sides
    if not torch.isfinite(expected) or not torch.isfinite(value):
        raise ArithmeticError(f"loss is {expected.item()} on the CPU, {value.item()} on the device")
    return {"loss difference": relative(value, expected, 0.0), "gradient difference": worst(gradients, wanted)}


def worst(gradients: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Largest relative difference among the gradients. Raises ArithmeticError if a parameter has one on one side only
    or none has any."""
    if gradients.keys() != wanted.keys() or not wanted:
        raise ArithmeticError(f"gradients of {sorted(gradients.keys() ^ wanted.keys())} exist on one side only")
    whole = float(sum(x.double().norm() ** 2 for x in wanted.values()) ** 0.5)
    return max(relative(gradients[name], wanted[name], NEGLIGIBLE * whole) for name in wanted)


def relative(value: Tensor, expected: Tensor, least: float) -> float:
    """Norm of the difference over the norm of `expected`, which counts as at least `least`."""
    off, size = (value.double() - expected.double()).norm().item(), expected.double().norm().item()
    return off / max(size, least, 1e-30)


def step(model: SequenceModel, split: Split, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of the first batch, on the CPU."""
    model = model.to(device).train()
    starts, lengths = next(_cuts(split))
    items, times = (torch.tensor(x, device=device) for x in (split.items, split.times))
    users = torch.from_numpy(np.searchsorted(split.offsets, starts, side="right") - 1).to(device)
    clock = batches.gather(times, starts, lengths) if model.backbone.uses_time else None
    places = batches.to_device(batches.target_places(lengths), device)
    batch = Batch(batches.gather(items, starts, lengths), users, clock, places=places)
    with DrawOnCPU(device):
        loss = model.loss(batch, torch.Generator(device).manual_seed(0))
        loss.backward()
    gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
    return loss.detach().cpu(), gradients


def _cuts(split: Split) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    windows = batches.Windows.of(split, int(SMALL["train.max_len"]))
    return windows.batches(int(SMALL["train.batch_size"]), np.random.default_rng(0))


def failures(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that raised or exceed a tolerance."""
    return [row for row in rows if "refused" not in row and not _equal(row)]


def _equal(row: dict[str, Any]) -> bool:
    near = "error" not in row and row["loss difference"] <= LOSS_TOLERANCE
    return near and row["gradient difference"] <= GRADIENT_TOLERANCE

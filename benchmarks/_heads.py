"""Softmax heads of `gpu.py`: the fused loss by block size, torch's heads and those of installed libraries."""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from _card import Settings, attempt, precise
from torch import Tensor, nn
from torch.nn import functional as F

from harness.training.losses import _fused

BLOCKS = tuple(2**k for k in (22, 24, 25, 26, 27, 28))  # logits per block of the fused loss


def row(settings: Settings, P: int, N: int, d: int, precision: str) -> dict[str, object]:
    precise(precision)
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    g = torch.Generator().manual_seed(0)
    h = torch.randn(P, d, generator=g).to(settings.device).requires_grad_()
    items = (torch.randn(N, d, generator=g) * 0.3).to(settings.device).requires_grad_()
    target = torch.randint(N, (P,), generator=g).to(settings.device)
    sides: dict[str, Callable[[], Tensor]] = {
        f"ours 2^{blocks.bit_length() - 1}": lambda b=blocks: ours(b, h, items, target, kind)
        for blocks in (BLOCKS[:2] if settings.small else BLOCKS)
    }
    sides["cross_entropy"] = lambda: F.cross_entropy((h.to(kind) @ items.to(kind).T).float(), target)
    if hasattr(F, "linear_cross_entropy"):
        sides["linear_cross_entropy"] = lambda: F.linear_cross_entropy(h.to(kind), items.to(kind), target)
    sides |= peers(h, items, target, kind)
    bound = products(settings, P, N, d, kind)
    result: dict[str, object] = {"products": bound, "Liger": "not installed", "cut-cross-entropy": "not installed"}
    for name, side in sides.items():
        result |= attempt(lambda n=name, s=side: {n: timed(settings, s, h, items)}, (name,))
    fastest = min((v for k, v in result.items() if k.startswith("ours") and isinstance(v, float)), default=None)
    return result | {"of the products": f"{bound / fastest:.0%}" if fastest else "–"}


def ours(blocks: int, h: Tensor, items: Tensor, target: Tensor, kind: torch.dtype) -> Tensor:
    key, before = (h.device.type, kind), dict(_fused.BLOCK_ELEMENTS)
    _fused.BLOCK_ELEMENTS[key] = blocks
    try:
        return _fused.softmax_loss(h, items, target, blocks=kind)
    finally:
        _fused.BLOCK_ELEMENTS.clear()
        _fused.BLOCK_ELEMENTS.update(before)


def peers(h: Tensor, items: Tensor, target: Tensor, kind: torch.dtype) -> dict[str, Callable[[], Tensor]]:
    """Fused heads of other libraries that are installed."""
    sides: dict[str, Callable[[], Tensor]] = {}
    if importlib.util.find_spec("liger_kernel"):
        module = importlib.import_module("liger_kernel.transformers")
        liger: nn.Module = module.LigerFusedLinearCrossEntropyLoss()
        sides["Liger"] = lambda: liger(items.to(kind), h.to(kind), target)
    if importlib.util.find_spec("cut_cross_entropy"):
        cce = importlib.import_module("cut_cross_entropy").linear_cross_entropy
        sides["cut-cross-entropy"] = lambda: cce(h.to(kind), items.to(kind), target)
    return sides


def products(settings: Settings, P: int, N: int, d: int, kind: torch.dtype) -> float:
    """Milliseconds of the three products of a step at the card's rate for a square product."""
    side = 256 if settings.small else 8192
    a = torch.randn(side, side, device=settings.device).to(kind)
    seconds = median(settings, lambda: a @ a)
    return 1e3 * (3 * 2 * P * N * d) / (2 * side**3 / seconds)


def timed(settings: Settings, loss: Callable[[], Tensor], *leaves: Tensor) -> float:
    """Median milliseconds of loss and gradients."""

    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return 1e3 * median(settings, call)


def median(settings: Settings, call: Callable[[], object], repeats: int = 7) -> float:
    """Median seconds of `call`, after two untimed calls."""
    seconds = []
    for _ in range(repeats + 2):
        settings.wait()
        start = time.perf_counter()
        call()
        settings.wait()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])

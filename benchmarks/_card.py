"""Settings of `gpu.py`, and helpers that keep a run going."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

PRECISIONS = ("float32", "TF32", "bfloat16")


@dataclass(frozen=True)
class Settings:
    """Device, size and time of a run."""

    device: torch.device
    small: bool

    @property
    def budgets(self) -> dict[str, float]:
        """Seconds of each section."""
        if self.small:
            return {"parity": 8, "speed": 8, "head": 5, "compiled": 90, "side": 20}
        return {"parity": 90, "speed": 100, "head": 60, "compiled": 80, "side": 80}

    @property
    def stretch(self) -> float:
        """Seconds that a rate is measured over."""
        return 0.1 if self.small else 1.5

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def precise(precision: str) -> None:
    """Set the precision of float32 products: TF32 for `TF32`, else full."""
    torch.set_float32_matmul_precision("high" if precision == "TF32" else "highest")


def attempt(call: Callable[[], dict[str, object]], columns: tuple[str, ...]) -> dict[str, object]:
    """The result of `call`, or its error in the first of `columns`."""
    try:
        return call()
    except Exception as error:  # a case that fails must not end the run
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:120]
        row: dict[str, object] = dict.fromkeys(columns, "–")
        return row | {columns[0]: reason}


def left_out(names: list[str]) -> str:
    return f"Left out for lack of time: {'; '.join(names)}." if names else "Nothing was left out."

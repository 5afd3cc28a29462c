"""Precision of matrix products: TF32 on a GPU, and the speed of bfloat16."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def bfloat16_slows() -> float:
    """Time of a matrix product in bfloat16 over that in float32 on this processor: below 1 with bfloat16 instructions,
    about 10 without. Takes some milliseconds."""

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.ones(256, 64, dtype=dtype), torch.ones(64, 2048, dtype=dtype)
        torch.mm(a, b)  # the first call compiles the kernel
        start = time.process_time()
        for _ in range(4):
            torch.mm(a, b)
        return time.process_time() - start

    return seconds(torch.bfloat16) / seconds(torch.float32)


def use_tf32(device: str) -> bool:
    """Have this process compute float32 products in TF32 if `device` is "cuda"; return whether it does."""
    if device != "cuda":
        return False
    torch.set_float32_matmul_precision("high")
    return True


@contextmanager
def exact() -> Iterator[None]:
    """Compute float32 products in full float32 inside, also where training uses TF32.

    Ranking compares a target's score, a sum of products of its own, with scores of matrix products: in TF32 they differ
    by a thousandth, items with equal vectors would lie all above or all below the target, and an export on a CPU would
    not reproduce the ranks. cuDNN, which computes recurrent layers and convolutions, has a switch of its own, which is
    on unless it is changed.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = cudnn

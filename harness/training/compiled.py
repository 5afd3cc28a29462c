"""The forward pass of a backbone through `torch.compile`: fewer and larger kernels, replayed as CUDA graphs if wanted.

Batches are cut by length, so nearly every step has a shape of its own, and a CUDA graph has one. Batches are therefore
padded to a few sizes: on shapes like those of Amazon Beauty and MovieLens-1M, steps of 1,024 targets come in 14 and 35
shapes and have 29 and 7 % more positions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from backbones._base import Backbone

MODES = {"kernels": "default", "graphs": "reduce-overhead"}  # train.compile -> mode of torch.compile
LEAST = 8  # positions of a row

Forward = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def forward(backbone: Backbone, mode: str) -> Forward:
    """A function like `backbone.forward` (x, real, times) that pads, computes compiled, and cuts the padding off.

    mode: a key of `MODES`; on a CPU, `graphs` is `kernels`. The first call compiles, for all shapes at once. Kernels of
    earlier models of this process are dropped: they would count towards the limit above which PyTorch stops compiling.
    """
    torch.compiler.reset()
    compiled = torch.compile(backbone.forward, dynamic=True, mode=MODES[mode])
    most = backbone.max_len + (backbone.mask is not None)

    def call(x: Tensor, real: Tensor, times: Tensor | None = None) -> Tensor:
        B, L = real.shape
        rows, length = size(B) - B, min(max(size(L), LEAST), most) - L
        x = F.pad(x, (0, 0, 0, length, 0, rows))
        # Rows of padding are read as real: attention over no key at all would be NaN, in the gradient too.
        real = F.pad(F.pad(real, (0, length)), (0, 0, 0, rows), value=True)
        times = None if times is None else F.pad(times, (0, length, 0, rows))
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(x, real, times)[:B, :L]

    return call


def size(n: int) -> int:
    """The smallest of the sizes 1 to 8, 10, 12, 14, 16, 20, ... (four from each power of two to the next) that is at
    least n.

    >>> [size(n) for n in (1, 7, 9, 17, 33, 100)]
    [1, 7, 10, 20, 40, 112]
    """
    unit = max(1, (1 << ((n - 1).bit_length() - 1)) // 4) if n > 1 else 1
    return -(-n // unit) * unit

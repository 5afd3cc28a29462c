"""Base classes of losses: `Loss`, and `Sampled` for losses over drawn negatives.

Letters: P positions, N items of the catalogue, n rows of the given table, d model dimension, m negatives.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

# Ranges of hyper-parameters, read from the source (`harness.domains`).
Negatives = Annotated[int, ">= 1", "<= 1048576"]
Probability = Annotated[float, ">= 0", "<= 1"]
Positive = Annotated[float, "> 0"]


class Loss:
    """A training loss of states and targets against an item table.

    A subclass takes ``(n_items, *, <its hyper-parameters>)``; the keyword-only parameters and their defaults are its
    schema. Raise ``version`` when behaviour changes. The constructor raises ValueError, in one clear sentence, if the
    loss cannot be built for a catalogue of ``n_items``.
    """

    version = 1

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def draw(self, positions: int, generator: torch.Generator) -> Tensor | None:
        """Draw negatives, int64 item indices in [0, N): (m,) shared by all positions or (P, m), on the generator's
        device.

        None: score the whole catalogue; `__call__` then gets all N rows.
        """
        return None

    def project(self, x: Tensor) -> Tensor:
        """Map states or item vectors x (..., d) to the space where their dot product orders items as the loss does.

        Identity by default: scores are dot products. Ranking uses project(h) @ project(table)^T.
        """
        return x

    def __call__(self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean loss over the positions, shape (). h: (P, d); table: (n, d), without the padding row; target: (P,)
        int64; negatives: the result of `draw`. Both are indices into ``table``."""
        raise NotImplementedError


class Sampled(Loss):
    """A loss over ``m`` uniform negatives, drawn with replacement. Negatives equal to a position's target are ignored.

    Raises ValueError if ``m`` is below 1 or the catalogue has no second item.
    """

    def __init__(self, n_items: int, m: int) -> None:
        super().__init__(n_items)
        if m < 1:
            raise ValueError(f"a sampled loss needs at least 1 negative, but m is {m}")
        if n_items < 2:
            raise ValueError(f"a sampled loss needs a second item as a negative, but the catalogue has {n_items}")
        self.m = m


def check(h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Return the negatives. Raises ValueError if shapes disagree, negatives are not of ``shape``, or P is 0."""
    actual = None if negatives is None else tuple(negatives.shape)
    if h.ndim != 2 or table.ndim != 2 or h.shape[1] != table.shape[1] or target.shape != h.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (h, table, target))
        raise ValueError(f"a loss takes h (P, d), table (n, d), target (P,), not {shapes}")
    if not len(h):
        raise ValueError("a loss cannot be computed for 0 positions")
    if negatives is None or actual != shape:
        raise ValueError(f"negatives have shape {actual}; this loss takes {shape}, as returned by draw")
    return negatives

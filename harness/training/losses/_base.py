"""What a loss owes (`Loss`), and what losses over drawn negatives share (`Sampled`).

Letters: P positions, N items of the catalogue, n rows of the table at hand, d model dimension, m negatives.
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
    """States and targets against an item table, a number to minimise.

    A subclass takes ``(n_items, *, <its hyper-parameters>)``; the keyword-only parameters and their defaults are its
    schema. ``version`` is raised when behaviour changes. Raises ValueError, one clear sentence, where it cannot be
    built for a catalogue of ``n_items``.
    """

    version = 1

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def draw(self, positions: int, generator: torch.Generator) -> Tensor | None:
        """Negatives as int64 item indices in [0, N): (m,) shared by all positions or (P, m); on the generator's device.

        None: the whole catalogue is scored, and `__call__` is given all N rows.
        """
        return None

    def project(self, x: Tensor) -> Tensor:
        """x (..., d), states or item vectors, in the space where their dot product orders the items as the loss does.

        The default is the identity: scores are dot products. Ranking uses project(h) @ project(table)^T.
        """
        return x

    def __call__(self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None) -> Tensor:
        """Mean over the positions, shape (). h: (P, d); table: (n, d), without the padding row; target: (P,) int64;
        negatives: what `draw` gave. Both are indices into ``table``."""
        raise NotImplementedError


class Sampled(Loss):
    """A loss over ``m`` uniform negatives, drawn with replacement. One that is a position's own target does not count.

    Raises ValueError where ``m`` is below 1 or the catalogue has no second item.
    """

    def __init__(self, n_items: int, m: int) -> None:
        super().__init__(n_items)
        if m < 1:
            raise ValueError(f"a sampled loss draws at least 1 negative, m is {m}")
        if n_items < 2:
            raise ValueError(f"a sampled loss needs a second item as a negative, the catalogue has {n_items}")
        self.m = m


def check(h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """The negatives. Raises ValueError where shapes disagree, negatives are not of ``shape``, or nothing is scored."""
    found = None if negatives is None else tuple(negatives.shape)
    if h.ndim != 2 or table.ndim != 2 or h.shape[1] != table.shape[1] or target.shape != h.shape[:1]:
        shapes = ", ".join(str(tuple(t.shape)) for t in (h, table, target))
        raise ValueError(f"a loss takes h (P, d), table (n, d), target (P,), not {shapes}")
    if not len(h):
        raise ValueError("a loss has nothing to score: 0 positions")
    if negatives is None or found != shape:
        raise ValueError(f"negatives are {found}; this loss takes {shape}, as drawn")
    return negatives

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
Smoothing = Annotated[float, ">= 0", "< 1"]


class Loss:
    """A training loss of states and targets against an item table.

    A subclass takes ``(n_items, *, <its hyper-parameters>)``; the keyword-only parameters and their defaults are its
    schema. Raise ``version`` when behaviour changes. The constructor raises ValueError, in one clear sentence, if the
    loss cannot be built for a catalogue of ``n_items``.

    ``implied`` names hyper-parameters that came after results were recorded: at their default they are left out of a
    trial's identity, so this default must never change.
    ``needs_counts``: call `observe` before the first `draw`.
    """

    version = 1
    implied: tuple[str, ...] = ()
    needs_counts = False

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def observe(self, counts: Tensor) -> None:
        """Take the number of training events of each item, (N,) int64; no validation or test event is counted."""

    def draw(self, positions: int, generator: torch.Generator) -> Tensor | None:
        """Draw negatives, int64 item indices in [0, N): (m,) shared by all positions or (P, m), on the generator's
        device.

        None: score the whole catalogue; `__call__` then gets all N rows.
        """
        return None

    def log_expected(self, negatives: Tensor) -> Tensor | None:
        """Log of the expected number of draws of each negative, shape of `negatives`, item indices in [0, N).

        None: the loss corrects nothing.
        """
        return None

    def project(self, x: Tensor) -> Tensor:
        """Map states or item vectors x (..., d) to the space where their dot product orders items as the loss does.

        Identity by default: scores are dot products. Ranking uses project(h) @ project(table)^T.
        """
        return x

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        """Mean loss over the positions, shape (). h: (P, d); table: (n, d), without the padding row; target: (P,)
        int64; negatives: the result of `draw`. Both are indices into ``table``. expected: `log_expected` of the
        negatives, computed before they were renumbered to match ``table``."""
        raise NotImplementedError


class Sampled(Loss):
    """A loss over ``m`` negatives, drawn with replacement. Negatives equal to a position's target are ignored.

    Item j is drawn with probability q_j proportional to c_j^``alpha``, where c_j is the number of its training events,
    at least 1, so that every item can be a negative. ``alpha`` 0 is uniform, 1 the popularity.
    Raises ValueError if ``m`` is below 1, ``alpha`` outside [0, 1] or the catalogue has no second item.
    """

    def __init__(self, n_items: int, m: int, alpha: float = 0.0) -> None:
        super().__init__(n_items)
        if m < 1:
            raise ValueError(f"a sampled loss needs at least 1 negative, but m is {m}")
        if n_items < 2:
            raise ValueError(f"a sampled loss needs a second item as a negative, but the catalogue has {n_items}")
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha is {alpha}; it must be between 0 and 1")
        self.m, self.alpha, self.needs_counts = m, alpha, alpha > 0
        self.log_q: Tensor | None = None  # float64 (N,)
        self.cumulative: Tensor | None = None  # of q, float64 (N,)

    def observe(self, counts: Tensor) -> None:
        if counts.shape != (self.n_items,):
            raise ValueError(f"counts have shape {tuple(counts.shape)}; the catalogue has {self.n_items} items")
        weights = counts.double().clamp_min(1).pow(self.alpha)
        cumulative = weights.cumsum(0)
        self.cumulative, self.log_q = cumulative / cumulative[-1], (weights / cumulative[-1]).log()

    def sample(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw items from q, int64 of this shape, on the generator's device. Raises ValueError without counts."""
        device = generator.device
        if not self.needs_counts:
            return torch.randint(self.n_items, shape, generator=generator, device=device)
        if self.cumulative is None:
            raise ValueError(f"alpha is {self.alpha}; negatives by popularity need the counts of `observe`")
        self.cumulative = self.cumulative.to(device)
        u = torch.rand(shape, generator=generator, device=device, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, u, right=True)


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

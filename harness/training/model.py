"""The sequence model that is trained, ranked and exported: item table, backbone, score function. Torch only."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters._base import ItemTable, Step
from backbones._base import MASKED, Backbone
from harness.training import compiled
from harness.training.losses._base import Loss

# Share of items used in a step above which computing all rows costs no more: measured 0.65 (spectran) to 0.9 (mlp).
WHOLE_ABOVE = 0.6


@dataclass(frozen=True)
class Batch:
    """Windows of training histories. items: (B, L + 1) int64 item numbers, 0 = padding on the right; users: (B,)
    int64; times: (B, L + 1) int64 seconds, if the backbone reads them; epoch: number of the epoch, from 0; places:
    (P,) int64 flat positions in (B, L) of all real targets, ascending, if the host has computed them."""

    items: Tensor
    users: Tensor
    times: Tensor | None = None
    epoch: int = 0
    places: Tensor | None = None


class SequenceModel(nn.Module):
    """Item table and backbone under one score function: scores = project(backbone(table[items])) @ project(table)^T.

    If an item has k views, the backbone reads each separately; states and table rows are the k results concatenated.
    If the adapter folds them into one, states are d wide and `scored` selects the columns of the table that they meet.

    `candidates`: item indices (C,) int64, ascending, that the loss compares with; None for the whole catalogue. The
    criterion is then built for C items. Targets must be candidates.
    `compile`: how training steps compute the backbone, "none" or a mode of `compiled.MODES`. `in_parts`: whether a step
    sums the gradients of several losses; then nothing is compiled, as a CUDA graph would overwrite the first ones.
    """

    candidates: Tensor | None

    def __init__(
        self,
        table: ItemTable,
        backbone: Backbone,
        criterion: Loss,
        mixed_precision: bool = False,
        candidates: Tensor | None = None,
        compile: str = "none",
    ) -> None:
        super().__init__()
        self.register_buffer("candidates", candidates, persistent=False)
        self.table, self.backbone, self.criterion, self.mixed_precision = table, backbone, criterion, mixed_precision
        self.compiled = None if compile == "none" else compiled.forward(backbone, compile)
        self.in_parts = False

    def states(self, items: Tensor, table: Tensor, times: Tensor | None = None) -> Tensor:
        """States (B, L, k d) of item numbers (B, L), 0 = padding on the right, given the table (N + 1, k d); times
        (B, L + 1) if the backbone reads them."""
        return self._encode(items, table, times, None)

    def last_states(self, items: Tensor, table: Tensor, times: Tensor | None = None) -> Tensor:
        """States (B, k d) that score the item after each row of item numbers (B, L)."""
        at = (items > 0).sum(1)
        if self.backbone.mask is None:
            return self._encode(items, table, times, at - 1)
        return self._encode(F.pad(items, (0, 1)).scatter(1, at[:, None], MASKED), table, times, at)

    def _encode(self, items: Tensor, table: Tensor, times: Tensor | None, at: Tensor | None) -> Tensor:
        """States at every position, or at position ``at`` (B,) of each row."""
        adapter, backbone, k = self.table.adapter, self.backbone, self.table.adapter.views
        real = items != 0
        with self._mixed(table, on=("cuda",) if self.training else ()):  # ranks are in full precision
            x = F.embedding(items.clamp_min(0), table)
            if backbone.mask is not None:
                x = torch.where((items == MASKED)[..., None], backbone.mask.repeat(k), x)
            x = adapter.mix(x, real, backbone.causal)
            k = 1 if adapter.folds else k
            if k > 1:  # the backbone sees every view as a separate row
                x = x.unflatten(2, (k, -1)).permute(2, 0, 1, 3).flatten(0, 1)
                real = real.repeat(k, 1)
                at = None if at is None else at.repeat(k)
                times = None if times is None else times.repeat(k, 1)
            forward = self.compiled if self.compiled and self.training and not self.in_parts else backbone
            h = forward(x, real, times) if at is None else backbone.last(x, real, at, times)
        h = h if k == 1 else h.unflatten(0, (k, -1)).movedim(0, -2).flatten(-2)
        return h.to(table.dtype)

    def _mixed(self, table: Tensor, on: tuple[str, ...]) -> AbstractContextManager[Any]:
        """Autocast to the trial's precision on the device types `on`. On a CPU, a backbone's products are too narrow to
        repay the conversions; those over the catalogue gain there too."""
        kind = table.device.type
        return torch.autocast(kind, torch.bfloat16) if self.mixed_precision and kind in on else nullcontext()

    def scored(self, table: Tensor) -> Tensor:
        """The columns of rows of the table (..., k d) against which states are scored: all, or the first d if the
        adapter folds its views."""
        return table[..., : self.table.adapter.d] if self.table.adapter.folds else table

    def project(self, x: Tensor) -> Tensor:
        """Map states or item vectors (..., k d) to the space where their dot products are the scores of the loss."""
        return self.criterion.project(x)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Mean loss over the trained positions of a batch, plus the adapter's auxiliary loss."""
        self.table.adapter.draw()
        inputs, targets = self.backbone.views(batch.items, generator)
        places = self._places(batch, targets)
        target = targets.flatten().index_select(0, places)
        negatives = self.criterion.draw(len(target), generator)
        expected = None if negatives is None else self.criterion.log_expected(negatives)
        if negatives is None:
            table, (rows, wanted) = self.table(), (inputs, target)
        else:
            negatives = negatives if self.candidates is None else self.candidates[negatives]
            table, (rows, wanted, negatives) = self._rows(inputs, target, negatives + 1)
            negatives = negatives - 1
        states = self.states(rows, table, batch.times).flatten(0, 1).index_select(0, places)
        compared, wanted = table[1:], wanted - 1
        if negatives is None and self.candidates is not None:
            compared, wanted = compared[self.candidates], torch.searchsorted(self.candidates, wanted)
        with self._mixed(table, on=("cpu", "cuda")):
            loss = self.criterion(states, self.scored(compared), wanted, negatives, expected)
        extra = self.table.adapter.aux(self._step(batch, states, target - 1, table, targets > 0))
        return loss if extra is None else loss + extra

    def _places(self, batch: Batch, targets: Tensor) -> Tensor:
        """Flat positions (P,) int64 of the trained targets (B, L): those of the batch if the backbone trains every next
        item, as they need no wait for the device; else from the targets."""
        if batch.places is not None and type(self.backbone).views is Backbone.views:
            return batch.places
        return (targets > 0).flatten().nonzero().squeeze(1)

    def _step(self, batch: Batch, states: Tensor, target: Tensor, table: Tensor, trained: Tensor) -> Step:
        """The step for an auxiliary loss; trained: (B, L), the positions of ``states``."""
        whole = len(table) == self.table.adapter.n + 1

        def encode(items: Tensor) -> Tensor:
            if whole:
                return self.last_states(items, table)
            subtable, (rows,) = self._rows(items)
            return self.last_states(rows, subtable)

        longest, ends = self.backbone.max_len, self._ends(trained)
        return Step(batch.items, batch.users, states, target, encode, longest, batch.epoch, ends, self.candidates)

    def _ends(self, trained: Tensor) -> Tensor | None:
        """Places of the last trained position of each row among all of them; None unless all positions are trained."""
        if not self.backbone.causal:
            return None
        counts = trained.sum(1)
        return torch.where(counts > 0, counts.cumsum(0) - 1, -1)

    def _rows(self, *numbers: Tensor) -> tuple[Tensor, list[Tensor]]:
        """A table (n + 1, k d) with the rows of these item numbers (all rows if that costs no more), and the numbers
        renumbered to match it; padding and `MASKED` are unchanged."""
        used = torch.zeros(self.table.adapter.n + 1, dtype=torch.bool, device=numbers[0].device)
        used[0] = True
        for number in numbers:
            used.index_fill_(0, number.flatten().clamp_min(0), True)
        unique = used.nonzero().squeeze(1)
        if len(unique) > WHOLE_ABOVE * len(used):
            return self.table(), list(numbers)
        place = used.cumsum(0) - 1
        return self.table.rows(unique), [torch.where(n < 0, n, place[n.clamp_min(0)]) for n in numbers]

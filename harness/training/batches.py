"""Cut training histories into windows and group them into batches of equal weight with little padding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from adapters._base import Interactions
from harness.data.splits import Split, heads


def to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Copy an array to `device`; to a CUDA device through pinned memory, so that the host does not wait."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def target_places(lengths: np.ndarray) -> np.ndarray:
    """Flat positions of all real targets in a batch of windows of these `lengths`, padded to the longest, int64.

    Row by row in (rows, longest - 1): a window of n events has n - 1 targets, at its first positions.

    >>> target_places(np.array([3, 2, 4])).tolist()
    [0, 1, 3, 6, 7, 8]
    """
    counts = lengths - 1
    first = np.arange(len(lengths)) * counts.max(initial=0)
    return np.repeat(first - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


def pieces(starts: np.ndarray, lengths: np.ndarray, parts: int) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """Cut a batch of windows into up to `parts` pieces of about equal numbers of targets, in order: the share of the
    batch's targets, starts and lengths of each piece. Windows stay whole.

    >>> [(share, lengths.tolist()) for share, _, lengths in pieces(np.arange(4), np.array([2, 2, 3, 5]), 2)]
    [(0.5, [2, 2, 3]), (0.5, [5])]
    """
    if parts == 1:
        return [(1.0, starts, lengths)]
    counts = lengths - 1
    middle = np.cumsum(counts) - counts / 2
    of = np.minimum(middle * parts / counts.sum(), parts - 1).astype(np.int64)
    cuts = np.flatnonzero(np.diff(of)) + 1
    shares = [int(part.sum()) / int(counts.sum()) for part in np.split(counts, cuts)]
    return list(zip(shares, np.split(starts, cuts), np.split(lengths, cuts), strict=True))


def gather(items: Tensor, starts: np.ndarray, lengths: np.ndarray) -> Tensor:
    """Slices of a flat tensor as a right-padded int64 tensor (rows, longest), on the device of `items`: only starts and
    lengths are copied there."""
    begin, length = (to_device(x, items.device)[:, None] for x in (starts, lengths))
    positions = torch.arange(lengths.max(initial=0), device=items.device)
    real = positions < length
    return items[torch.where(real, begin + positions, 0)].long() * real


@dataclass(frozen=True)
class Windows:
    """Slices of training histories of up to max_len + 1 events, cut backwards from the end so that every event but a
    user's first is the target of exactly one window."""

    starts: np.ndarray  # in the split's flat items
    lengths: np.ndarray

    @classmethod
    def of(cls, split: Split, max_len: int) -> Windows:
        targets = np.maximum(split.train_ends - 1, 0)
        count = -(-targets // max_len)
        users = np.repeat(np.arange(len(targets)), count)
        nth = np.arange(len(users)) - np.repeat(np.cumsum(count) - count, count)
        ends = split.train_ends[users] - nth * max_len
        starts = np.maximum(ends - max_len - 1, 0)
        return cls(split.offsets[users] + starts, ends - starts)

    @property
    def targets(self) -> int:
        """Number of targets of an epoch."""
        return int(self.lengths.sum()) - len(self.lengths)

    def batches(self, size: int, rng: np.random.Generator, pool: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield starts and lengths of batches of windows, about `size` targets each, in random order.

        Windows are shuffled, then sorted by length within pools of `pool` batches, then the batches of a pool are
        shuffled. This gives little padding, steps of equal weight and a new order every epoch. Measured with 1,024
        targets on Amazon Beauty: 11 % of the positions are padding (87 % without pools), and 6 % of the windows that
        share a batch share one again in the next epoch (1.4 % under a full shuffle).
        """
        order = rng.permutation(len(self.starts))
        for chunk in _cut(order, self.lengths, size * pool):
            parts = _cut(chunk[np.argsort(self.lengths[chunk], kind="stable")], self.lengths, size)
            for index in rng.permutation(len(parts)):
                yield self.starts[parts[index]], self.lengths[parts[index]]


def _cut(windows: np.ndarray, lengths: np.ndarray, size: int) -> list[np.ndarray]:
    """Split `windows` into runs of about `size` targets."""
    before = np.cumsum(lengths[windows] - 1) - (lengths[windows] - 1)
    return np.split(windows, np.flatnonzero(np.diff(before // size)) + 1)


def interactions(split: Split) -> Interactions:
    """The training events of the split."""
    items = torch.from_numpy(split.items[heads(split.offsets, split.train_ends)].astype(np.int64) - 1)
    return Interactions(items, torch.from_numpy(np.concatenate(([0], np.cumsum(split.train_ends))).astype(np.int64)))

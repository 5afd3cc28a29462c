"""Grid search: a space as a finite set of points, in random order.

A choice contributes all its values; a range its values if there are at most `STEPS`, else `STEPS` values at equal
distances on its linear or log scale, including both ends. A conditional parameter has its values where its condition
holds, else its default. Points are numbered, not listed: a grid of nine axes has a million.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

from harness.search.axes import Choices, Range
from harness.search.spaces import Space
from harness.types import Json

STEPS = 4


def values(axis: Range | Choices) -> list[Any]:
    """Return the values of an axis in the grid, in order.

    >>> values(Range(1e-4, 1e-1, log=True)), values(Range(1, 3)), values(Range(0.0, 0.3))
    ([0.0001, 0.001, 0.01, 0.1], [1, 2, 3], [0.0, 0.1, 0.2, 0.3])
    """
    if isinstance(axis, Choices):
        return list(axis.values)
    if axis.low == axis.high:
        return [axis.low]
    step = axis.step or (1 if axis.integer else None)
    if step is not None and not axis.log:
        whole = [axis.low + i * step for i in range(int((axis.high - axis.low) / step + 1e-9) + 1)]
        kept = (
            whole if len(whole) <= STEPS else [whole[round(i * (len(whole) - 1) / (STEPS - 1))] for i in range(STEPS)]
        )
        return [int(v) if axis.integer else min(float(f"{v:.12g}"), axis.high) for v in kept]
    low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
    inner = [low + (high - low) * i / (STEPS - 1) for i in range(1, STEPS - 1)]
    spaced = [axis.low, *(float(f"{math.exp(v) if axis.log else v:.6g}") for v in inner), axis.high]
    return list(dict.fromkeys(round(v) for v in spaced)) if axis.integer else spaced


class GridPoints:
    """The points of a space without its default, which every search tries first. `len` counts them."""

    def __init__(self, space: Space) -> None:
        self.space = space
        axes = {name: values(axis) for name, axis in space.searched.items()}
        conditions = sorted({axis.when.name for axis in space.searched.values() if axis.when is not None})
        self._blocks: list[dict[str, list[Any]]] = []
        for combination in itertools.product(*(axes[name] for name in conditions)):
            point = dict(zip(conditions, combination, strict=True))
            active = [
                n for n, a in space.searched.items() if n not in point and (a.when is None or a.when.holds(point))
            ]
            self._blocks.append({name: [value] for name, value in point.items()} | {n: axes[n] for n in active})
        self._sizes = [math.prod(map(len, block.values())) for block in self._blocks]
        default = any(all(space.default[name] in options for name, options in block.items()) for block in self._blocks)
        self._whole = sum(self._sizes)
        self._size = self._whole - default

    def __len__(self) -> int:
        return self._size

    def _at(self, index: int) -> Json:
        """Return the searched parameters of a point by its number in the whole grid."""
        block = 0
        while index >= self._sizes[block]:
            index -= self._sizes[block]
            block += 1
        point = {}
        for name, options in self._blocks[block].items():
            index, place = divmod(index, len(options))
            point[name] = options[place]
        return point

    def points(self, seed: int) -> Iterator[Json]:
        """Yield all parameters of every point except the default, in an order drawn from the seed: the first points are
        spread over the grid, and a longer search starts like a shorter one."""
        draw, seen = random.Random(seed), set()
        while len(seen) < self._whole:
            index = draw.randrange(self._whole)
            if index in seen:
                continue
            seen.add(index)
            if (params := self.space.default | self._at(index)) != self.space.default:
                yield params

"""Types of options: numbers with bounds, paths."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from harness.paths import expanded

LARGEST = 1_000_000  # upper bound of every count


class BoundedInt(click.IntRange):
    """An integer from `least` to `LARGEST`: a larger count is a typing error that would run for years."""

    def __init__(self, least: int) -> None:
        super().__init__(least, LARGEST)


class FiniteFloat(click.FloatRange):
    """A finite number in a range. Click's range accepts NaN, and infinity if the range has no upper bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        """Click describes a range without bounds as `x<=None`."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class UserPath(click.Path):
    """A path. Its leading `~` is the user's folder: a shell leaves it in `--output=~/table.md`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return expanded(str(super().convert(value, param, ctx)))

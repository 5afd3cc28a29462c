"""Faults of a data set: `Finding`, and tests of ids, times and texts shared by `check`, preparation and card.

This module is cheap to import. The tests take plain series and arrays, so all callers can use them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness.types import Json

ERROR, WARNING, INFO = LEVELS = ("error", "warning", "info")
EXAMPLES = 3
LONGEST = 60  # characters shown of an example


@dataclass(frozen=True)
class Finding:
    """One fault, found in `count` of `total` units. `says`: the fault and its effect; `remedy`: one sentence.

    `level`: `error` is unusable or misleading, `warning` may harm results, `info` is good to know.
    """

    name: str
    level: str
    count: int
    total: int
    unit: str
    says: str
    remedy: str
    examples: tuple[str, ...] = ()

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0

    @property
    def sentence(self) -> str:
        """Return the fault, its count and its examples as one sentence, for a card or an error."""
        shown = f", e.g. {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.says[0].upper()}{self.says[1:]} ({self.count:,} of {self.total:,} {self.unit}{shown})."

    def to_json(self) -> Json:
        return asdict(self) | {"share": self.share, "examples": list(self.examples)}


def examples(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the first three values as short printable text."""
    shown = []
    for value in values:
        text = value if isinstance(value, str) and value == value.strip() and value.isprintable() else repr(value)
        shown.append(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
        if len(shown) == EXAMPLES:
            break
    return tuple(shown)


def level(share: float, limit: float) -> str:
    return WARNING if share > limit else INFO

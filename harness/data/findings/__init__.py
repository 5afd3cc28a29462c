"""Faults of data: `Finding`, and tests of ids, times and texts that `check`, the preparation and the card share.

This module is light to import. The tests take plain series and arrays, so that each is written once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

ERROR, WARNING, INFO = LEVELS = ("error", "warning", "info")
EXAMPLES = 3
LONGEST = 60  # characters of an example that are shown


@dataclass(frozen=True)
class Finding:
    """One fault: `count` of `total` units have it. `says`: what it is and does; `remedy`: one sentence.

    `level`: `error` cannot be used or would mislead, `warning` may cost something, `info` is good to know.
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
        """The fault, its count and its examples as one sentence, for a card or an error."""
        shown = f", e.g. {'; '.join(self.examples)}" if self.examples else ""
        return f"{self.says[0].upper()}{self.says[1:]} ({self.count:,} of {self.total:,} {self.unit}{shown})."

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"share": self.share, "examples": list(self.examples)}


def examples(values: Iterable[Any]) -> tuple[str, ...]:
    """The first three values as short printable text."""
    shown = []
    for value in values:
        text = value if isinstance(value, str) and value == value.strip() and value.isprintable() else repr(value)
        shown.append(text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}...")
        if len(shown) == EXAMPLES:
            break
    return tuple(shown)


def level(share: float, limit: float) -> str:
    return WARNING if share > limit else INFO

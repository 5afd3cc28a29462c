"""What an encoder is given (`Texts`) and what it owes (`Encoder`); light to import: no torch before `encode`.

An encoder is written ``name`` or ``name:argument``; the name is its file's, what is behind the colon is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from harness import files, registry
from harness.types import HarnessError

Progress = Callable[[int, int], None]  # told (done, total) as the work goes on


@dataclass(frozen=True)
class Texts:
    """A catalogue as an encoder sees it, one entry an item, in the order of the rows of E.

    ``texts``: None where an item has none. ``source_rows``: the item's row in the raw items file, which has
    ``n_source_rows`` rows; None for an item that the file does not hold.
    """

    item_ids: list[str]
    texts: list[str | None]
    source_rows: list[int | None]
    n_source_rows: int

    def __len__(self) -> int:
        return len(self.item_ids)


class Encoder:
    """Texts become a matrix E. A subclass is one module of this folder.

    ``version`` is raised when behaviour changes. ``takes`` says what is written behind the colon; empty: nothing.
    """

    version = 1
    takes = ""

    def __init__(self, argument: str, home: Path) -> None:
        """Raises HarnessError if an argument is missing or too many; reads nothing heavy."""
        self.name = type(self).__module__.rpartition(".")[2]
        self.argument, self.home = argument, home
        if self.takes and not argument:
            raise HarnessError(f"The encoder '{self.name}' needs {self.takes} behind a colon: {self.name}:...")
        if argument and not self.takes:
            raise HarnessError(f"The encoder '{self.name}' takes nothing behind a colon, but was given '{argument}'.")

    @property
    def word(self) -> str:
        """The encoder as it is written on the command line."""
        return f"{self.name}:{self.argument}" if self.argument else self.name

    def identity(self) -> dict[str, Any]:
        """What makes the output what it is, as JSON: weights, pooling, seeds; never a path. Imports nothing heavy."""
        return {"encoder": self.name, "version": self.version}

    def inputs(self, texts: Texts) -> list[Any]:
        """What of the catalogue the output depends on, as JSON."""
        return list(texts.texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """E, (N, D) float32; a zero row where an item has no text."""
        raise NotImplementedError


class Derived(Encoder):
    """An encoder whose matrix is made of another's, so that the other's need not be computed twice."""

    takes = "another encoder"

    def __init__(self, argument: str, home: Path) -> None:
        super().__init__(argument, home)
        self.inner = encoder(argument, home)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"inner": self.inner.identity()}

    def inputs(self, texts: Texts) -> list[Any]:
        return self.inner.inputs(texts)

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        return self.derive(self.inner.encode(texts, progress))

    def derive(self, E: np.ndarray) -> np.ndarray:
        """The matrix, (N, D) float32, out of the inner encoder's, (N, D) float32."""
        raise NotImplementedError


def encoder(word: str, home: Path) -> Encoder:
    """The encoder of a word such as ``minilm``, ``shuffled:minilm``, ``st:<model>`` or ``file:<matrix>``.

    ``home`` is the folder that holds models and caches. Raises HarnessError for an unknown name or a wrong argument.
    """
    name, _, argument = word.partition(":")
    return registry.load(registry.ENCODERS, name)(argument, home)


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read once a process as long as its size and time stay what they are."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    return files.sha256(path)

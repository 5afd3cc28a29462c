"""Several texts an item: ``variants:<encoder>+<encoder>+...``, such as ``variants:own:title+own:full``.

E is the mean of an item's texts: of the rows of the encoders that are not zero. Everything that reads E reads this
mean. Adapters that map frozen text (`Adapter.draws`) train on one text of each item, drawn at every step, and rank by
the mean.

Source: the text variants of UniSRec in RecTools 0.19 (`rectools.fast_transformers`). There, a text is drawn for every
position of the input and for every target and negative of a sampled loss; full softmax and ranking read the first text.
Here one text is drawn per item and step, for input and score alike, and the ranking reads the mean.

The encoders must have equal width, and an adapter maps all texts alike: join matrices of one encoder over different
texts. A plus sign begins the next encoder only if the name of an encoder follows it, so paths may contain one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from harness import registry
from harness.text.basis import parts
from harness.text.encoders._base import Encoder, Progress, Texts, encoder
from harness.types import HarnessError, Json


class Variants(Encoder):
    takes = "two encoders or more, such as variants:own:title+own:full,"

    def __init__(self, argument: str, home: Path) -> None:
        """Raises HarnessError for fewer than two encoders, and as they do."""
        super().__init__(argument, home)
        words = _split(argument)
        if len(words) < 2:
            before, plus, last = argument.rpartition("+")
            typed = last.partition(":")[0]
            why = f"the '{typed}' after '+' is no encoder. {registry.suggest(typed, registry.names(registry.ENCODERS))}"
            why = why if plus and before and last else f"it names one, {argument}."
            raise HarnessError(f"'{self.name}:{argument}' needs {self.takes} but {why}")
        self.encoders = [encoder(word, home) for word in words]

    def on(self, texts: Texts) -> Encoder:
        bound = copy.copy(self)
        bound.encoders = [one.on(texts) for one in self.encoders]
        return bound

    @property
    def word(self) -> str:
        return f"{self.name}:{'+'.join(one.word for one in self.encoders)}"

    @property
    def label(self) -> str:
        return f"{self.name}:{'+'.join(one.label for one in self.encoders)}"

    def identity(self) -> Json:
        return super().identity() | {"encoders": [one.identity() for one in self.encoders]}

    def inputs(self, texts: Texts) -> list[Any]:
        return [one.inputs(texts) for one in self.encoders]

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        """Raises HarnessError if the widths differ."""
        matrices = [one.encode(texts, progress) for one in self.encoders]
        self.check(matrices)
        return mean(np.stack(matrices), np.zeros(matrices[0].shape, np.float32))

    def check(self, matrices: Iterable[np.ndarray]) -> None:
        """Raise HarnessError unless the matrices of the encoders, in their order, have equal width."""
        widths = [matrix.shape[1] for matrix in matrices]
        if len(set(widths)) > 1:
            shown = ", ".join(f"{one.label} {width:,}" for one, width in zip(self.encoders, widths, strict=True))
            raise HarnessError(f"'{self.word}': the widths differ: {shown}. Join matrices of one encoder.")


def mean(stack: np.ndarray, E: np.ndarray) -> np.ndarray:
    """Fill E (N, D) with the mean of the rows of a stack (M, N, D) that are not zero, and return it.

    Computed in float64, so the mean of equal rows is that row. Items whose rows are all zero get zeros.
    """
    for part in parts(len(E), E.shape[1] * len(stack)):
        rows = stack[:, part].astype(np.float64)
        counts = rows.any(2).sum(0)
        E[part] = rows.sum(0) / np.maximum(counts, 1)[:, None]
    return E


def differ(stack: np.ndarray, E: np.ndarray) -> bool:
    """Whether an item has texts with different rows in a stack (M, N, D), E (N, D) their mean."""
    for part in parts(len(E), E.shape[1] * len(stack)):
        rows = stack[:, part]
        if (rows.any(2) & (rows != E[part]).any(2)).any():
            return True
    return False


def _split(argument: str) -> list[str]:
    """The words of the encoders.

    >>> _split("own:title+file:a+b.npy+minilm")
    ['own:title', 'file:a+b.npy', 'minilm']
    """
    names = "|".join(map(re.escape, registry.names(registry.ENCODERS)))
    return [word for word in re.split(rf"\+(?=(?:{names})(?:[:+]|$))", argument) if word]

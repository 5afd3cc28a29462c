"""Another encoder's rows assigned to the wrong items: a control that keeps the spectrum and removes the meaning.

Rows of items without text stay in place, so the same items are missing. The permutation is one random cycle, hence a
derangement: no item keeps its row (identical texts may still exchange identical rows).
"""

from __future__ import annotations

import numpy as np

from harness.text.encoders._base import Derived
from harness.types import Json

SEED = 0


class Shuffled(Derived):
    takes = "the encoder to shuffle, such as shuffled:minilm,"

    def identity(self) -> Json:
        return super().identity() | {"seed": SEED}

    def derive(self, E: np.ndarray) -> np.ndarray:
        cycle = np.random.Generator(np.random.PCG64(SEED)).permutation(np.flatnonzero(np.any(E, axis=1)))
        shuffled = np.zeros_like(E)
        shuffled[cycle] = E[np.roll(cycle, 1)]
        return shuffled

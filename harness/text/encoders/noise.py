"""Gaussian noise instead of text: a control that shows the gain from an adapter's capacity only.

A row depends only on the item's id, so neither the order of the catalogue nor changes elsewhere in it affect the row.
Entries are N(0, 1/D), so rows have about unit norm, like normalised text embeddings.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from harness.text.encoders._base import Encoder, Progress, Texts
from harness.types import Json

D = 384  # as wide as the default text encoder


class Noise(Encoder):
    needs_text = True  # items without text have no noise either

    def identity(self) -> Json:
        return super().identity() | {"dim": D}

    def inputs(self, texts: Texts) -> list[Any]:
        return [[item, text is not None] for item, text in zip(texts.item_ids, texts.texts, strict=True)]

    def encode(self, texts: Texts, progress: Progress) -> np.ndarray:
        E = np.zeros((len(texts), D), np.float32)
        for i, (item, text) in enumerate(zip(texts.item_ids, texts.texts, strict=True)):
            if text is not None:
                E[i] = _row(item)
        return E


def _row(item: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(item.encode()).digest()[:16])
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(D) / D**0.5

"""Small catalogues of texts, matrices for them, and a damaged file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.text.encoders._base import Texts


def catalogue(n: int = 4, missing: tuple[int, ...] = ()) -> Texts:
    """n items i0, i1, ... with texts, the rows of a file of n rows."""
    texts = [None if i in missing else f"text of {i}" for i in range(n)]
    return Texts([f"i{i}" for i in range(n)], texts, list(range(n)), n)


def matrix(n: int = 4, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


def damaged_somewhere(path: Path) -> None:
    """Flip a bit of the file's last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

"""Small made data sets and a home folder for every test; servers are started by the tests that need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

WORDS = ["red", "blue", "green", "steel", "wool", "paper", "glass", "round", "small", "large", "soft", "quick", "heavy"]


def make_dataset(folder: Path, *, users: int = 60, items: int = 40, length: int = 12, seed: int = 0) -> Path:
    """A data set folder with a sequential signal: item i tends to be followed by i + 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(rng.integers(items))
        for step in range(length):
            rows.append((f"u{user:03d}", f"i{item:03d}", 1_000_000 + 1000 * step + user))
            item = (item + 1) % items if rng.random() < 0.8 else int(rng.integers(items))
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_parquet(
        folder / "interactions.parquet"
    )
    titles = [" ".join(rng.choice(WORDS, 3)) + f" {i}" for i in range(items)]
    pl.DataFrame({"item_id": [f"i{i:03d}" for i in range(items)], "title": titles}).write_parquet(
        folder / "items.parquet"
    )
    return folder


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """A trial flushes denormals to zero for its whole process; the next test wants numbers as they were."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "toy")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder

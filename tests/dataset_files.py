"""Data set folders: written from columns, or drawn with a sequential signal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.data.splits import Prepared

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
WORDS = ["red", "blue", "green", "steel", "wool", "paper", "glass", "round", "small", "large", "soft", "quick", "heavy"]


def write_frame(path: Path, columns: dict[str, Any] | pl.DataFrame) -> None:
    frame = pl.DataFrame(columns)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


def write_dataset(folder: Path, events: Any, items: Any, suffix: str = ".parquet", toml: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_frame(folder / f"interactions{suffix}", events)
    write_frame(folder / f"items{suffix}", items)
    if toml:
        (folder / "dataset.toml").write_text(toml, encoding="utf-8")
    return folder


def columns(rows: list[tuple], *names: str) -> dict[str, list]:
    """Columns of rows: `columns([("u", "a", 1)], "user_id", "item_id", "timestamp")`."""
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


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


def sequences(prepared: Prepared) -> dict[str, str]:
    """User id -> the ids of its items, in order."""
    ids = prepared.catalogue["item_id"].to_list()
    bounds = zip(prepared.users, prepared.offsets[:-1], prepared.offsets[1:], strict=True)
    return {user: "".join(ids[item - 1] for item in prepared.items[start:end]) for user, start, end in bounds}

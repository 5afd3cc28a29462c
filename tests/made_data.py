"""Data set folders written from columns, for the tests of the data room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

SHARED = Path(__file__).parents[1].parent / "shared" / "data"


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

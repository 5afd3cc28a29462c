"""Read Parquet files by their exact path: Polars takes `*`, `?`, `[` and `]` in a path for a pattern of several files,
and `key=value` in a folder's name for a column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl


def scan(paths: Path | list[Path]) -> pl.LazyFrame:
    """Return the rows of a file, or of several one after the other."""
    return pl.scan_parquet(paths, glob=False, hive_partitioning=False)


def read(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Read a file, or these columns of it."""
    return (scan(path) if columns is None else scan(path).select(columns)).collect()


def schema(path: Path) -> pl.Schema:
    """Return the names and types of a file's columns."""
    return scan(path).collect_schema()

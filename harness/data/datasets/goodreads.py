"""Goodreads shelves of one genre: every book a user shelved, in seconds, with title, publisher, shelves, description.

Source: Wan & McAuley 2018, https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html. The time is when the book was
shelved (`date_added`), since `date_updated` changes with later edits; `is_read` is kept. The sha256 of three
interaction files are those in the loaders of omnirec 1.1.0; the others are recorded at first use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source
from harness.data.datasets._read import Record

SHA256 = {
    "children": "d8ce59259e45262b3322bd87f5c2a13228cd8bb659332414a05660aed7cd7c71",
    "comics-graphic": "b55fbe66c2c802cefad5051808724d5074e342d6a4004309595a972702a62f4d",
    "poetry": "65fb9777f5e482695f0e4b71ef9884f6a7e5ab31c224dabc7ae0c2dcd60e49de",
}
HOSTS = (
    "https://mcauleylab.ucsd.edu/public_datasets/gdrive/goodreads/byGenre",
    "https://datarepo.eng.ucsd.edu/mcauley_group/gdrive/goodreads/byGenre",
)
SHELVES = 10  # max shelves of a book used as its categories
NO_SUBJECT = {"to-read", "currently-reading", "owned", "favorites", "books-i-own", "default", "my-books", "wish-list"}
TIME = "%a %b %d %H:%M:%S %z %Y"


class Goodreads(DataSet):
    """Goodreads by genre (Wan & McAuley 2018)."""

    variants = (
        "children",
        "comics-graphic",
        "fantasy-paranormal",
        "history-biography",
        "mystery-thriller-crime",
        "poetry",
        "romance",
        "young-adult",
    )
    sparse_ratings = True
    licence = "no licence text; academic use only, with citation; no redistribution and no commercial use"
    citation = (
        "Mengting Wan and Julian McAuley. 2018. Item Recommendation on Monotonic Behavior Chains. RecSys 2018. "
        "https://doi.org/10.1145/3240323.3240369"
    )
    page = "https://cseweb.ucsd.edu/~jmcauley/datasets/goodreads.html"

    def __init__(self, variant: str) -> None:
        self.variant, self.name = variant, f"goodreads-{variant}"

    def sources(self) -> dict[str, Source]:
        def at(kind: str, sha256: str | None = None) -> Source:
            file = f"goodreads_{kind}_{self.variant.replace('-', '_')}.json.gz"
            return Source(f"goodreads/{file}", tuple(f"{host}/{file}" for host in HOSTS), sha256)

        return {"interactions": at("interactions", SHA256.get(self.variant)), "books": at("books")}

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32 (null: not rated), is_read bool. items: item_id,
        title, brand (publisher), categories (shelves) list, description."""
        import polars as pl

        events, books = paths["interactions"], paths["books"]
        schema = {"user_id": pl.String, "item_id": pl.String, "added": pl.String}
        schema |= {"rating": pl.Float32, "is_read": pl.Boolean}
        seconds = pl.col("added").str.to_datetime(TIME, time_unit="ms").dt.epoch("s").alias("timestamp")
        with archives.gunzipped(events) as stream:
            rows = _read.picked(events, _read.records(events, stream, _read.json_line), _event)
            ids = _read.write_events(
                folder / "interactions.parquet",
                events,
                _read.frames(events, rows, schema),
                ["user_id", "item_id", seconds, "rating", "is_read"],
            )
        schema = _read.item_schema("title", "brand", "categories list", "description")
        with archives.gunzipped(books) as stream:
            items = _books(_read.records(books, stream, _read.json_line))
            _read.write_items(folder / "items.parquet", books, items, schema, ids)


def _event(event: Record) -> tuple[str, str, str, float | None, bool]:
    rating = float(event["rating"])
    return event["user_id"], str(event["book_id"]), event["date_added"], rating or None, bool(event["is_read"])


def _books(records: Iterable[Record]) -> Iterator[Record]:
    for book in records:
        shelves = [shelf.get("name") for shelf in book.get("popular_shelves") or [] if isinstance(shelf, dict)]
        yield {
            "item_id": str(book.get("book_id")),
            "title": _read.clean(book.get("title")),
            "brand": _read.clean(book.get("publisher")),
            "categories": _read.clean_list([s for s in shelves if s not in NO_SUBJECT])[:SHELVES],
            "description": _read.clean(book.get("description")),
        }

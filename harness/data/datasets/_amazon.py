"""The data sets of Amazon reviews 2018 and 2023: a CSV of all ratings and JSON lines of products per category."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source
from harness.data.datasets._read import Record

if TYPE_CHECKING:
    import polars as pl

LICENCE = "no licence text; offered for research, with citation; reviews and images are others' (no redistribution)"
CATEGORY = {
    "beauty": "All_Beauty",
    "beauty-personal-care": "Beauty_and_Personal_Care",
    "luxury-beauty": "Luxury_Beauty",
    "toys": "Toys_and_Games",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "office": "Office_Products",
    "sports": "Sports_and_Outdoors",
    "games": "Video_Games",
}


class AmazonRatings(DataSet):
    """One category of one edition. Subclasses set the attributes and override `events` and `product`.

    `edition`: prefix of the name and folder of the downloads. `hosts`: mirrors. `ratings`, `products`: paths of the two
    files on a host, with `{category}`. `sha256`: variant -> hash of its ratings. `columns`: of the ratings, which begin
    with a `header` line or not. `item_columns`: as in `_read.item_schema`.
    """

    edition: str
    hosts: tuple[str, ...]
    ratings: str
    products: str
    sha256: dict[str, str]
    columns: Sequence[str]
    header: bool
    item_columns: Sequence[str]
    licence = LICENCE

    def __init__(self, variant: str) -> None:
        self.variant, self.name = variant, f"{self.edition}-{variant}"

    def sources(self) -> dict[str, Source]:
        return {"ratings": self._source(self.ratings, self.sha256[self.variant]), "meta": self._source(self.products)}

    def _source(self, template: str, sha256: str | None = None) -> Source:
        path = PurePosixPath(template.format(category=CATEGORY[self.variant]))
        return Source(f"{self.edition}/{path.name}", tuple(f"{host}/{path}" for host in self.hosts), sha256)

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id and `item_columns`."""
        ratings, meta = paths["ratings"], paths["meta"]
        with archives.gunzipped(ratings) if ratings.suffix == ".gz" else ratings.open("rb") as stream:
            frames = _read.csv_frames(ratings, stream, list(self.columns), header=self.header)
            ids = _read.write_events(folder / "interactions.parquet", ratings, frames, self.events())
        with archives.gunzipped(meta) as stream:
            rows = self._products(_read.records(meta, stream, _read.json_line))
            _read.write_items(folder / "items.parquet", meta, rows, _read.item_schema(*self.item_columns), ids)

    def events(self) -> list[pl.Expr]:
        """Return user_id, item_id, timestamp (seconds) and rating (f32) as expressions of the CSV's columns."""
        raise NotImplementedError

    def product(self, record: Record) -> Record:
        """Return item_id and `item_columns` of a product."""
        raise NotImplementedError

    def _products(self, records: Iterable[Record]) -> Iterator[Record]:
        return map(self.product, records)

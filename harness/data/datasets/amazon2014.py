"""Amazon reviews 2014 by category, the 5-core files of the classic papers, with title, brand, categories, description.

Source: McAuley et al. 2015, http://jmcauley.ucsd.edu/data/amazon/. The review file is grouped by item and its times are
days, so events of one day are in the order of their ASINs (`--tie-policy`). The item file has Python literals, not
JSON. Video_Games has almost no titles: its text is categories and description. Nobody publishes hashes of these files,
so they are recorded at first use.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._amazon import LICENCE
from harness.data.datasets._base import DataSet, Source
from harness.data.datasets._read import Record

CATEGORY = {
    "beauty": "Beauty",
    "toys": "Toys_and_Games",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "office": "Office_Products",
    "sports": "Sports_and_Outdoors",
    "games": "Video_Games",
    "movies": "Movies_and_TV",
    "cds": "CDs_and_Vinyl",
    "health": "Health_and_Personal_Care",
    "grocery": "Grocery_and_Gourmet_Food",
}
HOSTS = (
    "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon/categoryFiles",
)


class Amazon2014(DataSet):
    """Amazon reviews 2014, 5-core (McAuley et al. 2015)."""

    variants = ("beauty", "toys", "clothing", "office", "sports", "games", "movies", "cds", "health", "grocery")
    licence = LICENCE
    citation = (
        "Julian McAuley, Christopher Targett, Qinfeng Shi and Anton van den Hengel. 2015. Image-Based Recommendations "
        "on Styles and Substitutes. SIGIR 2015. https://doi.org/10.1145/2766462.2767755"
    )
    page = "http://jmcauley.ucsd.edu/data/amazon/"

    def __init__(self, variant: str) -> None:
        self.category, self.name = CATEGORY[variant], f"amazon2014-{variant}"
        if variant == "games":
            self.text = "{title}. {categories}. {description}"

    def sources(self) -> dict[str, Source]:
        def at(file: str) -> Source:
            return Source(f"amazon2014/{file}", tuple(f"{host}/{file}" for host in HOSTS))

        return {"reviews": at(f"reviews_{self.category}_5.json.gz"), "meta": at(f"meta_{self.category}.json.gz")}

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id, title, brand, categories list,
        description."""
        import polars as pl

        reviews, meta = paths["reviews"], paths["meta"]
        schema = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "rating": pl.Float32}
        with archives.gunzipped(reviews) as stream:
            rows = _read.picked(reviews, _read.records(reviews, stream, _read.json_line), _event)
            ids = _read.write_events(
                folder / "interactions.parquet", reviews, _read.frames(reviews, rows, schema), [pl.all()]
            )
        schema = _read.item_schema("title", "brand", "categories list", "description")
        with archives.gunzipped(meta) as stream:
            products = _read.records(meta, stream, _read.literal_line, _one_of(ids))
            _read.write_items(folder / "items.parquet", meta, _products(products), schema, ids)


def _event(review: Record) -> tuple[str, str, int, float]:
    return review["reviewerID"], review["asin"], int(review["unixReviewTime"]), float(review["overall"])


def _one_of(ids: set[str]) -> Callable[[bytes], bool]:
    """Return a test whether a line may be of one of the items, by its beginning: literals are slow to parse."""
    start = re.compile(rb"\{'asin': '([^'\\]+)'")

    def wanted(line: bytes) -> bool:
        match = start.match(line)
        return match is None or match[1].decode("utf-8", "replace") in ids

    return wanted


def _products(records: Iterable[Record]) -> Iterator[Record]:
    for product in records:
        yield {
            "item_id": product.get("asin"),
            "title": _read.clean(product.get("title")),
            "brand": _read.clean(product.get("brand")),
            "categories": _read.clean_list(product.get("categories")),
            "description": _read.clean(product.get("description")),
        }

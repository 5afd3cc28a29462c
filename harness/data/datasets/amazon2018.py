"""Amazon reviews 2018 by category, all ratings (--kcore takes the core), with title, brand, categories, description.

Source: Ni, Li & McAuley 2019, https://nijianmo.github.io/amazon/. The ratings file has no header and its columns are
item, user, rating, time: swapped against 2014. The clock has days. Titles that hold script of the shop's page
(`getTime`) are taken as missing. sha256 of the ratings: as the loaders of omnirec 1.1.0
hold them; item files have none, so their first use is trusted and noted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source

CATEGORY = {
    "beauty": "All_Beauty",
    "luxury-beauty": "Luxury_Beauty",
    "toys": "Toys_and_Games",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "office": "Office_Products",
    "sports": "Sports_and_Outdoors",
    "games": "Video_Games",
}
SHA256 = {
    "beauty": "b3d9260771f9fe489a61180b9ff407e15e10f481a287848f69bc4709b669246f",
    "luxury-beauty": "5e1ab08a0147412d6a15ab4b8259df7fbc1fe09c747ba5c46486081ee4d68d24",
    "toys": "cfdf96d55b3d923c913f3b139e7fabdc20360989db38527ef5947982aa246d45",
    "clothing": "8b78d8a965e2351468deeebe99edb6118561711be4d5b6294e24e25f910c4d3d",
    "office": "2e24f3df092efc71fa4dea41162c7c1ab2d46bc53c4cace63794a3a66dc6d82f",
    "sports": "da8d746f1602d5ff01d4056c8f55b228996a30d40069b658d71388b0bf3df5d6",
    "games": "c3fec1cce4ee67f0d51f8b53a7e294d8bbe6f75ca1d8732256e900b3c46606d8",
}
HOSTS = (
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
    "https://jmcauley.ucsd.edu/data/amazon_v2",
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
)


class Amazon2018(DataSet):
    """Amazon reviews 2018, all ratings (Ni, Li & McAuley 2019)."""

    variants = ("beauty", "luxury-beauty", "toys", "clothing", "office", "sports", "games")
    licence = "no licence text; offered for research, with citation; reviews and images are others' (no redistribution)"
    citation = (
        "Jianmo Ni, Jiacheng Li and Julian McAuley. 2019. Justifying Recommendations using Distantly-Labeled Reviews "
        "and Fine-Grained Aspects. EMNLP 2019. https://doi.org/10.18653/v1/D19-1018"
    )
    page = "https://nijianmo.github.io/amazon/"

    def __init__(self, variant: str) -> None:
        self.variant, self.category, self.name = variant, CATEGORY[variant], f"amazon2018-{variant}"

    def sources(self) -> dict[str, Source]:
        def at(folder: str, file: str, sha256: str | None = None) -> Source:
            return Source(f"amazon2018/{file}", tuple(f"{host}/{folder}/{file}" for host in HOSTS), sha256)

        return {
            "ratings": at("categoryFilesSmall", f"{self.category}.csv", SHA256[self.variant]),
            "meta": at("metaFiles2", f"meta_{self.category}.json.gz"),
        }

    def build(self, found: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id, title, brand, categories list,
        description."""
        import polars as pl

        ratings, meta = found["ratings"], found["meta"]
        with ratings.open("rb") as stream:
            ids = _read.write_events(
                folder / "interactions.parquet",
                ratings,
                _read.csv_frames(ratings, stream, ["item_id", "user_id", "rating", "timestamp"], header=False),
                ["user_id", "item_id", pl.col("timestamp").cast(pl.Int64), pl.col("rating").cast(pl.Float32)],
            )
        schema = _read.item_schema("title", "brand", "categories list", "description")
        with archives.gunzipped(meta) as stream:
            products = _products(_read.records(meta, stream, _read.json_line))
            _read.write_items(folder / "items.parquet", meta, products, schema, ids)


def _products(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for product in found:
        title, brand = product.get("title"), _read.clean(product.get("brand"))
        categories = product.get("category")
        yield {
            "item_id": product.get("asin"),
            "title": None if isinstance(title, str) and "getTime" in title else _read.clean(title),
            "brand": brand.removeprefix("by ") if brand else None,
            # some hold the markup of the page's category list
            "categories": _read.clean_list([c for c in categories or [] if isinstance(c, str) and "<" not in c]),
            "description": " ".join(_read.clean_list(product.get("description"))) or None,
        }

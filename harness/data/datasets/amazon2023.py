"""Amazon reviews 2023 by category, all ratings (--kcore takes the core), with title, brand, categories, description.

Source: Hou et al. 2024, https://amazon-reviews-2023.github.io/. Items are parent_asin; the clock has milliseconds and
is brought to seconds. sha256 of the ratings: as the loaders of omnirec 1.1.0 hold them; item files have none, so their
first use is trusted and noted.
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
    "beauty-personal-care": "Beauty_and_Personal_Care",
    "toys": "Toys_and_Games",
    "clothing": "Clothing_Shoes_and_Jewelry",
    "office": "Office_Products",
    "sports": "Sports_and_Outdoors",
    "games": "Video_Games",
}
SHA256 = {
    "beauty": "54b894e68ad965aa73cdb80d8695c1ed37679c46f38b6f97b21ab0fb585aab24",
    "beauty-personal-care": "dd89a914e8c71d811c49a7e8fbdfc251c08bffb461b9544275e94018cb17f741",
    "toys": "170fc8a18797c6091cf1b07bb3d97c13c94bfa030cf76c430bb8cac0dfb47a9f",
    "clothing": "ee93396e811c03d077290b78e323228c58814a034e3e98d0339e5314d7f7a9a7",
    "office": "f91b5cfb6ed5ff52afe3e2f3ecc7918cbd8745b3241a8fc61011c3a41f23920b",
    "sports": "110617511c7303ca34d157b7d62fd20a02e412c3639b4c6e307a951fadf0414c",
    "games": "30692f9806e33a7b5d8b599b73d7ca33dbfefb0abdfc1578052a101f2e64b3cd",
}
HOSTS = (
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023",
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023",
)


class Amazon2023(DataSet):
    """Amazon reviews 2023, all ratings (Hou et al. 2024)."""

    variants = ("beauty", "beauty-personal-care", "toys", "clothing", "office", "sports", "games")
    licence = "no licence text; offered for research, with citation; reviews and images are others' (no redistribution)"
    citation = (
        "Yupeng Hou, Jiacheng Li, Zhankui He, An Yan, Xiusi Chen and Julian McAuley. 2024. Bridging Language and Items "
        "for Retrieval and Recommendation. https://arxiv.org/abs/2403.03952"
    )
    page = "https://amazon-reviews-2023.github.io/"

    def __init__(self, variant: str) -> None:
        self.variant, self.category, self.name = variant, CATEGORY[variant], f"amazon2023-{variant}"

    def sources(self) -> dict[str, Source]:
        def at(folder: str, file: str, sha256: str | None = None) -> Source:
            return Source(f"amazon2023/{file}", tuple(f"{host}/{folder}/{file}" for host in HOSTS), sha256)

        return {
            "ratings": at("benchmark/0core/rating_only", f"{self.category}.csv.gz", SHA256[self.variant]),
            "meta": at("raw/meta_categories", f"meta_{self.category}.jsonl.gz"),
        }

    def build(self, found: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id, title, brand, categories list,
        features, description."""
        import polars as pl

        ratings, meta = found["ratings"], found["meta"]
        with archives.gunzipped(ratings) as stream:
            ids = _read.write_events(
                folder / "interactions.parquet",
                ratings,
                _read.csv_frames(ratings, stream, ["user_id", "parent_asin", "rating", "timestamp"], header=True),
                [
                    pl.col("user_id"),
                    pl.col("parent_asin").alias("item_id"),
                    pl.col("timestamp").cast(pl.Int64) // 1000,
                    pl.col("rating").cast(pl.Float32),
                ],
            )
        schema = _read.item_schema("title", "brand", "categories list", "features", "description")
        with archives.gunzipped(meta) as stream:
            products = _products(_read.records(meta, stream, _read.json_line))
            _read.write_items(folder / "items.parquet", meta, products, schema, ids)


def _products(found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for product in found:
        yield {
            "item_id": product.get("parent_asin"),
            "title": _read.clean(product.get("title")),
            "brand": _read.clean(product.get("store")),
            "categories": _read.clean_list(product.get("categories")),
            "features": " ".join(_read.clean_list(product.get("features"))) or None,
            "description": " ".join(_read.clean_list(product.get("description"))) or None,
        }

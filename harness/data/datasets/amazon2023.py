"""Amazon reviews 2023 by category, all ratings (--kcore takes the core), with title, brand, categories, description.

Source: Hou et al. 2024, https://amazon-reviews-2023.github.io/. Items are parent_asin. Times are in milliseconds, which
become fractions of a second: they order the events. The sha256 of the ratings are those in the loaders of omnirec
1.1.0; item files have none, so their hash is recorded at first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.data.datasets import _read
from harness.data.datasets._amazon import AmazonRatings
from harness.data.datasets._read import Record

if TYPE_CHECKING:
    import polars as pl

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


class Amazon2023(AmazonRatings):
    """Amazon reviews 2023, all ratings (Hou et al. 2024)."""

    variants = ("beauty", "beauty-personal-care", "toys", "clothing", "office", "sports", "games")
    citation = (
        "Yupeng Hou, Jiacheng Li, Zhankui He, An Yan, Xiusi Chen and Julian McAuley. 2024. Bridging Language and Items "
        "for Retrieval and Recommendation. https://arxiv.org/abs/2403.03952"
    )
    page = "https://amazon-reviews-2023.github.io/"
    edition = "amazon2023"
    hosts, sha256 = HOSTS, SHA256
    ratings = "benchmark/0core/rating_only/{category}.csv.gz"
    products = "raw/meta_categories/meta_{category}.jsonl.gz"
    columns, header = ("user_id", "parent_asin", "rating", "timestamp"), True
    item_columns = ("title", "brand", "categories list", "features", "description")

    def events(self) -> list[pl.Expr]:
        import polars as pl

        ids = pl.col("user_id"), pl.col("parent_asin").alias("item_id")
        return [*ids, pl.col("timestamp").cast(pl.Int64) / 1000, pl.col("rating").cast(pl.Float32)]

    def product(self, record: Record) -> Record:
        return {
            "item_id": record.get("parent_asin"),
            "title": _read.clean(record.get("title")),
            "brand": _read.clean(record.get("store")),
            "categories": _read.clean_list(record.get("categories")),
            "features": " ".join(_read.clean_list(record.get("features"))) or None,
            "description": " ".join(_read.clean_list(record.get("description"))) or None,
        }

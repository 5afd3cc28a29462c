"""Amazon reviews 2018 by category, all ratings (--kcore takes the core), with title, brand, categories, description.

Source: Ni, Li & McAuley 2019, https://nijianmo.github.io/amazon/. The ratings file has no header, and its columns are
item, user, rating, time (in 2014: user, item). The clock has a resolution of days. Titles with script or markup of the
shop's page (`getTime`, `<span id`) count as missing. The sha256 of the ratings are those in the loaders of omnirec
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
    "beauty": "b3d9260771f9fe489a61180b9ff407e15e10f481a287848f69bc4709b669246f",
    "luxury-beauty": "5e1ab08a0147412d6a15ab4b8259df7fbc1fe09c747ba5c46486081ee4d68d24",
    "toys": "cfdf96d55b3d923c913f3b139e7fabdc20360989db38527ef5947982aa246d45",
    "clothing": "8b78d8a965e2351468deeebe99edb6118561711be4d5b6294e24e25f910c4d3d",
    "office": "2e24f3df092efc71fa4dea41162c7c1ab2d46bc53c4cace63794a3a66dc6d82f",
    "sports": "da8d746f1602d5ff01d4056c8f55b228996a30d40069b658d71388b0bf3df5d6",
    "games": "c3fec1cce4ee67f0d51f8b53a7e294d8bbe6f75ca1d8732256e900b3c46606d8",
}
PAGE = ("getTime", "<span id")  # in titles that are script or markup of the shop's page
HOSTS = (
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
    "https://jmcauley.ucsd.edu/data/amazon_v2",
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
)


class Amazon2018(AmazonRatings):
    """Amazon reviews 2018, all ratings (Ni, Li & McAuley 2019)."""

    variants = ("beauty", "luxury-beauty", "toys", "clothing", "office", "sports", "games")
    citation = (
        "Jianmo Ni, Jiacheng Li and Julian McAuley. 2019. Justifying Recommendations using Distantly-Labeled Reviews "
        "and Fine-Grained Aspects. EMNLP 2019. https://doi.org/10.18653/v1/D19-1018"
    )
    page = "https://nijianmo.github.io/amazon/"
    edition = "amazon2018"
    hosts, sha256 = HOSTS, SHA256
    ratings, products = "categoryFilesSmall/{category}.csv", "metaFiles2/meta_{category}.json.gz"
    columns, header = ("item_id", "user_id", "rating", "timestamp"), False
    item_columns = ("title", "brand", "categories list", "description")

    def events(self) -> list[pl.Expr]:
        import polars as pl

        ids = pl.col("user_id"), pl.col("item_id")
        return [*ids, pl.col("timestamp").cast(pl.Int64), pl.col("rating").cast(pl.Float32)]

    def product(self, record: Record) -> Record:
        title, brand = record.get("title"), _read.clean(record.get("brand"))
        categories = record.get("category")
        return {
            "item_id": record.get("asin"),
            "title": None if isinstance(title, str) and any(mark in title for mark in PAGE) else _read.clean(title),
            "brand": brand.removeprefix("by ") if brand else None,
            # some contain the markup of the page's category list
            "categories": _read.clean_list([c for c in categories or [] if isinstance(c, str) and "<" not in c]),
            "description": " ".join(_read.clean_list(record.get("description"))) or None,
        }

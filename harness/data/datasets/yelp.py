"""Yelp Open Dataset: 7 million reviews of businesses in seconds, with name, city, categories; manual download.

Source: https://business.yelp.com/data/resources/open-dataset/. Yelp's terms must be accepted, so nothing is downloaded:
put Yelp-JSON.zip into <home>/downloads, and confirm that you accept by `HARNESS_YELP_ACCEPTED=1` or an empty file
<home>/downloads/yelp.accepted. The archive is a zip with a gzipped tar; neither is unpacked to disk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source
from harness.data.datasets._read import Record
from harness.types import HarnessError

SHA256 = "7196433b8a43dd1cbbc3054c5ee85447a56d5fdee8652f8dc7aa5aad579ad7cd"
ACCEPTED = "HARNESS_YELP_ACCEPTED"
TAR = "*/yelp_dataset.tar"
BUSINESSES, REVIEWS = (f"yelp_academic_dataset_{kind}.json" for kind in ("business", "review"))


class Yelp(DataSet):
    """Yelp Open Dataset."""

    name = "yelp"
    licence = "Yelp Dataset Terms of Use: academic use; no redistribution, no commercial use; to be accepted beforehand"
    citation = "Yelp Open Dataset. https://business.yelp.com/data/resources/open-dataset/"
    page = "https://business.yelp.com/data/resources/open-dataset/"

    def sources(self) -> dict[str, Source]:
        return {"archive": Source("Yelp-JSON.zip", (), SHA256)}

    def fetch(self, home: Path) -> Path:
        """See `DataSet.fetch`; also raises HarnessError if the terms are not confirmed to be accepted."""
        marker = home / "downloads" / "yelp.accepted"
        if not self.ready(home) and not marker.exists() and os.environ.get(ACCEPTED, "") not in ("1", "true", "yes"):
            raise HarnessError(
                f"yelp: read and accept the terms on {self.page}, put Yelp-JSON.zip at "
                f"{home / 'downloads' / 'Yelp-JSON.zip'}, set {ACCEPTED}=1 or create {marker}, and rerun."
            )
        return super().fetch(home)

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp, rating f32. items: item_id, title, city, state, categories
        list."""
        import polars as pl

        archive = paths["archive"]
        schema = {"user_id": pl.String, "item_id": pl.String, "date": pl.String, "rating": pl.Float32}
        seconds = pl.col("date").str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ms").dt.epoch("s").alias("timestamp")
        businesses, ids = None, None
        with archives.member(archive, TAR) as tar:
            for name, stream in archives.tar_members(archive, tar, [BUSINESSES, REVIEWS]):
                records = _read.records(archive, stream, _read.json_line)
                if name == BUSINESSES:  # 150,000, kept in memory until the reviewed ones are known
                    businesses = list(_businesses(records))
                    continue
                ids = _read.write_events(
                    folder / "interactions.parquet",
                    archive,
                    _read.frames(archive, _read.picked(archive, records, _event), schema),
                    ["user_id", "item_id", seconds, "rating"],
                )
        if businesses is None or ids is None:
            raise HarnessError(f"{archive} contains no {REVIEWS if ids is None else BUSINESSES}.")
        schema = _read.item_schema("title", "city", "state", "categories list")
        _read.write_items(folder / "items.parquet", archive, businesses, schema, ids)


def _event(review: Record) -> tuple[str, str, str, float]:
    return review["user_id"], review["business_id"], review["date"], float(review["stars"])


def _businesses(records: Iterable[Record]) -> Iterator[Record]:
    for business in records:
        yield {
            "item_id": business.get("business_id"),
            "title": _read.clean(business.get("name")),
            "city": _read.clean(business.get("city")),
            "state": _read.clean(business.get("state")),
            "categories": _read.clean_list(str(business.get("categories") or "").split(",")),
        }

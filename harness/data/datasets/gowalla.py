"""Gowalla: 6.4 million check-ins of 2009-10, in seconds; the places have no text.

Source: Cho, Myers & Leskovec 2011, https://snap.stanford.edu/data/loc-Gowalla.html.
"""

from __future__ import annotations

from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source

URL = "https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz"
SHA256 = "c1c3e19effba649b6c89aeab3c1f9459fad88cfdc2b460fc70fd54e295d83ea0"


class Gowalla(DataSet):
    """Gowalla check-ins (Cho, Myers & Leskovec 2011)."""

    name = "gowalla"
    text = ""
    licence = "no licence text; offered by SNAP for research, with citation"
    citation = (
        "Eunjoon Cho, Seth A. Myers and Jure Leskovec. 2011. Friendship and Mobility: User Movement in Location-Based "
        "Social Networks. KDD 2011. https://doi.org/10.1145/2020408.2020579"
    )
    page = "https://snap.stanford.edu/data/loc-Gowalla.html"

    def sources(self) -> dict[str, Source]:
        return {"checkins": Source("loc-gowalla_totalCheckins.txt.gz", (URL,), SHA256)}

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp. items: item_id."""
        import polars as pl

        archive, columns = paths["checkins"], ["user_id", "time", "latitude", "longitude", "item_id"]
        seconds = pl.col("time").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="ms").dt.epoch("s").alias("timestamp")
        with archives.gunzipped(archive) as stream:
            ids = _read.write_events(
                folder / "interactions.parquet",
                archive,
                _read.csv_frames(archive, stream, columns, header=False, separator="\t"),
                ["user_id", "item_id", seconds],
            )
        pl.DataFrame({"item_id": sorted(ids)}).write_parquet(folder / "items.parquet")

"""Steam: 7.8 million reviews of games by day, with title, developer, publisher, genres and tags.

Source: Kang & McAuley 2018 (SASRec), https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data. Both files have Python
literals, not JSON. Users are identified by username, as in the paper; times are days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from harness.data import archives
from harness.data.datasets import _read
from harness.data.datasets._base import DataSet, Source
from harness.data.datasets._read import Record

HOST = "https://cseweb.ucsd.edu/~wckang"
REVIEWS_SHA256 = "40c6343deedf488689987749c5f8435233da48c163fbaa2a7766c215d584bc61"


class Steam(DataSet):
    """Steam reviews (Kang & McAuley 2018)."""

    name = "steam"
    licence = "no licence text; offered for research, with citation; reviews are others' (no redistribution)"
    citation = (
        "Wang-Cheng Kang and Julian McAuley. 2018. Self-Attentive Sequential Recommendation. ICDM 2018. "
        "https://doi.org/10.1109/ICDM.2018.00035"
    )
    page = "https://cseweb.ucsd.edu/~jmcauley/datasets.html#steam_data"

    def sources(self) -> dict[str, Source]:
        return {
            "reviews": Source("steam_reviews.json.gz", (f"{HOST}/steam_reviews.json.gz",), REVIEWS_SHA256),
            "games": Source("steam_games.json.gz", (f"{HOST}/steam_games.json.gz",)),
        }

    def build(self, paths: dict[str, Path], folder: Path) -> None:
        """interactions: user_id, item_id, timestamp (midnight), hours f32. items: item_id, title, brand (developer),
        publisher, categories (genres) list, tags list."""
        import polars as pl

        reviews, games = paths["reviews"], paths["games"]
        schema = {"user_id": pl.String, "item_id": pl.String, "date": pl.String, "hours": pl.Float32}
        day = pl.col("date").str.to_date("%Y-%m-%d").cast(pl.Datetime("ms")).dt.epoch("s").alias("timestamp")
        with archives.gunzipped(reviews) as stream:
            rows = _read.picked(reviews, _read.records(reviews, stream, _read.literal_line), _event)
            ids = _read.write_events(
                folder / "interactions.parquet",
                reviews,
                _read.frames(reviews, rows, schema),
                ["user_id", "item_id", day, "hours"],
            )
        schema = _read.item_schema("title", "brand", "publisher", "categories list", "tags list")
        with archives.gunzipped(games) as stream:
            items = _games(_read.records(games, stream, _read.literal_line))
            _read.write_items(folder / "items.parquet", games, items, schema, ids)


def _event(review: Record) -> tuple[str, str, str, float | None]:
    hours = review.get("hours")
    return review["username"], review["product_id"], review["date"], None if hours is None else float(hours)


def _games(records: Iterable[Record]) -> Iterator[Record]:
    for game in records:
        yield {
            "item_id": game.get("id"),  # one row has none
            "title": _read.clean(game.get("app_name")) or _read.clean(game.get("title")),
            "brand": _read.clean(game.get("developer")),
            "publisher": _read.clean(game.get("publisher")),
            "categories": _read.clean_list(game.get("genres")),
            "tags": _read.clean_list(game.get("tags")),
        }

"""Facts about each test target that do not depend on a model; tables are sliced by them."""

from __future__ import annotations

import numpy as np
import polars as pl

from harness.data.splits import Prepared, Queries, Split, cold

BANDS = ("head", "mid", "tail")  # popularity bands of warm items, each with a third of the training events


def describe(prepared: Prepared, split: Split) -> pl.DataFrame:
    """Return one row per test query, in the order of the split.

    Columns: user i64; cold bool (no user has a training event of the target); popularity i64 (training events of the
    target); band str (`BANDS`, null for a cold target); history i64 (events before the target); tied bool (same time as
    the previous event; null without times); words i64 (in the target's text; 0 without text).
    """
    queries = split.test
    if queries is None:
        raise ValueError("the test is sealed")
    places = split.offsets[queries.users] + queries.ends
    target = split.items[places].astype(np.int64)
    counts = _training_counts(split)
    words = prepared.catalogue["text"].cast(pl.String).str.count_matches(r"\S+").fill_null(0)
    return pl.DataFrame(
        {
            "user": queries.users.astype(np.int64),
            "cold": cold(split, queries),
            "popularity": counts[target],
            "band": pl.Series(bands(counts[1:])).gather(target - 1),
            "history": queries.ends.astype(np.int64),
            "tied": _tied(split, queries, places),
            "words": words.cast(pl.Int64).gather(target - 1),
        }
    )


def bands(counts: np.ndarray) -> list[str | None]:
    """Return the band of each item from its number of training events (n,); None for an item without any.

    The most popular items, with a third of all events, are the head; the least popular ones, with a third, the tail.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    place = np.empty(len(counts), int)
    place[order] = np.minimum(3 * before // max(counts.sum(), 1), 2)
    return [BANDS[at] if count else None for at, count in zip(place, counts, strict=True)]


def _training_counts(split: Split) -> np.ndarray:
    """Return the number of training events of each item, int64 (n_items + 1,)."""
    users = np.repeat(np.arange(len(split.train_ends)), np.diff(split.offsets))
    trained = np.arange(len(split.items)) - split.offsets[users] < split.train_ends[users]
    return np.bincount(split.items[trained], minlength=split.n_items + 1)


def _tied(split: Split, queries: Queries, places: np.ndarray) -> pl.Series:
    if split.times is None:
        return pl.Series([None] * len(places), dtype=pl.Boolean)
    before = split.times[np.maximum(places - 1, 0)]
    return pl.Series((split.times[places] == before) & (queries.ends > 0))

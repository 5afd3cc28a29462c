"""What is known of each test target before any model ranks it: the facts that slices of a table are cut by."""

from __future__ import annotations

import numpy as np
import polars as pl

from harness.data.splits import Prepared, Queries, Split, cold

BANDS = ("head", "mid", "tail")  # of the warm items, each with a third of the training events


def describe(prepared: Prepared, split: Split) -> pl.DataFrame:
    """One row a test query, in the order of the split: user i64, cold bool (no training event of any user is of the
    target), popularity i64 (training events of the target), band str (`BANDS`, null for a cold target), history i64
    (events before it), tied bool (at the very time of the event before; null where times are not known), words i64
    (of the target's text; 0: it has none)."""
    asked = split.test
    if asked is None:
        raise ValueError("the test is sealed")
    places = split.offsets[asked.users] + asked.ends
    target = split.items[places].astype(np.int64)
    counts = _training_counts(split)
    words = prepared.catalogue["text"].cast(pl.String).str.count_matches(r"\S+").fill_null(0)
    return pl.DataFrame(
        {
            "user": asked.users.astype(np.int64),
            "cold": cold(split, asked),
            "popularity": counts[target],
            "band": pl.Series(bands(counts[1:])).gather(target - 1),
            "history": asked.ends.astype(np.int64),
            "tied": _tied(split, asked, places),
            "words": words.cast(pl.Int64).gather(target - 1),
        }
    )


def bands(counts: np.ndarray) -> list[str | None]:
    """The band of each item from its training events (n,): the most popular items that make up a third of all events
    are the head, the least popular ones the tail; None for an item without any."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    place = np.empty(len(counts), int)
    place[order] = np.minimum(3 * before // max(counts.sum(), 1), 2)
    return [BANDS[at] if count else None for at, count in zip(place, counts, strict=True)]


def _training_counts(split: Split) -> np.ndarray:
    """Training events of each item number, int64 (n_items + 1,)."""
    users = np.repeat(np.arange(len(split.train_ends)), np.diff(split.offsets))
    trained = np.arange(len(split.items)) - split.offsets[users] < split.train_ends[users]
    return np.bincount(split.items[trained], minlength=split.n_items + 1)


def _tied(split: Split, asked: Queries, places: np.ndarray) -> pl.Series:
    if split.times is None:
        return pl.Series([None] * len(places), dtype=pl.Boolean)
    before = split.times[np.maximum(places - 1, 0)]
    return pl.Series((split.times[places] == before) & (asked.ends > 0))

"""The steps of a preparation, each a mask of the events to keep.

Steps run in the order of the spec, each on the events that the previous one kept (`harness.types.PrepSpec`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.data import presets
from harness.data.splits import bounds, heads
from harness.types import PrepSpec

MARKUP = "<span id"  # page markup in place of some titles in Amazon 2018


@dataclass(frozen=True, eq=False)
class Events:
    """Events, user by user, each user's in order: `user` and `item` int32 codes, `clock` and `rating` numbers."""

    user: np.ndarray
    item: np.ndarray
    clock: np.ndarray
    rating: np.ndarray | None

    def at(self, places: np.ndarray) -> Events:
        """Return the events at these places, or where a mask is true."""
        rating = None if self.rating is None else self.rating[places]
        return Events(self.user[places], self.item[places], self.clock[places], rating)


def ordered(user: np.ndarray, item: np.ndarray, frame: pl.DataFrame, timed: bool, policy: tuple[str, int]) -> Events:
    """Sort events by user, time and tie `policy`; `frame` has their times, orders and ratings."""
    clock = frame["timestamp" if timed else "order"].to_numpy()
    kind, seed = policy
    keys: list[np.ndarray] = []
    if kind == "item_id":
        keys = [item]
    elif kind == "random":
        keys = [_scramble(user, item, seed)]
    elif "order" in frame.columns:
        keys = [_order(frame["order"])]
    order = np.lexsort((*keys, clock, user))  # stable: remaining ties stay in file order
    rating = frame["rating"].to_numpy() if "rating" in frame.columns else None
    return Events(user, item, clock, rating).at(order)


def _order(values: pl.Series) -> np.ndarray:
    """Return the column `order`, or its ranks if it has gaps: events without a value come last, in file order."""
    if not values.null_count():
        return values.to_numpy()
    return values.rank("dense").fill_null(len(values) + 1).to_numpy()


def _rated(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    return None if spec.min_rating is None or events.rating is None else events.rating >= spec.min_rating


def _within(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    window = presets.window(spec)
    return None if window is None else (events.clock >= window[0]) & (events.clock < window[1])


def _unrepeated(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    """Drop events that repeat an earlier one (a later one for `last`), with repeats as `spec.dedup` defines them."""
    if spec.dedup == "none" or not len(events.user):
        return None
    if spec.dedup != "exact":
        key = events.user.astype(np.int64) * catalogue.height + events.item
        return ~_repeats(key, before=spec.dedup == "last")
    joined = np.zeros(len(events.user) + 1, bool)  # has user and time of the previous event
    joined[1:-1] = (np.diff(events.user) == 0) & (np.diff(events.clock) == 0)
    tied = np.flatnonzero(joined[:-1] | joined[1:])  # only these can be repeats
    group = np.cumsum(~joined[:-1])[tied]
    keep = np.ones(len(events.user), bool)
    keep[tied] = ~_repeats(group * catalogue.height + events.item[tied], before=False)
    return keep


def _repeats(key: np.ndarray, *, before: bool) -> np.ndarray:
    """Return which keys int64 (n,) occurred earlier, or with `before` occur again later: bool (n,)."""
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    repeated = np.zeros(len(key), bool)
    repeated[(order[:-1] if before else order[1:])[same]] = True
    return repeated


def _texted(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    fit = pl.Series(np.ones(catalogue.height, bool))
    if spec.require_text:
        fit &= catalogue["text"].is_not_null()
    if spec.max_title_words:
        head = catalogue["head"].cast(pl.String)
        long = head.str.count_matches(r"\S+") > spec.max_title_words
        fit &= ~(long | head.str.contains(MARKUP, literal=True)).fill_null(False)
    return None if fit.all() else fit.to_numpy()[events.item]


def _cored(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray:
    return core(events.user, events.item, spec.kcore, spec.iterate)


def _recent(events: Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    if not spec.max_history:
        return None
    lengths = np.bincount(events.user)
    return ~heads(bounds(lengths), np.maximum(lengths - spec.max_history, 0))


MASKS = {  # each returns a mask of the events to keep, or None to keep all
    "rating": _rated,
    "window": _within,
    "dedup": _unrepeated,
    "text": _texted,
    "core": _cored,
    "history": _recent,
}


def _scramble(users: np.ndarray, items: np.ndarray, seed: int) -> np.ndarray:
    """Hash each (user, item, seed) to uint64 by SplitMix64 (Steele, Lea & Flood 2014), equal on every platform."""
    mixed = np.full(len(users), seed % 2**64, np.uint64)
    for codes in (users, items):
        mixed = (mixed ^ codes.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def core(users: np.ndarray, items: np.ndarray, k: int, iterate: bool) -> np.ndarray:
    """Return the mask of the k-core: users and items with fewer than k events are removed until none is left.

    With `iterate` false, they are removed once, by the counts before any removal; then users left with fewer than k.
    """
    keep = np.ones(len(users), bool)
    before = -1
    while before != (before := int(keep.sum())) and before:
        enough = [(np.bincount(codes[keep], minlength=codes.max() + 1) >= k) for codes in (users, items)]
        keep &= enough[0][users]
        keep &= enough[1][items]
        if not iterate:
            return keep & (np.bincount(users[keep], minlength=len(enough[0])) >= k)[users]
    return keep

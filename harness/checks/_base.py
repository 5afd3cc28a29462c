"""The input of every check: `Facts`, and the `Sequences` in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from harness.checks._read import RawEvents
from harness.data.findings import EXAMPLES
from harness.data.reader import RawDataset

if TYPE_CHECKING:
    from harness.data.splits import Prepared
from harness.types import PrepSpec


@dataclass(frozen=True, eq=False)
class Facts:
    """A data set as the checks see it.

    `events`, `texts` (as `harness.data.reader.read_items` returns them): None if unreadable. `prepared`, `embedding`
    float32 (items of `prepared`, D): None if not available. `now`: seconds since 1970. `spec`: the preparation that is
    asked for.
    """

    raw: RawDataset
    events: RawEvents | None
    texts: pl.DataFrame | None
    prepared: Prepared | None
    embedding: np.ndarray | None
    now: float
    spec: PrepSpec

    @cached_property
    def sequences(self) -> Sequences | None:
        """The sequences of the prepared data if any, otherwise of the file."""
        if (data := self.prepared) is not None:
            return Sequences(data.items - 1, data.offsets, data.times, data.catalogue["item_id"], data.users)
        return None if self.events is None else _sequences(self.events)


@dataclass(frozen=True, eq=False)
class Sequences:
    """Each user's events in order: `items` int32 (events,) codes into `ids`; `offsets` int64 (users + 1,); `times`
    (events,), None if only the order is known; `users` str (users,)."""

    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    ids: pl.Series
    users: pl.Series

    @cached_property
    def neighbours(self) -> np.ndarray:
        """bool (events - 1,): whether the next event is of the same user."""
        follows = np.ones(max(len(self.items) - 1, 0), bool)
        ends = self.offsets[1:-1]
        follows[ends[(ends > 0) & (ends < len(self.items))] - 1] = False
        return follows


def _sequences(events: RawEvents) -> Sequences:
    """Sort events by time, and equal times as the preparation does by default: by `order`, or in file order."""
    index = events.walk
    gaps = events.order is not None and np.isnan(events.order).any()
    if events.timed and (gaps or events.steps_back.any()):
        index = index[np.argsort(events.time[index], kind="stable")]  # type: ignore[index]
        index = index[np.argsort(events.user[index], kind="stable")]
    times = events.time[index] if events.timed and events.time is not None else None
    return Sequences(events.item[index], events.offsets, times, events.items, events.users)


def ids_at(ids: pl.Series, codes: Sequence[int] | np.ndarray) -> list[str]:
    """Return the ids of the first few codes."""
    return ids.gather(np.asarray(codes[:EXAMPLES], np.int64)).to_list()

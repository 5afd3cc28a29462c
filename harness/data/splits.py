"""Sequences of users, and how they are split into training, validation and test.

An event is one (user, item, time). Item numbers start at 1, since 0 is the padding of every model; users at 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.data import presets
from harness.types import HarnessError, Protocol


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sequences of a raw data set under one `PrepSpec`; the arrays are memory-mapped from the cache.

    `hash`: identity of files, spec and preparation. `items` int32 (events,): item numbers 1..n_items, users one after
    the other, each in order. `offsets` int64 (users + 1,). `times` int64 (events,) seconds, None when the source has
    only an order. `catalogue`: row i is item number i + 1: item_id str, text str or null, source_row i64 or null (its
    row in the items file). `users` str (users,): their ids. `card`: what the data are, for people and reports.
    `matrices`: files of embeddings that the data set brings along, by name.
    """

    name: str
    hash: str
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame
    users: pl.Series
    card: dict[str, Any]
    matrices: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Queries:
    """`users` int32 (q,), `ends` int64 (q,): the history is the user's first `end` events, the target the next one."""

    users: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """Sequences, what of them is trained on, and what is asked.

    `items`, `offsets`, `times` as in `Prepared`; `train_ends` int64 (users,): the first `train_ends[u]` events of
    user u are for training; `test` is None where it is sealed.
    """

    n_items: int
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    train_ends: np.ndarray
    valid: Queries
    test: Queries | None

    def history(self, user: int, end: int) -> np.ndarray:
        """Item numbers int32 (end,) of the user's first `end` events."""
        start = self.offsets[user]
        return self.items[start : start + end]

    def sealed(self) -> Split:
        """What a search may see: no test, and no event that neither training nor validation needs."""
        keep = self.train_ends.copy()
        np.maximum.at(keep, self.valid.users, self.valid.ends + 1)  # a user may be asked more than once
        kept = heads(self.offsets, keep)
        times = None if self.times is None else self.times[kept]
        return Split(self.n_items, self.items[kept], bounds(keep), times, self.train_ends, self.valid, None)


def split(prepared: Prepared, protocol: Protocol) -> Split:
    """Training, validation and test of `prepared`.

    `loo` (leave one out): a user's last event tests, the one before validates; users of fewer than 3 events only
    train. `gts` (global temporal split, Gusak et al. 2025, arXiv 2507.16289): T_test is the protocol's quantile of
    all times, T_val the same quantile of the times <= T_test; events <= T_val train, a user's last event in
    (T_val, T_test] validates, the last one after T_test tests, each on all that the user did before (for `target`,
    `validation` and `drop_tied_test` see `Protocol`). Raises HarnessError if there is nothing to validate or test, the
    protocol has an unknown value, or times are needed and lacking.
    """
    presets.check_protocol(protocol)
    if protocol.drop_tied_test and prepared.times is None:
        raise HarnessError(f"{prepared.name} has no timestamps, which 'drop_tied_test' needs.")
    train_ends, valid, test = WAYS[protocol.split](prepared, protocol)
    if protocol.drop_tied_test:
        test = _untied(prepared, test)
    for part, queries in (("validate", valid), ("test", test)):
        if not len(queries.users):
            raise HarnessError(f"{prepared.name}: the split '{protocol.split}' leaves no user to {part}.")
    n_items = prepared.catalogue.height
    return Split(n_items, prepared.items, prepared.offsets, prepared.times, train_ends, valid, test)


def cold(split: Split, queries: Queries) -> np.ndarray:
    """Which targets were never trained on, bool (queries,): no training event of any user is of that item."""
    trained = np.zeros(split.n_items + 1, bool)
    trained[split.items[heads(split.offsets, split.train_ends)]] = True
    return ~trained[split.items[split.offsets[queries.users] + queries.ends]]


def asked(split: Split) -> dict[str, Any]:
    """What a split asks: targets in validation and test, and the shares of them that training never saw (`cold`)."""
    told: dict[str, Any] = {}
    for part, queries in (("valid", split.valid), ("test", split.test)):
        if queries is not None:
            told |= {f"{part}_targets": len(queries.users), f"cold_{part}_share": share(cold(split, queries))}
    return told


def share(hits: np.ndarray) -> float:
    """Of bool (n,), 0.0 if there is none."""
    return float(hits.mean()) if len(hits) else 0.0


def bounds(lengths: np.ndarray) -> np.ndarray:
    """Where each stretch begins, and where the last ends, int64 (stretches + 1,), of their lengths."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def heads(offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mask, bool (events,), of each user's first `counts` events."""
    runs = np.stack([counts, np.diff(offsets) - counts], 1).ravel()
    return np.repeat(np.tile([True, False], len(counts)), runs)


def _leave_one_out(prepared: Prepared, protocol: Protocol) -> tuple[np.ndarray, Queries, Queries]:
    lengths = np.diff(prepared.offsets)
    asked = np.flatnonzero(lengths >= 3)
    train_ends = np.where(lengths >= 3, lengths - 2, lengths)
    return train_ends, _queries(asked, lengths[asked] - 2), _queries(asked, lengths[asked] - 1)


def _temporal(prepared: Prepared, protocol: Protocol) -> tuple[np.ndarray, Queries, Queries]:
    if prepared.times is None:
        raise HarnessError(f"{prepared.name} has no timestamps, which the split 'gts' needs; use 'loo'.")
    times, lengths = np.asarray(prepared.times), np.diff(prepared.offsets)
    t_test = np.quantile(times, protocol.quantile)
    until_test = _count_until(prepared, t_test)
    test = _after(until_test, lengths, protocol.target)
    if protocol.validation == "last_train":
        asked = np.flatnonzero(until_test >= 2)
        train_ends = until_test.copy()
        train_ends[asked] -= 1
        return train_ends, _queries(asked, train_ends[asked]), test
    t_val = np.quantile(times[times <= t_test], protocol.quantile)
    until_val = _count_until(prepared, t_val)
    return until_val, _after(until_val, until_test, protocol.target), test


WAYS = {"loo": _leave_one_out, "gts": _temporal}


def _after(cut: np.ndarray, stop: np.ndarray, target: str) -> Queries:
    """Queries whose targets are, of each user's events number `cut` to `stop` (from 0) that have one before them, the
    last, the first or all of them."""
    first = np.maximum(cut, 1)
    users = np.flatnonzero(stop > first)
    if target == "last":
        return _queries(users, stop[users] - 1)
    if target == "first":
        return _queries(users, first[users])
    counts = (stop - first)[users]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return _queries(np.repeat(users, counts), np.repeat(first[users], counts) + place)


def _untied(prepared: Prepared, queries: Queries) -> Queries:
    """Without the queries whose target has the time of the event before it."""
    assert prepared.times is not None
    at = prepared.offsets[queries.users] + queries.ends
    keep = prepared.times[at] != prepared.times[at - 1]
    return Queries(queries.users[keep], queries.ends[keep])


def _count_until(prepared: Prepared, limit: float) -> np.ndarray:
    """Events int64 (users,) of each user at or before `limit`."""
    until = np.concatenate(([0], np.cumsum(np.asarray(prepared.times) <= limit)))
    return until[prepared.offsets[1:]] - until[prepared.offsets[:-1]]


def _queries(users: np.ndarray, ends: np.ndarray) -> Queries:
    return Queries(users.astype(np.int32), ends.astype(np.int64))

"""User sequences and their split into training, validation and test.

An event is one (user, item, time). Item numbers start at 1, since 0 is the padding of every model; users at 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl

from harness.data import presets
from harness.data.cards import DataCard
from harness.types import HarnessError, Json, Protocol


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sequences of a raw data set under one `PrepSpec`; the arrays are memory-mapped from the cache.

    `hash`: identity of files, spec and preparation. `items` int32 (events,): item numbers 1..n_items, user by user, in
    order. `offsets` int64 (users + 1,). `times` (events,) seconds, int64, or float64 if some have fractions; None if
    the source has only an order.
    `catalogue`: row i is item number i + 1: item_id str, text str or null, source_row i64 or null (its row in the items
    file). `users` str (users,): their ids. `card`: description of the data for people and reports. `matrices`:
    embedding files of the data set, by name.
    """

    name: str
    hash: str
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame
    users: pl.Series
    card: DataCard
    matrices: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Queries:
    """`users` int32 (q,), `ends` int64 (q,): the history is the user's first `end` events, the target the next one."""

    users: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """Sequences with their training part and their validation and test queries.

    `items`, `offsets`, `times` as in `Prepared`; `train_ends` int64 (users,): the first `train_ends[u]` events of user
    u are for training; `test` is None if sealed. `held_out` bool (n_items + 1,): items, by number, of which the
    sequences have only test events; None without `Protocol.cold_items`.
    """

    n_items: int
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    train_ends: np.ndarray
    valid: Queries
    test: Queries | None
    held_out: np.ndarray | None = None

    @property
    def seconds(self) -> np.ndarray | None:
        """Times in whole seconds, int64 (events,), as backbones read them."""
        return None if self.times is None else np.floor(self.times).astype(np.int64, copy=False)

    def history(self, user: int, end: int) -> np.ndarray:
        """Return the item numbers int32 (end,) of the user's first `end` events."""
        start = self.offsets[user]
        return self.items[start : start + end]

    def sealed(self) -> Split:
        """Return the split that a search may see: no test, and only events that training or validation needs."""
        keep = self.train_ends.copy()
        np.maximum.at(keep, self.valid.users, self.valid.ends + 1)  # a user may have several queries
        mask = heads(self.offsets, keep)
        times = None if self.times is None else self.times[mask]
        return Split(
            self.n_items, self.items[mask], bounds(keep), times, self.train_ends, self.valid, None, self.held_out
        )


def split(prepared: Prepared, protocol: Protocol) -> Split:
    """Split `prepared` into training, validation and test.

    `loo` (leave one out): a user's last event is the test, the one before it the validation; users with fewer than 3
    events are only trained on. `gts` (global temporal split, Gusak et al. 2025, arXiv 2507.16289): T_test is the
    protocol's quantile of all times, T_val the same quantile of the times <= T_test; events <= T_val are for training,
    a user's last event in (T_val, T_test] for validation, the last one after T_test for the test, each with all of the
    user's earlier events as history. `windows` (sliding windows): one of several `gts` splits, see `_in_windows`.
    `users` (cold-start users): a draw of users is only trained on; the others are not trained on, half of them are for
    validation and half for the test, with targets from their second event on. For `target`, `validation`,
    `drop_tied_test` and `cold_items` see `Protocol`. Raises HarnessError if validation or test
    would be empty, the protocol has an unknown value, or required times or texts are missing.
    """
    presets.check_protocol(protocol)
    if protocol.drop_tied_test and prepared.times is None:
        raise HarnessError(
            f"{prepared.name} has no timestamps, which --drop-tied-test needs; omit it, or add a column timestamp."
        )
    held_out = _held_out(prepared, protocol) if protocol.cold_items else None
    clock = prepared.times
    if clock is not None and held_out is not None:
        clock = clock[~held_out[prepared.items]]
    if protocol.folds:
        prepared = _up_to(cuts(prepared, protocol, clock)[protocol.fold + 1], prepared)
    if held_out is None:
        parts = WAYS[protocol.split](prepared, protocol, clock)
    else:
        prepared, parts = _without(held_out, prepared, protocol, clock)
    train_ends, valid, test = parts
    if protocol.drop_tied_test:
        test = _untied(prepared, test)
    for part, queries in (("validation", valid), ("the test", test)):
        if not len(queries.users):
            raise HarnessError(
                f"{prepared.name}: --protocol {protocol.split} leaves no user for {part}{_of_fold(protocol)}. "
                f"Filter less{', move --quantile' if protocol.split in ('gts', 'windows') else ''} or choose another."
            )
    n_items = prepared.catalogue.height
    return Split(n_items, prepared.items, prepared.offsets, prepared.times, train_ends, valid, test, held_out)


def cold(split: Split, queries: Queries) -> np.ndarray:
    """Return which targets are cold, bool (queries,): no user has a training event of that item."""
    trained = np.zeros(split.n_items + 1, bool)
    trained[split.items[heads(split.offsets, split.train_ends)]] = True
    return ~trained[split.items[split.offsets[queries.users] + queries.ends]]


def target_counts(split: Split) -> Json:
    """Return the number of validation and test targets, and the shares of them that are `cold`."""
    counts: Json = {}
    for part, queries in (("valid", split.valid), ("test", split.test)):
        if queries is not None:
            counts |= {f"{part}_targets": len(queries.users), f"cold_{part}_share": share(cold(split, queries))}
    return counts


def counts_of_folds(counts: list[Json]) -> Json:
    """Return `target_counts` over several folds: sums, shares of all targets, and each fold's own under `folds`.

    Of a single fold, its counts.
    """
    if len(counts) == 1:
        return counts[0]
    together: Json = {"folds": counts}
    for part in ("valid", "test"):
        numbers = [one[f"{part}_targets"] for one in counts]
        cold_ones = sum(n * one[f"cold_{part}_share"] for n, one in zip(numbers, counts, strict=True))
        together |= {f"{part}_targets": sum(numbers), f"cold_{part}_share": cold_ones / max(sum(numbers), 1)}
    return together


def share(hits: np.ndarray) -> float:
    """Return the share of true values in bool (n,), 0.0 if it is empty."""
    return float(hits.mean()) if len(hits) else 0.0


def bounds(lengths: np.ndarray) -> np.ndarray:
    """Return the start of each segment and the end of the last, int64 (segments + 1,), from the lengths (segments,)."""
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def heads(offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return a mask, bool (events,), of each user's first `counts` events."""
    runs = np.stack([counts, np.diff(offsets) - counts], 1).ravel()
    return np.repeat(np.tile([True, False], len(counts)), runs)


Parts = tuple[np.ndarray, Queries, Queries]  # train_ends, validation, test


def _leave_one_out(prepared: Prepared, protocol: Protocol, clock: np.ndarray | None) -> Parts:
    lengths = np.diff(prepared.offsets)
    users = np.flatnonzero(lengths >= 3)
    train_ends = np.where(lengths >= 3, lengths - 2, lengths)
    return train_ends, _queries(users, lengths[users] - 2), _queries(users, lengths[users] - 1)


def _temporal(prepared: Prepared, protocol: Protocol, clock: np.ndarray | None) -> Parts:
    """Split by time; the cuts are quantiles of the times `clock`."""
    if clock is None:
        raise HarnessError(f"{prepared.name} has no timestamps, but the split 'gts' needs them; use 'loo'.")
    times = np.asarray(clock)
    return _at(np.quantile(times, protocol.quantile), prepared, protocol, times)


def _in_windows(prepared: Prepared, protocol: Protocol, clock: np.ndarray | None) -> Parts:
    """Split by time at the cut of the fold; `prepared` has no event after the next cut.

    Training and validation are as in `gts`, with the fold's cut as T_test; the test is a user's target between this
    cut and the next. Repeated cuts in time: Ng, Khoo and Sun (RecNextEval, SIGIR 2026, arXiv 2604.13665). Unlike there,
    each fold trains a model from scratch, and no model is updated with the data of a window.
    """
    cut = cuts(prepared, protocol, clock)[protocol.fold]
    return _at(cut, prepared, protocol, np.asarray(clock))


def cuts(prepared: Prepared, protocol: Protocol, clock: np.ndarray | None) -> np.ndarray:
    """Return the ends of training of all folds and the end of the last test, float64 (folds + 1,) seconds.

    They are quantiles of the times `clock`, equally spaced from the protocol's `quantile` to 1, so that the windows
    have equally many events, up to equal times. Raises HarnessError without times.
    """
    if clock is None:
        raise HarnessError(f"{prepared.name} has no timestamps, but the split 'windows' needs them; use 'loo'.")
    return np.quantile(np.asarray(clock), np.linspace(protocol.quantile, 1, protocol.folds + 1))


def _up_to(limit: float, prepared: Prepared) -> Prepared:
    assert prepared.times is not None
    return _kept(prepared, np.asarray(prepared.times) <= limit)


def _of_fold(protocol: Protocol) -> str:
    return f" of fold {protocol.fold} (of 0 to {protocol.folds - 1}); use fewer folds" if protocol.folds else ""


def _at(t_test: float, prepared: Prepared, protocol: Protocol, times: np.ndarray) -> Parts:
    """Split at `t_test`; the validation cut is a quantile of the `times` until then."""
    lengths = np.diff(prepared.offsets)
    until_test = _count_until(prepared, t_test)
    test = _after(until_test, lengths, protocol.target)
    if protocol.validation == "last_train":
        users = np.flatnonzero(until_test >= 2)
        train_ends = until_test.copy()
        train_ends[users] -= 1
        return train_ends, _queries(users, train_ends[users]), test
    t_val = np.quantile(times[times <= t_test], protocol.quantile)
    until_val = _count_until(prepared, t_val)
    return until_val, _after(until_val, until_test, protocol.target), test


def _by_user(prepared: Prepared, protocol: Protocol, clock: np.ndarray | None) -> Parts:
    lengths = np.diff(prepared.offsets)
    order = _shuffled(prepared.users, protocol.split_seed)
    trained = round(protocol.train_users * len(order))
    valid = trained + (len(order) - trained) // 2
    train_ends = np.zeros_like(lengths)
    train_ends[order[:trained]] = lengths[order[:trained]]
    parts = []
    for chosen in (order[trained:valid], order[valid:]):
        stop = np.zeros_like(lengths)
        stop[chosen] = lengths[chosen]
        parts.append(_after(np.zeros_like(lengths), stop, protocol.target))
    return train_ends, parts[0], parts[1]


WAYS = {"loo": _leave_one_out, "gts": _temporal, "windows": _in_windows, "users": _by_user}


def _held_out(prepared: Prepared, protocol: Protocol) -> np.ndarray:
    """Return which items are held out, bool (n_items + 1,): the share `cold_items` of those with text, by id and seed.

    Raises HarnessError if that is no item, since the split would have nothing to test.
    """
    with_text = prepared.catalogue["text"].is_not_null().to_numpy()
    numbers = np.flatnonzero(with_text) + 1
    order = _shuffled(prepared.catalogue["item_id"].filter(with_text), protocol.split_seed)
    mask = np.zeros(len(with_text) + 1, bool)
    mask[numbers[order[: round(protocol.cold_items * len(numbers))]]] = True
    if not mask.any():
        raise HarnessError(
            f"{prepared.name}: cold_items {protocol.cold_items:g} holds out none of its {len(numbers)} items with text."
        )
    return mask


def _without(
    held_out: np.ndarray, prepared: Prepared, protocol: Protocol, clock: np.ndarray | None
) -> tuple[Prepared, Parts]:
    """Return the sequences without the events of held-out items, except test targets, and their split.

    Training and validation are those of the data set without these events; `clock`: its times, for the cuts. A user's
    test target is that of the whole sequence, held out or not, with the earlier events of other items as history; a
    user without history, or whose target is already in training or validation, has no query.
    """
    hidden = held_out[prepared.items]
    warm = _kept(prepared, ~hidden)
    train_ends, valid, test = WAYS[protocol.split](warm, protocol, clock)
    whole = WAYS[protocol.split](prepared, protocol, clock)[2]
    before = np.concatenate(([0], np.cumsum(~hidden)))  # warm events before each event
    at = prepared.offsets[whole.users] + whole.ends
    ends = before[at] - before[prepared.offsets[whole.users]]
    replaced = hidden[at] & (ends > 0)
    warm_end = np.full(len(train_ends), -1)
    warm_end[whole.users] = np.where(hidden[at], -1, ends)
    stay = test.ends == warm_end[test.users]
    users = np.concatenate((test.users[stay], whole.users[replaced]))
    order = np.argsort(users, kind="stable")
    both = _queries(users[order], np.concatenate((test.ends[stay], ends[replaced]))[order])
    mask = ~hidden
    mask[at[replaced]] = True
    return _kept(prepared, mask), (train_ends, valid, both)


def _kept(prepared: Prepared, mask: np.ndarray) -> Prepared:
    """Return the sequences with only the events of `mask`, bool (events,)."""
    before = np.concatenate(([0], np.cumsum(mask)))
    times = None if prepared.times is None else prepared.times[mask]
    offsets = before[prepared.offsets].astype(np.int64)
    return replace(prepared, items=prepared.items[mask], offsets=offsets, times=times)


def _shuffled(ids: Iterable[str], seed: int) -> np.ndarray:
    """Return a random order of the ids, int64 (ids,), by SHA-256: equal on all platforms and for any numbering."""
    keys = [hashlib.sha256(f"{seed}:{word}".encode()).digest() for word in ids]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64)


def _after(cut: np.ndarray, stop: np.ndarray, target: str) -> Queries:
    """Return queries on the last, the first or all of each user's events `cut` <= number < `stop` (from 0).

    An event without an earlier one is no target.
    """
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
    """Return the queries whose target has a time other than the previous event's."""
    assert prepared.times is not None
    at = prepared.offsets[queries.users] + queries.ends
    keep = prepared.times[at] != prepared.times[at - 1]
    return Queries(queries.users[keep], queries.ends[keep])


def _count_until(prepared: Prepared, limit: float) -> np.ndarray:
    """Return the number of each user's events at or before `limit`, int64 (users,)."""
    until = np.concatenate(([0], np.cumsum(np.asarray(prepared.times) <= limit)))
    return until[prepared.offsets[1:]] - until[prepared.offsets[:-1]]


def _queries(users: np.ndarray, ends: np.ndarray) -> Queries:
    return Queries(users.astype(np.int32), ends.astype(np.int64))

"""Raw interactions in, filtered, ordered and split sequences out.

An event is one (user, item, time). Item numbers start at 1, since 0 is the padding of every model; users at 0.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import files
from harness.raw import RawDataset, file_hashes, open_dataset, raw_hash, read_events, read_items, ready
from harness.registry import suggest
from harness.types import HarnessError, PrepSpec, Protocol, digest

__all__ = ["Prepared", "Queries", "RawDataset", "Split", "open_dataset", "prepare", "raw_hash", "ready", "split"]

PREPARATION = 1  # raise it when the same files and spec come to other sequences
MAX_ORPHAN_SHARE = 0.5  # of interactions whose item has no row in the items file; beyond it the ids do not fit
PLACEHOLDER = r"(?i)^(title_\d+|nan|unknown)$"
ARRAYS = {"items": np.int32, "offsets": np.int64, "times": np.int64}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Sequences of a raw data set under one `PrepSpec`; the arrays are memory-mapped from the cache.

    `hash`: identity of files, spec and preparation. `items` int32 (events,): item numbers 1..n_items, users one after
    the other, each in order. `offsets` int64 (users + 1,). `times` int64 (events,) seconds, None when the source has
    only an order. `catalogue`: row i is item number i + 1: item_id str, text str or null, source_row i64 or null (its
    row in the items file). `users` str (users,): their ids. `card`: what the data are, for people and reports.
    """

    name: str
    hash: str
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame
    users: pl.Series
    card: dict[str, Any]


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
        keep[self.valid.users] = np.maximum(keep[self.valid.users], self.valid.ends + 1)
        within = np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        kept = within < np.repeat(keep, np.diff(self.offsets))
        times = None if self.times is None else self.times[kept]
        return Split(self.n_items, self.items[kept], _offsets(keep), times, self.train_ends, self.valid, None)


def prepare(raw: RawDataset, spec: PrepSpec, home: Path) -> Prepared:
    """Sequences of `raw` under `spec`; made once, then mapped from `home`/cache/prepared/<hash>.

    Repeated (user, item, time) events are dropped; then items without text, if the spec says so; then users and items
    with fewer than `kcore` events, until none is left. Users and items are numbered in the order of their ids, events
    ordered by time, equal times by the tie policy. Raises HarnessError if a file or the spec is not as it should be,
    or fewer than two users or items are left.
    """
    policy = _tie_policy(spec)
    identity = digest({"raw": raw_hash(raw), "spec": asdict(spec), "version": PREPARATION})
    folder = home / "cache" / "prepared" / identity
    files.build_folder(folder, lambda new: _write(_sequences(raw, spec, policy), raw, spec, new))
    return _mapped(raw, identity, folder)


def split(prepared: Prepared, protocol: Protocol) -> Split:
    """Training, validation and test of `prepared`.

    `loo` (leave one out): a user's last event tests, the one before validates; users of fewer than 3 events only
    train. `gts` (global temporal split, Gusak et al. 2025, arXiv 2507.16289): T_test is the protocol's quantile of
    all times, T_val the same quantile of the times <= T_test; events <= T_val train, a user's last event in
    (T_val, T_test] validates, the last one after T_test tests, each on all that the user did before. Raises
    HarnessError if there is nothing to validate or test, or `gts` lacks times.
    """
    ways = {"loo": _leave_one_out, "gts": _temporal}
    if protocol.split not in ways:
        raise HarnessError(f"There is no split '{protocol.split}'. {suggest(protocol.split, list(ways))}")
    train_ends, valid, test = ways[protocol.split](prepared, protocol)
    for part, queries in (("validate", valid), ("test", test)):
        if not len(queries.users):
            raise HarnessError(f"{prepared.name}: the split '{protocol.split}' leaves no user to {part}.")
    n_items = prepared.catalogue.height
    return Split(n_items, prepared.items, prepared.offsets, prepared.times, train_ends, valid, test)


@dataclass(frozen=True, eq=False)
class _Sequences:
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame  # with the column head: the value of the text template's first field
    users: pl.Series
    counts: dict[str, int]


def _sequences(raw: RawDataset, spec: PrepSpec, policy: tuple[str, int]) -> _Sequences:
    events, texts = read_events(raw.interactions), read_items(raw.items, raw.text)
    users, items = (events[name].unique().sort() for name in ("user_id", "item_id"))
    catalogue = items.to_frame().join(texts, on="item_id", how="left", maintain_order="left")
    _check_ids_meet(raw, events, texts)
    timed = "timestamp" in events.columns and events["timestamp"].null_count() == 0
    counts = {"raw_events": events.height, "source_rows": texts.height}
    counts["missing_times"] = events["timestamp"].null_count() if "timestamp" in events.columns else 0
    events = _ordered(events.with_columns(_codes("user_id", users), _codes("item_id", items)), timed, policy)
    counts["duplicates_dropped"] = counts["raw_events"] - events.height

    user, item = events["user_id"].to_numpy(), events["item_id"].to_numpy()
    index = np.arange(len(user))
    if spec.require_text:
        index = index[catalogue["text"].is_not_null().to_numpy()[item]]
    index = _kcore(user, item, index, spec.kcore)
    per_user, per_item = (
        np.bincount(codes[index], minlength=n) for codes, n in ((user, len(users)), (item, len(items)))
    )
    _check_enough(raw, spec, int((per_user > 0).sum()), int((per_item > 0).sum()))
    numbers = np.cumsum(per_item > 0).astype(np.int32)  # of the items that are left, from 1
    return _Sequences(
        items=numbers[item[index]],
        offsets=_offsets(per_user[per_user > 0]),
        times=np.floor(events["clock"].to_numpy()[index]).astype(np.int64) if timed else None,
        catalogue=catalogue.filter(pl.Series(per_item > 0)),
        users=users.filter(pl.Series(per_user > 0)),
        counts=counts,
    )


def _codes(name: str, ids: pl.Series) -> pl.Expr:
    return pl.col(name).cast(pl.Enum(ids)).to_physical()


def _ordered(events: pl.DataFrame, timed: bool, policy: tuple[str, int]) -> pl.DataFrame:
    """user_id, item_id (codes) and clock of the events, without repeats, each user's in order."""
    user, item = events["user_id"].to_numpy(), events["item_id"].to_numpy()
    clock = events["timestamp" if timed else "order"].to_numpy()
    kind, seed = policy
    if kind == "item_id":
        tie = item
    elif kind == "random":
        tie = _scramble(user, item, seed)
    else:
        tie = events["order"].to_numpy() if "order" in events.columns else np.arange(events.height)
    order = np.lexsort((tie, clock, user))  # stable: what is equal still stays in file order
    ordered = pl.DataFrame({"user_id": user[order], "item_id": item[order], "clock": clock[order]})
    return ordered.unique(keep="first", maintain_order=True)


def _scramble(users: np.ndarray, items: np.ndarray, seed: int) -> np.ndarray:
    """A number uint64 for each (user, item, seed), by SplitMix64 (Steele, Lea & Flood 2014): the same anywhere."""
    mixed = np.full(len(users), seed % 2**64, np.uint64)
    for codes in (users, items):
        mixed = (mixed ^ codes.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _kcore(users: np.ndarray, items: np.ndarray, index: np.ndarray, k: int) -> np.ndarray:
    """What is left of `index` when users and items with fewer than k events go, until none does."""
    while len(index):
        enough = np.bincount(users[index])[users[index]] >= k
        enough &= np.bincount(items[index])[items[index]] >= k
        if enough.all():
            break
        index = index[enough]
    return index


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _tie_policy(spec: PrepSpec) -> tuple[str, int]:
    kind, colon, seed = spec.tie_policy.partition(":")
    if spec.kcore < 0:
        raise HarnessError(f"kcore is {spec.kcore}; it must be 0 (off) or more.")
    if kind == "random" and seed.isdecimal():
        return kind, int(seed)
    if colon or kind not in ("source", "item_id"):
        known = suggest(spec.tie_policy, ["source", "item_id", "random:<seed>"])
        raise HarnessError(f"There is no tie policy '{spec.tie_policy}'. {known}")
    return kind, 0


def _check_ids_meet(raw: RawDataset, events: pl.DataFrame, texts: pl.DataFrame) -> None:
    orphans = events["item_id"].filter(~events["item_id"].is_in(texts["item_id"].implode()))
    if len(orphans) > MAX_ORPHAN_SHARE * events.height:
        raise HarnessError(
            f"{raw.items}: the item_id of {len(orphans):,} of {events.height:,} interactions is not in it (such as "
            f"'{orphans[0]}'; it has '{texts['item_id'][0]}'); at most {MAX_ORPHAN_SHARE:.0%} may lack a row."
        )


def _check_enough(raw: RawDataset, spec: PrepSpec, users: int, items: int) -> None:
    if min(users, items) < 2:
        without = " among items with text" if spec.require_text else ""
        raise HarnessError(
            f"{raw.name}: the {spec.kcore}-core{without} leaves {users} users and {items} items; 2 of each are needed. "
            "Lower kcore."
        )


def _write(sequences: _Sequences, raw: RawDataset, spec: PrepSpec, folder: Path) -> None:
    for name, kind in ARRAYS.items():
        if (array := getattr(sequences, name)) is not None:
            np.save(folder / f"{name}.npy", array.astype(kind, copy=False), allow_pickle=False)
    sequences.catalogue.drop("head").write_parquet(folder / "catalogue.parquet")
    sequences.users.alias("user_id").to_frame().write_parquet(folder / "users.parquet")
    files.write_json(folder / "card.json", {"spec": asdict(spec), "files": file_hashes(raw), **_card(sequences)})


def _mapped(raw: RawDataset, identity: str, folder: Path) -> Prepared:
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        items, offsets = _map(folder, "items"), _map(folder, "offsets")
        times = _map(folder, "times") if card["timed"] else None
        catalogue = pl.read_parquet(folder / "catalogue.parquet")
        users = pl.read_parquet(folder / "users.parquet")["user_id"]
        found = [len(items), len(offsets) - 1, catalogue.height, len(users)]
        if found != [card["events"], card["users"], card["items"], card["users"]]:
            raise ValueError("its parts do not fit together")
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise HarnessError(f"{folder} is damaged ({error}); delete it and run again.") from error
    card |= {"name": raw.name, "licence": raw.licence, "citation": raw.citation, "text": raw.text}
    return Prepared(raw.name, identity, items, offsets, times, catalogue, users, card)


def _map(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def _card(sequences: _Sequences) -> dict[str, Any]:
    lengths, texts = np.diff(sequences.offsets), sequences.catalogue["text"]
    users, items, events = len(lengths), sequences.catalogue.height, len(sequences.items)
    card: dict[str, Any] = {
        "users": users,
        "items": items,
        "events": events,
        "density": events / (users * items),
        "mean_length": events / users,
        "timed": sequences.times is not None,
        "orphans": sequences.catalogue["source_row"].null_count(),
        "missing_text": texts.null_count(),
        "duplicate_texts": len(texts.drop_nulls()) - texts.drop_nulls().n_unique(),
        **sequences.counts,
        **_neighbours(sequences),
    }
    return card | {"warnings": _warnings(card, sequences)}


def _neighbours(sequences: _Sequences) -> dict[str, float | None]:
    """Shares of a user's neighbouring events: of equal time, the last two of equal time, of increasing id."""
    ends = sequences.offsets[1:]
    same_user = np.ones(max(len(sequences.items) - 1, 0), bool)
    same_user[ends[:-1] - 1] = False
    order = _id_ranks(sequences.catalogue["item_id"])[sequences.items - 1]
    shares: dict[str, float | None] = {"id_increasing_share": _share(np.diff(order)[same_user] > 0)}
    if sequences.times is None:
        return shares | {"tie_share": None, "test_tie_share": None}
    tied = np.diff(sequences.times) == 0
    last = ends[np.diff(sequences.offsets) > 1] - 2
    return shares | {"tie_share": _share(tied[same_user]), "test_tie_share": _share(tied[last])}


def _id_ranks(ids: pl.Series) -> np.ndarray:
    """Place of each id in their order; whole numbers in that of numbers."""
    numbers = ids.cast(pl.Int64, strict=False)
    return (ids if numbers.null_count() else numbers).rank("dense").to_numpy().astype(np.int64)


def _share(hits: np.ndarray) -> float:
    return float(hits.mean()) if len(hits) else 0.0


def _warnings(card: dict[str, Any], sequences: _Sequences) -> list[str]:
    heads, texts = sequences.catalogue["head"].drop_nulls(), sequences.catalogue["text"].drop_nulls()
    placeholders, garbled = heads.str.contains(PLACEHOLDER).sum(), texts.str.contains("\ufffd", literal=True).sum()
    missing, increasing, tied = card["missing_times"], card["id_increasing_share"], card["test_tie_share"] or 0.0
    by_order = "all events are in the order of the column 'order'"
    found = [
        (not card["timed"] and not missing, f"There are no timestamps: {by_order}."),
        (missing, f"Events without a timestamp: {missing:,}; {by_order}."),
        (
            increasing > 0.95,
            f"{increasing:.0%} of neighbouring events have increasing item ids: sorted by id, not time?",
        ),
        (tied > 0.1, f"{tied:.0%} of users did their last two events at the same time: the tie policy orders them."),
        (placeholders, f"Items with a placeholder for a title: {placeholders:,}."),
        (garbled, f"Texts that hold U+FFFD, read in a wrong encoding once: {garbled:,}."),
    ]
    return [sentence for holds, sentence in found if holds]


def _leave_one_out(prepared: Prepared, protocol: Protocol) -> tuple[np.ndarray, Queries, Queries]:
    lengths = np.diff(prepared.offsets)
    asked = np.flatnonzero(lengths >= 3)
    train_ends = np.where(lengths >= 3, lengths - 2, lengths)
    return train_ends, _queries(asked, lengths[asked] - 2), _queries(asked, lengths[asked] - 1)


def _temporal(prepared: Prepared, protocol: Protocol) -> tuple[np.ndarray, Queries, Queries]:
    if prepared.times is None:
        raise HarnessError(f"{prepared.name} has no timestamps, which the split 'gts' needs; use 'loo'.")
    if not 0 < protocol.quantile < 1:
        raise HarnessError(f"The quantile of the split 'gts' is {protocol.quantile}; it must lie between 0 and 1.")
    times, lengths = np.asarray(prepared.times), np.diff(prepared.offsets)
    t_test = np.quantile(times, protocol.quantile)
    t_val = np.quantile(times[times <= t_test], protocol.quantile)
    until_val, until_test = (_count_until(prepared, t) for t in (t_val, t_test))
    valid = np.flatnonzero((until_test > until_val) & (until_test >= 2))
    test = np.flatnonzero((lengths > until_test) & (lengths >= 2))
    return until_val, _queries(valid, until_test[valid] - 1), _queries(test, lengths[test] - 1)


def _count_until(prepared: Prepared, limit: float) -> np.ndarray:
    """Events int64 (users,) of each user at or before `limit`."""
    until = np.concatenate(([0], np.cumsum(np.asarray(prepared.times) <= limit)))
    return until[prepared.offsets[1:]] - until[prepared.offsets[:-1]]


def _queries(users: np.ndarray, ends: np.ndarray) -> Queries:
    return Queries(users.astype(np.int32), ends.astype(np.int64))

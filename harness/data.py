"""Raw interactions in, filtered, ordered and split sequences out.

An event is one (user, item, time). Item numbers start at 1, since 0 is the padding of every model; users at 0.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import files, presets
from harness.raw import RawDataset, file_hashes, open_dataset, raw_hash, read_events, read_items, ready
from harness.sequential import order_test
from harness.types import HarnessError, PrepSpec, Protocol, digest

__all__ = [
    "Prepared",
    "Queries",
    "RawDataset",
    "Split",
    "cold",
    "open_dataset",
    "prepare",
    "raw_hash",
    "ready",
    "split",
]

PREPARATION = 1  # raise it when the same files and spec come to other sequences
MAX_ORPHAN_SHARE = 0.5  # of interactions whose item has no row in the items file; beyond it the ids do not fit
PLACEHOLDER = r"(?i)^(title_\d+|nan|unknown)$"
MARKUP = "<span id"  # what the titles of some 2018 pages of Amazon hold instead of a title
WEAK_ORDER = 10  # percent that shuffling must cost, for the order to say something
FACTS = 1  # raise it when `_facts` finds something else
LARGE = 2**25  # bytes of interactions from which preparing is told phase by phase
PHASES = ("reading", "numbering", "ordering", "filtering", "writing", "describing")
ARRAYS = {"items": np.int32, "offsets": np.int64, "times": np.int64}


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
        kept = _first(self.offsets, keep)
        times = None if self.times is None else self.times[kept]
        return Split(self.n_items, self.items[kept], _offsets(keep), times, self.train_ends, self.valid, None)


def prepare(raw: RawDataset, spec: PrepSpec, home: Path) -> Prepared:
    """Sequences of `raw` under `spec`; made once, then mapped from `home`/cache/prepared/<hash>.

    Each user's events are ordered by time, equal times by the tie policy; then the steps of the spec run in their
    order (see `PrepSpec`). What is left of users and items is numbered in the order of the ids. Large sets tell on
    stderr what they are at. Raises HarnessError if a file or the spec is not as it should be, or fewer than two users
    or items are left.
    """
    presets.check(spec)
    identity = digest({"raw": raw_hash(raw), "spec": spec.identity(), "version": PREPARATION})
    folder = home / "cache" / "prepared" / identity
    tell = _Phases(raw)
    files.build_folder(folder, lambda new: _write(_sequences(raw, spec, tell), raw, spec, new, tell))
    return _mapped(raw, spec, identity, folder, tell)


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
    trained[split.items[_first(split.offsets, split.train_ends)]] = True
    return ~trained[split.items[split.offsets[queries.users] + queries.ends]]


class _Phases:
    """Tells on stderr what a large preparation is at: in place on a terminal, else a line a phase."""

    def __init__(self, raw: RawDataset) -> None:
        self.name, self.start = raw.name, time.monotonic()
        self.large = raw.interactions.stat().st_size >= LARGE
        self.live = sys.stderr.isatty()

    def __call__(self, phase: str) -> None:
        if self.large:
            place = f"{PHASES.index(phase) + 1} of {len(PHASES)}, {time.monotonic() - self.start:.0f} s gone"
            line = f"{self.name}: {phase} ({place})"
            print(f"\r\x1b[K{line}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.large and self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class _Sequences:
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None
    catalogue: pl.DataFrame  # with the column head: the value of the text template's first field
    users: pl.Series
    counts: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Events:
    """Events of all users, one after the other, each user's in order: codes int32, clock and rating numbers."""

    user: np.ndarray
    item: np.ndarray
    clock: np.ndarray
    rating: np.ndarray | None

    def at(self, places: np.ndarray) -> _Events:
        """Those at these places, or where a mask is true."""
        rating = None if self.rating is None else self.rating[places]
        return _Events(self.user[places], self.item[places], self.clock[places], rating)


def _sequences(raw: RawDataset, spec: PrepSpec, tell: Callable[[str], None]) -> _Sequences:
    tell("reading")
    frame = read_events(raw.interactions, () if spec.min_rating is None else ("rating",))
    texts = read_items(raw.items, raw.text)
    users, items = (frame[name].unique().sort() for name in ("user_id", "item_id"))
    catalogue = items.to_frame().join(texts, on="item_id", how="left", maintain_order="left")
    timed = "timestamp" in frame.columns and frame["timestamp"].null_count() == 0
    counts = {"raw_events": frame.height, "source_rows": texts.height}
    counts["missing_times"] = frame["timestamp"].null_count() if "timestamp" in frame.columns else 0
    if spec.window is not None and not timed:
        raise HarnessError(f"{raw.name}: a window of days needs the time of every event; {raw.interactions} lacks it.")

    tell("numbering")  # the texts of the ids are let go as soon as they are numbers: they are most of the memory
    user, item = _codes(frame.drop_in_place("user_id"), users), _codes(frame.drop_in_place("item_id"), items)
    _check_ids_meet(raw, item, catalogue, texts)
    tell("ordering")
    events = _ordered(user, item, frame, timed, presets.tie_policy(spec))
    del user, item, frame
    tell("filtering")
    for step in spec.order:
        before = len(events.user)
        if (keep := MASKS[step](events, spec, catalogue)) is not None:
            events = events.at(keep)
        if step == "dedup":
            counts["duplicates_dropped"] = before - len(events.user)
    return _numbered(raw, spec, events, catalogue, users, timed, counts)


def _numbered(
    raw: RawDataset,
    spec: PrepSpec,
    events: _Events,
    catalogue: pl.DataFrame,
    users: pl.Series,
    timed: bool,
    counts: dict[str, int],
) -> _Sequences:
    per_user = np.bincount(events.user, minlength=len(users))
    per_item = np.bincount(events.item, minlength=catalogue.height)
    _check_enough(raw, spec, int((per_user > 0).sum()), int((per_item > 0).sum()))
    numbers = np.cumsum(per_item > 0).astype(np.int32)  # of the items that are left, from 1
    return _Sequences(
        items=numbers[events.item],
        offsets=_offsets(per_user[per_user > 0]),
        times=np.floor(events.clock).astype(np.int64, copy=False) if timed else None,
        catalogue=catalogue.filter(pl.Series(per_item > 0)),
        users=users.filter(pl.Series(per_user > 0)),
        counts=counts,
    )


def _codes(values: pl.Series, ids: pl.Series) -> np.ndarray:
    """Place of each value among the sorted ids, int32."""
    return values.cast(pl.Enum(ids)).to_physical().to_numpy().astype(np.int32)


def _ordered(user: np.ndarray, item: np.ndarray, frame: pl.DataFrame, timed: bool, policy: tuple[str, int]) -> _Events:
    """The events, each user's in order; `frame` has what else than codes is known of each."""
    clock = frame["timestamp" if timed else "order"].to_numpy()
    kind, seed = policy
    keys: list[np.ndarray] = []
    if kind == "item_id":
        keys = [item]
    elif kind == "random":
        keys = [_scramble(user, item, seed)]
    elif "order" in frame.columns:
        keys = [frame["order"].to_numpy()]
    order = np.lexsort((*keys, clock, user))  # stable: what is equal still stays in file order
    rating = frame["rating"].to_numpy() if "rating" in frame.columns else None
    return _Events(user, item, clock, rating).at(order)


def _rated(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    return None if spec.min_rating is None or events.rating is None else events.rating >= spec.min_rating


def _within(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    window = presets.window(spec)
    return None if window is None else (events.clock >= window[0]) & (events.clock < window[1])


def _unrepeated(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    """Events without those that repeat an earlier one (or a later one, for `last`) as the spec counts repeats."""
    if spec.dedup == "none" or not len(events.user):
        return None
    if spec.dedup != "exact":
        key = events.user.astype(np.int64) * catalogue.height + events.item
        return ~_repeats(key, before=spec.dedup == "last")
    joined = np.zeros(len(events.user) + 1, bool)  # with the event before, in user and time
    joined[1:-1] = (np.diff(events.user) == 0) & (np.diff(events.clock) == 0)
    tied = np.flatnonzero(joined[:-1] | joined[1:])  # only these can be repeats
    group = np.cumsum(~joined[:-1])[tied]
    keep = np.ones(len(events.user), bool)
    keep[tied] = ~_repeats(group * catalogue.height + events.item[tied], before=False)
    return keep


def _repeats(key: np.ndarray, *, before: bool) -> np.ndarray:
    """Which of the keys int64 (n,) stood before already, or stand again later (`before`): bool (n,)."""
    order = np.argsort(key, kind="stable")
    same = key[order[1:]] == key[order[:-1]]
    found = np.zeros(len(key), bool)
    found[(order[:-1] if before else order[1:])[same]] = True
    return found


def _texted(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    fit = pl.Series(np.ones(catalogue.height, bool))
    if spec.require_text:
        fit &= catalogue["text"].is_not_null()
    if spec.max_title_words:
        head = catalogue["head"].cast(pl.String)
        long = head.str.count_matches(r"\S+") > spec.max_title_words
        fit &= ~(long | head.str.contains(MARKUP, literal=True)).fill_null(False)
    return None if fit.all() else fit.to_numpy()[events.item]


def _cored(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray:
    return _core(events.user, events.item, spec.kcore, spec.iterate)


def _recent(events: _Events, spec: PrepSpec, catalogue: pl.DataFrame) -> np.ndarray | None:
    if not spec.max_history:
        return None
    lengths = np.bincount(events.user)
    return ~_first(_offsets(lengths), np.maximum(lengths - spec.max_history, 0))


MASKS = {  # of the events that stay, or None where all do
    "rating": _rated,
    "window": _within,
    "dedup": _unrepeated,
    "text": _texted,
    "core": _cored,
    "history": _recent,
}


def _scramble(users: np.ndarray, items: np.ndarray, seed: int) -> np.ndarray:
    """A number uint64 for each (user, item, seed), by SplitMix64 (Steele, Lea & Flood 2014): the same anywhere."""
    mixed = np.full(len(users), seed % 2**64, np.uint64)
    for codes in (users, items):
        mixed = (mixed ^ codes.astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return mixed


def _core(users: np.ndarray, items: np.ndarray, k: int, iterate: bool) -> np.ndarray:
    """Mask of the events that stay when users and items with fewer than k go, until none does.

    Not iterated: once, by the counts before any removal; then users who are left with fewer than k.
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


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _first(offsets: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mask, bool (events,), of each user's first `counts` events."""
    runs = np.stack([counts, np.diff(offsets) - counts], 1).ravel()
    return np.repeat(np.tile([True, False], len(counts)), runs)


def _check_ids_meet(raw: RawDataset, item: np.ndarray, catalogue: pl.DataFrame, texts: pl.DataFrame) -> None:
    orphans = catalogue["source_row"].is_null().to_numpy()[item]
    if (count := int(orphans.sum())) > MAX_ORPHAN_SHARE * len(item):
        raise HarnessError(
            f"{raw.items}: the item_id of {count:,} of {len(item):,} interactions is not in it (such as "
            f"'{catalogue['item_id'][int(item[orphans.argmax()])]}'; it has '{texts['item_id'][0]}'); at most "
            f"{MAX_ORPHAN_SHARE:.0%} may lack a row."
        )


def _check_enough(raw: RawDataset, spec: PrepSpec, users: int, items: int) -> None:
    if min(users, items) < 2:
        within = "" if spec.window is None else f" within {spec.window}"
        within += "" if spec.min_rating is None else f" of ratings from {spec.min_rating:g}"
        within += " among items with text" if spec.require_text else ""
        within += f" with titles of at most {spec.max_title_words} words" if spec.max_title_words else ""
        raise HarnessError(
            f"{raw.name}: the {spec.kcore}-core{within} leaves {users} users and {items} items; 2 of each are needed. "
            "Lower kcore."
        )


def _write(sequences: _Sequences, raw: RawDataset, spec: PrepSpec, folder: Path, tell: _Phases) -> None:
    tell("writing")
    for name, kind in ARRAYS.items():
        if (array := getattr(sequences, name)) is not None:
            np.save(folder / f"{name}.npy", array.astype(kind, copy=False), allow_pickle=False)
    sequences.catalogue.drop("head").write_parquet(folder / "catalogue.parquet")
    sequences.users.alias("user_id").to_frame().write_parquet(folder / "users.parquet")
    files.write_json(folder / "card.json", {"spec": asdict(spec), "files": file_hashes(raw), **_card(sequences)})


def _mapped(raw: RawDataset, spec: PrepSpec, identity: str, folder: Path, tell: _Phases) -> Prepared:
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        items, offsets = _map(folder, "items"), _map(folder, "offsets")
        times = _map(folder, "times") if card["timed"] else None
        catalogue = pl.read_parquet(folder / "catalogue.parquet")
        users = pl.read_parquet(folder / "users.parquet")["user_id"]
        found = [len(items), len(offsets) - 1, catalogue.height, len(users)]
        if found != [card["events"], card["users"], card["items"], card["users"]]:
            raise ValueError("its parts do not fit together")
        prepared = Prepared(raw.name, identity, items, offsets, times, catalogue, users, card, raw.matrices)
        facts = _facts(prepared, folder / "facts.json", tell)
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise HarnessError(f"{folder} is damaged ({error}); delete it and run again.") from error
    card |= {"name": raw.name, "licence": raw.licence, "citation": raw.citation, "text": raw.text}
    card |= {"redistributable": raw.redistributable, "own_embeddings": sorted(raw.matrices)}
    card |= {"spec": asdict(spec), **facts}
    if (published := presets.compared(raw.name, spec, card)) is not None:
        card["published"] = published
    if (test := facts["order_test"]) and test["drop_percent"] < WEAK_ORDER:
        card["warnings"] = [
            *card["warnings"],
            f"The order says little: a last-item Markov chain loses {max(test['drop_percent'], 0):.0f}% of its NDCG@10 "
            f"when histories are shuffled (less than {WEAK_ORDER}%).",
        ]
    return prepared


def _facts(prepared: Prepared, path: Path, tell: _Phases) -> dict[str, Any]:
    """What of the card takes a split: computed once and kept beside the arrays, also of sets prepared before."""
    if path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept.pop("version") == FACTS:
            return kept
    tell("describing")
    facts: dict[str, Any] = {"cold_valid_share": None, "cold_test_share": None}
    with suppress(HarnessError):  # too short to split
        whole = split(prepared, Protocol())
        assert whole.test is not None
        facts["cold_valid_share"] = _share(cold(whole, whole.valid))
        facts["cold_test_share"] = _share(cold(whole, whole.test))
    facts["order_test"] = order_test(prepared.items, prepared.offsets, prepared.catalogue.height)
    files.write_json(path, facts | {"version": FACTS})
    tell.close()
    return facts


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

"""Prepare a raw data set: filter and order its interactions, number users and items, and cache the sequences.

An event is one (user, item, time). Item numbers start at 1, since 0 is the padding of every model; users at 0.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from harness.data import data_files, plausibility, presets
from harness.data.cards import DataCard
from harness.data.findings import Finding, titles
from harness.data.order_signal import order_test
from harness.data.reader import RawDataset, file_hashes, raw_hash, read_events, read_items
from harness.data.splits import Prepared, bounds, share, split, target_counts
from harness.data.steps import MASKS, Events, ordered
from harness.system import checksums, files, parquet
from harness.system.checksums import Damaged
from harness.types import HarnessError, Json, PrepSpec, Protocol, digest

PREPARATION = 1  # increase when the same files and spec give different sequences
EXACT = 2  # in place of it for times with fractions of a second, which earlier versions rounded down
MAX_ORPHAN_SHARE = 0.5  # of interactions whose item has no row in the items file; above it the ids do not match
PLACEHOLDER = r"(?i)^(title_\d+|nan|unknown)$"
WEAK_ORDER = 10  # percent; if shuffling costs less NDCG, the card warns that the order carries little information
DOUBTED = "suspects"  # card key: the card's warnings include those of `harness.data.plausibility`
FACTS = 2  # increase when `_facts` computes something else
LARGE = 2**25  # bytes of interactions above which progress is printed by phase
PHASES = ("reading", "numbering", "ordering", "filtering", "writing", "describing")
BAR = 5  # characters per phase in the progress bar
ARRAYS = ("items", "offsets", "times")


def prepare(raw: RawDataset, spec: PrepSpec, home: Path) -> Prepared:
    """Return the sequences of `raw` under `spec`, computed once and memory-mapped from `home`/cache/prepared/<hash>.

    Each user's events are ordered by time, equal times by the tie policy; then the steps of the spec run in order (see
    `PrepSpec`). The remaining users and items are numbered in the order of their ids. Large data sets print progress on
    stderr. A damaged cache entry is set aside and rebuilt. Raises HarnessError if a file or the spec is invalid, a file
    changes while it is read, or fewer than two users or items remain.
    """
    presets.check(spec)
    source = {"raw": raw_hash(raw), "spec": spec.identity()}
    whole, exact = (home / "cache" / "prepared" / digest(source | {"version": v}) for v in (PREPARATION, EXACT))
    progress = _Progress(raw)
    cached = [folder for folder in (exact, whole) if folder.is_dir()]
    if raw.notes and not cached:
        print(f"{raw.name}: {'; '.join(raw.notes)}.", file=sys.stderr, flush=True)
    for folder in cached:
        try:
            return _mapped(raw, spec, folder, progress)
        except Damaged as error:
            checksums.set_aside(folder, error.__cause__)
    return _mapped(raw, spec, _built(raw, spec, source["raw"], whole, exact, progress), progress)


def _built(raw: RawDataset, spec: PrepSpec, content: str, whole: Path, exact: Path, progress: _Progress) -> Path:
    """Prepare `raw`, in `exact` if its times have fractions of a second, else in `whole`; return the folder.

    Raises HarnessError if the files no longer have the hash `content` once they have been read.
    """
    made = _sequences(raw, spec, progress)
    folder = whole if made.times is None or made.times.dtype == np.int64 else exact
    hashes = file_hashes(raw)
    if raw_hash(raw, hashes) != content:
        raise HarnessError(f"The files of {raw.name} changed while they were read; run the command again.")
    facts = {"spec": asdict(spec), "files": hashes}
    return files.build_folder(folder, lambda new: _write(made, facts, new, progress))


class _Progress:
    """Print the phase of a large preparation on stderr: a bar on a terminal, otherwise one line per phase."""

    def __init__(self, raw: RawDataset) -> None:
        self.name, self.start = raw.name, time.monotonic()
        self.large = data_files.size(raw.interactions) >= LARGE
        self.live = sys.stderr.isatty()

    def __call__(self, phase: str) -> None:
        if self.large:
            number, total = PHASES.index(phase) + 1, len(PHASES)
            line = f"{self.name}: {phase} ({number} of {total}, {time.monotonic() - self.start:.0f} s elapsed)"
            line += f" [{'#' * number * BAR}{'.' * (total - number) * BAR}]" if self.live else ""
            print(f"\r\x1b[K{line}" if self.live else line, end="" if self.live else "\n", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.large and self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class _Sequences:
    items: np.ndarray  # int32
    offsets: np.ndarray  # int64
    times: np.ndarray | None  # int64, or float64 if some have fractions
    catalogue: pl.DataFrame  # with the column head: the value of the text template's first field
    users: pl.Series
    counts: dict[str, int]
    doubts: tuple[Finding, ...] = ()  # findings on ids and times


def _sequences(raw: RawDataset, spec: PrepSpec, progress: Callable[[str], None]) -> _Sequences:
    progress("reading")
    frame = read_events(raw.interactions, () if spec.min_rating is None else ("rating",), raw.sparse_ratings)
    texts = read_items(raw.items, raw.text)
    users, items = (frame[name].unique().sort() for name in ("user_id", "item_id"))
    catalogue = items.to_frame().join(texts, on="item_id", how="left", maintain_order="left")
    times = plausibility.clock_of(frame)
    timed = times is not None
    plausibility.refuse(raw.interactions, times)
    counts = {"raw_events": frame.height, "raw_users": len(users), "raw_items": len(items)}
    counts["source_rows"] = texts.height
    counts["missing_times"] = frame["timestamp"].null_count() if "timestamp" in frame.columns else 0
    if timed and "order" in frame.columns and (gaps := frame["order"].null_count()):
        counts["missing_orders"] = gaps
    if spec.window is not None and not timed:
        raise HarnessError(
            f"{raw.name}: a window of days needs the time of every event; {raw.interactions} lacks times."
        )

    progress("numbering")  # drops the id texts once they are numbers: they take most of the memory
    user, item = _codes(frame.drop_in_place("user_id"), users), _codes(frame.drop_in_place("item_id"), items)
    _check_ids_meet(raw, item, catalogue, texts)
    doubts = [*_doubtful(users, user), *_doubtful(items, item, texts["item_id"]), *plausibility.of_times(times)]
    doubts += plausibility.of_fields(raw)
    progress("ordering")
    events = ordered(user, item, frame, timed, presets.tie_policy(spec))
    del user, item, frame, times
    progress("filtering")
    for step in spec.order:
        before = len(events.user)
        if (keep := MASKS[step](events, spec, catalogue)) is not None:
            events = events.at(keep)
        if step == "dedup":
            counts["duplicates_dropped"] = before - len(events.user)
    return replace(_numbered(raw, spec, events, catalogue, users, timed, counts), doubts=tuple(doubts))


def _doubtful(ids: pl.Series, codes: np.ndarray, also: pl.Series | None = None) -> list[Finding]:
    return plausibility.of_ids(ids, lambda: np.bincount(codes), also)


def _numbered(
    raw: RawDataset,
    spec: PrepSpec,
    events: Events,
    catalogue: pl.DataFrame,
    users: pl.Series,
    timed: bool,
    counts: dict[str, int],
) -> _Sequences:
    per_user = np.bincount(events.user, minlength=len(users))
    per_item = np.bincount(events.item, minlength=catalogue.height)
    _check_enough(raw, spec, int((per_user > 0).sum()), int((per_item > 0).sum()))
    numbers = np.cumsum(per_item > 0).astype(np.int32)  # of the remaining items, from 1
    return _Sequences(
        items=numbers[events.item],
        offsets=bounds(per_user[per_user > 0]),
        times=_seconds(events.clock) if timed else None,
        catalogue=catalogue.filter(pl.Series(per_item > 0)),
        users=users.filter(pl.Series(per_user > 0)),
        counts=counts,
    )


def _seconds(clock: np.ndarray) -> np.ndarray:
    """Return times in seconds as int64, or as float64 if some have fractions."""
    whole = np.floor(clock)
    return whole.astype(np.int64, copy=False) if np.array_equal(whole, clock) else clock.astype(np.float64, copy=False)


def _codes(values: pl.Series, ids: pl.Series) -> np.ndarray:
    """Return the position of each value among the sorted ids, int32."""
    return values.cast(pl.Enum(ids)).to_physical().to_numpy().astype(np.int32)


def _check_ids_meet(raw: RawDataset, item: np.ndarray, catalogue: pl.DataFrame, texts: pl.DataFrame) -> None:
    orphans = catalogue["source_row"].is_null().to_numpy()[item]
    if (count := int(orphans.sum())) > MAX_ORPHAN_SHARE * len(item):
        raise HarnessError(
            f"{raw.items} has no row for the item_id of {count:,} of {len(item):,} interactions (such as "
            f"'{catalogue['item_id'][int(item[orphans.argmax()])]}'; its first is '{texts['item_id'][0]}'); at most "
            f"{MAX_ORPHAN_SHARE:.0%} may lack one."
        )


def _check_enough(raw: RawDataset, spec: PrepSpec, users: int, items: int) -> None:
    if min(users, items) < 2:
        within = "" if spec.window is None else f" within {spec.window}"
        within += "" if spec.min_rating is None else f" of ratings from {spec.min_rating:g}"
        within += " among items with text" if spec.require_text else ""
        within += f" with titles of at most {spec.max_title_words} words" if spec.max_title_words else ""
        raise HarnessError(
            f"{raw.name}: the {spec.kcore}-core{within} leaves {users} users and {items} items; at least 2 of each are "
            f"needed. {'Lower kcore' if spec.kcore else 'Relax a filter' if within else 'The data are too small'}."
        )


def _write(sequences: _Sequences, facts: Json, folder: Path, progress: _Progress) -> None:
    progress("writing")
    for name in ARRAYS:
        if (array := getattr(sequences, name)) is not None:
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
    sequences.catalogue.drop("head").write_parquet(folder / "catalogue.parquet")
    sequences.users.alias("user_id").to_frame().write_parquet(folder / "users.parquet")
    files.write_json(folder / "card.json", _card(sequences) | facts)
    checksums.seal(folder)


def _mapped(raw: RawDataset, spec: PrepSpec, folder: Path, progress: _Progress) -> Prepared:
    try:
        sums = checksums.sums(folder)
        checksums.check(folder, sums or {})
        stored = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        card = DataCard.from_json(stored)
        items, offsets = _map(folder, "items"), _map(folder, "offsets")
        times = _map(folder, "times") if card.timed else None
        catalogue = parquet.read(folder / "catalogue.parquet")
        users = parquet.read(folder / "users.parquet")["user_id"]
        sizes = [len(items), len(offsets) - 1, catalogue.height, len(users)]
        if sizes != [card.events, card.users, card.items, card.users]:
            raise ValueError("the sizes of its files do not match the card")
        prepared = Prepared(raw.name, folder.name, items, offsets, times, catalogue, users, card, raw.matrices)
        facts = _facts(prepared, folder / "facts.json", progress)
        if sums is None:  # prepared by a version that wrote no checksums
            checksums.seal(folder, without=("facts.json", plausibility.WARNINGS_FILE))
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise Damaged(folder, error) from error
    later = [] if stored.get(DOUBTED) else plausibility.late(raw, bool(card.tie_share), folder)
    warnings = [*card.warnings, *later, *plausibility.on_reading(raw, users, catalogue["item_id"])]
    if (test := facts["order_test"]) and test["drop_percent"] < WEAK_ORDER:
        warnings.append(
            f"The order carries little information: a last-item Markov chain loses {max(test['drop_percent'], 0):.0f}% "
            f"of its NDCG@10 when histories are shuffled (less than {WEAK_ORDER}%)."
        )
    source = {"name": raw.name, "licence": raw.licence, "citation": raw.citation, "text": raw.text}
    source |= {"redistributable": raw.redistributable, "own_embeddings": sorted(raw.matrices), "read": [*raw.notes]}
    published = presets.compared(raw.name, spec, card)
    card = replace(card, **source, **facts, spec=asdict(spec), published=published, warnings=warnings)
    return replace(prepared, card=card)


def _facts(prepared: Prepared, path: Path, progress: _Progress) -> Json:
    """Return the card values that need a split; computed once, then read from facts.json beside the arrays."""
    if path.is_file():
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("digest", None) not in (None, digest(stored)):
                raise ValueError("its content does not match its digest")
            if stored.pop("version") == FACTS:
                return stored
        except (ValueError, KeyError, AttributeError) as error:
            checksums.set_aside(path, error)
    progress("describing")
    facts: Json = {"cold_valid_share": None, "cold_test_share": None}
    with suppress(HarnessError):  # too short to split
        facts |= target_counts(split(prepared, Protocol()))
    facts["order_test"] = order_test(prepared.items, prepared.offsets, prepared.catalogue.height)
    versioned = facts | {"version": FACTS}
    files.write_json(path, versioned | {"digest": digest(versioned)})
    progress.close()
    return facts


def _map(folder: Path, name: str) -> np.ndarray:
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def _card(sequences: _Sequences) -> Json:
    lengths, texts = np.diff(sequences.offsets), sequences.catalogue["text"]
    users, items, events = len(lengths), sequences.catalogue.height, len(sequences.items)
    card: Json = {
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
    doubts = plausibility.sentences([*sequences.doubts, *titles.find(sequences.catalogue)], bool(card["tie_share"]))
    return card | {"warnings": [*_warnings(card, sequences), *doubts], DOUBTED: True}


def _neighbours(sequences: _Sequences) -> dict[str, float | None]:
    """Return the shares of a user's consecutive events with equal times (all, the last two) and increasing item ids."""
    ends = sequences.offsets[1:]
    same_user = np.ones(max(len(sequences.items) - 1, 0), bool)
    same_user[ends[:-1] - 1] = False
    order = _id_ranks(sequences.catalogue["item_id"])[sequences.items - 1]
    shares: dict[str, float | None] = {"id_increasing_share": share(np.diff(order)[same_user] > 0)}
    if sequences.times is None:
        return shares | {"tie_share": None, "test_tie_share": None}
    tied = np.diff(sequences.times) == 0
    last = ends[np.diff(sequences.offsets) > 1] - 2
    return shares | {"tie_share": share(tied[same_user]), "test_tie_share": share(tied[last])}


def _id_ranks(ids: pl.Series) -> np.ndarray:
    """Return the rank of each id, as a number if all ids are whole numbers, otherwise as text."""
    numbers = ids.cast(pl.Int64, strict=False)
    return (ids if numbers.null_count() else numbers).rank("dense").to_numpy().astype(np.int64)


def _warnings(card: Json, sequences: _Sequences) -> list[str]:
    heads, texts = sequences.catalogue["head"].drop_nulls(), sequences.catalogue["text"].drop_nulls()
    placeholders, garbled = heads.str.contains(PLACEHOLDER).sum(), texts.str.contains("\ufffd", literal=True).sum()
    missing, increasing, tied = card["missing_times"], card["id_increasing_share"], card["test_tie_share"] or 0.0
    gaps, by_order = card.get("missing_orders", 0), "all events are ordered by the column 'order'"
    candidates = [
        (not card["timed"] and not missing, f"There are no timestamps: {by_order}."),
        (missing, f"Events without a timestamp: {missing:,}; {by_order}."),
        (gaps, f"Events without an order: {gaps:,}; among events with equal times they come last, in file order."),
        (
            increasing > 0.95,
            f"{increasing:.0%} of consecutive events have increasing item ids: sorted by id, not time?",
        ),
        (tied > 0.1, f"The last two events of {tied:.0%} of users have equal times: the tie policy orders them."),
        (placeholders, f"Items with a placeholder title: {placeholders:,}."),
        (garbled, f"Texts with U+FFFD, a sign of a wrong encoding: {garbled:,}."),
    ]
    return [sentence for applies, sentence in candidates if applies]

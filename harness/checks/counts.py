"""Check counts: repeated events, the k-core, users and items with too many events, and published counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from harness.checks import _read
from harness.checks._base import Facts, ids_at
from harness.checks._read import RawEvents
from harness.data import plausibility, presets, steps
from harness.data.cards import DataCard
from harness.data.findings import ERROR, INFO, WARNING, Finding, catalogue, examples, level
from harness.metrics._all import CUTOFFS
from harness.types import PrepSpec

MANY_REPEATS = 0.01
K = 5  # the usual core of the field's data sets
BOT, HIT = 0.01, 0.1  # share of all events by one user, on one item
OUTSTANDING = 10  # times the mean; needed since in a small data set every user has more than 1 % of the events
FILTERS = {  # step that drops events only if the spec sets one of these
    "rating": ("min_rating",),
    "window": ("window",),
    "text": ("require_text", "max_title_words"),
    "history": ("max_history",),
}


def find(facts: Facts) -> Iterator[Finding]:
    """Find repeats, events outside the k-core, users of one event, heavy users and items, and odd counts."""
    if facts.events is not None:
        later, again = _repeats(facts.events)
        yield from _repeated(facts.events, later, again, facts.spec.dedup)
        yield from _core(facts, later)
        yield from _weights(facts.events)
    prepared = facts.prepared
    items = 0 if facts.events is None else len(facts.events.items)
    if prepared is not None:
        items = prepared.catalogue.height
    if items:
        yield from catalogue.find(items, CUTOFFS, plausibility.CUTOFF)
    if prepared is not None:
        yield from _published(prepared.card)


def _repeats(events: RawEvents) -> tuple[np.ndarray, np.ndarray]:
    """Return rows int64 of events that repeat a user's earlier item: those at the same time, those at another time."""
    pairs = events.user.astype(np.int64) * len(events.items) + events.item
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    equal = pairs[1:] == pairs[:-1]
    several = np.append(equal, False) | np.append(False, equal)
    rows, pairs = order[several], pairs[several]
    del order
    clock = np.zeros(len(rows)) if events.clock is None else events.clock[rows]
    within = np.lexsort((clock, pairs))
    rows, same_pair, clock = rows[within], np.diff(pairs, prepend=-1) == 0, clock[within]
    same_time = np.append(False, clock[1:] == clock[:-1])[: len(rows)]
    return rows[same_pair & same_time], rows[same_pair & ~same_time]


def _repeated(events: RawEvents, later: np.ndarray, again: np.ndarray, dedup: str) -> Iterator[Finding]:
    total = len(events)
    if len(later):
        fate = "they are kept (--dedup none)" if dedup == "none" else "the preparation drops them"
        says = f"events that repeat an earlier one with the same user, item and time; {fate}"
        kind = level(len(later) / total, MANY_REPEATS)
        remedy = "No action needed; many of them are a sign of a faulty join or export."
        yield Finding("repeated events", kind, len(later), total, "events", says, remedy, _pairs(events, later))
    if len(again):
        one = f"the preparation keeps the {dedup} event of each pair" if dedup in ("first", "last") else "they are kept"
        says = f"events that repeat a user's earlier item at another time; {one}"
        remedy = "Right for listening or visits; for ratings and reviews, keep one event per pair."
        yield Finding("repeated pairs", INFO, len(again), total, "events", says, remedy, _pairs(events, again))


def _pairs(events: RawEvents, rows: np.ndarray) -> tuple[str, ...]:
    users, items = ids_at(events.users, events.user[rows]), ids_at(events.items, events.item[rows])
    return examples(f"{user} {item}" for user, item in zip(users, items, strict=True))


def _core(facts: Facts, repeats: np.ndarray) -> Iterator[Finding]:
    k = facts.spec.kcore or K
    if (entering := _entering(facts, repeats)) is None:
        return
    user, item = entering
    all_events, rounds = len(user), 0
    if facts.spec.iterate:
        while len(user):
            keep = (np.bincount(user)[user] >= k) & (np.bincount(item)[item] >= k)
            if keep.all():
                break
            user, item, rounds = user[keep], item[keep], rounds + 1
        core = f"{k}-core, whose fixed point, after {rounds} round{'s' * (rounds != 1)}, leaves"
    else:
        keep = steps.core(user, item, k, iterate=False)
        user, item, core = user[keep], item[keep], f"{k}-core of one pass, which leaves"
    gone = all_events - len(user)
    if gone:
        left = f"{len(np.unique(user)):,} users, {len(np.unique(item)):,} items and {len(user):,} events"
        says = f"events outside the {core} {left}"
        remedy = f"No action needed; report whether your results use the {k}-core or --kcore 0."
        kind = level(gone / all_events, 0.5) if facts.spec.kcore else INFO
        if facts.spec.kcore and not len(user) and facts.prepared is None:
            kind, remedy = ERROR, "Lower --kcore, or add more events."
        yield Finding(f"no {k}-core", kind, gone, all_events, "events", says, remedy)


def _entering(facts: Facts, repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return user and item int32 of the events of which the preparation takes the core; None if unknown.

    `repeats`: rows that repeat an earlier event at the same time.
    """
    spec, events = facts.spec, facts.events
    assert events is not None
    before = spec.order[: spec.order.index("core")]
    unset = PrepSpec()
    filters = [
        step for step in before if any(getattr(spec, name) != getattr(unset, name) for name in FILTERS.get(step, ()))
    ]
    if not filters and spec.dedup in ("exact", "none"):
        fresh = np.ones(len(events), bool)
        fresh[repeats if spec.dedup == "exact" and "dedup" in before else []] = False
        return events.user[fresh], events.item[fresh]
    if facts.texts is None and "text" in filters:
        return None
    try:
        return _filtered(facts, before)
    except _read.Unusable:
        return None


def _filtered(facts: Facts, before: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return user and item int32 of the events that the steps `before` keep; None if a step cannot be run."""
    spec, events, texts = facts.spec, facts.events, facts.texts
    assert events is not None
    if events.clock is None or (spec.window is not None and not events.timed):
        return None
    columns = {"timestamp": events.time, "order": events.order}
    if spec.min_rating is not None:
        columns["rating"] = _read.ratings(facts.raw.interactions)
    frame = pl.DataFrame({name: values for name, values in columns.items() if values is not None})
    frame = frame.with_columns(pl.col(name).fill_nan(None) for name in ("order",) if name in frame.columns)
    catalogue = events.items.alias("item_id").to_frame()
    if texts is not None:
        catalogue = catalogue.join(texts, on="item_id", how="left", maintain_order="left")
    kept = steps.ordered(events.user, events.item, frame, events.timed, presets.tie_policy(spec))
    for step in before:
        if (keep := steps.MASKS[step](kept, spec, catalogue)) is not None:
            kept = kept.at(keep)
    return kept.user, kept.item


def _weights(events: RawEvents) -> Iterator[Finding]:
    single = np.flatnonzero(events.per_user == 1)
    if len(single):
        says = "users with a single event, from whom no order can be learnt"
        who, total = examples(ids_at(events.users, single)), len(events.users)
        remedy = "No action needed; the k-core leaves them out."
        yield Finding("users of one event", INFO, len(single), total, "users", says, remedy, who)
    for per, ids, limit, noun in (
        (events.per_user, events.users, BOT, "user"),
        (events.per_item, events.items, HIT, "item"),
    ):
        heavy = np.flatnonzero((per > limit * len(events)) & (per > OUTSTANDING * per.mean()))
        if len(heavy):
            heavy = heavy[np.argsort(-per[heavy], kind="stable")]
            largest = per[heavy[0]]
            says = f"{noun}s with more than {limit:.0%} of all events each; the largest has {largest:,}"
            remedy = {
                "user": "Check whether they are bots, testers or shared accounts, and drop them if so.",
                "item": "Check for defaults or placeholders; a popularity baseline will score high.",
            }[noun]
            name = {"user": "heavy users", "item": "heavy items"}[noun]
            yield Finding(name, WARNING, len(heavy), len(per), f"{noun}s", says, remedy, examples(ids_at(ids, heavy)))


def _published(card: DataCard) -> Iterator[Finding]:
    """Find counts that differ from the published ones in the card (see `harness.data.presets.compared`)."""
    published = card.published or {}
    numbers = {name: published[name] for name in ("users", "items", "events") if name in published}
    differ = {name: number for name, number in numbers.items() if number["ours"] != number["published"]}
    if differ:
        differences = (
            f"{number['ours']:,} {name} instead of {number['published']:,} ({number['percent']:+.2f} %)"
            for name, number in differ.items()
        )
        says = f"counts differ from those of {published.get('source', 'the publication')}: {', '.join(differences)}"
        remedy = "Compare the preparation (k-core, filters, order of steps) and the version of the files."
        yield Finding("published counts", WARNING, len(differ), len(numbers), "counts", says, remedy)

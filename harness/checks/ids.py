"""Ids: whether the two files speak of the same items, and whether one thing has two spellings."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.checks._base import Facts
from harness.checks._finding import ERROR, INFO, WARNING, Finding, examples

MOST_ORPHANS = 0.5  # beyond it the preparation refuses the files
SPELLINGS = [  # name, level, what two spellings of one id have in common
    ("ids that differ in blanks", ERROR, pl.col("id").str.strip_chars()),
    ("ids that differ in case", WARNING, pl.col("id").str.to_lowercase()),
    ("ids that differ as numbers", WARNING, pl.col("id").str.replace(r"^0*(\d+?)(\.0)?$", "${1}")),
]


def find(facts: Facts) -> Iterator[Finding]:
    """Orphans, items nobody met, and ids that are one id in two spellings."""
    events, texts = facts.events, facts.texts
    if events is not None and texts is not None:
        known = texts["item_id"].implode()
        orphan = ~events.items.is_in(known)
        count = int(events.per_item[orphan.to_numpy()].sum())
        if count:
            strangers = events.items.filter(orphan)
            says = f"events of {len(strangers):,} items that have no row in the items file, hence no text" + (
                "; harness refuses it" if count > MOST_ORPHANS * len(events) else ""
            )
            level = ERROR if count > MOST_ORPHANS * len(events) else WARNING
            remedy = "Add the items, or see whether ids are written in two ways (leading zeros, 1 and 1.0, case)."
            yield Finding("orphans", level, count, len(events), "events", says, remedy, examples(strangers))
        unmet = texts["item_id"].filter(~texts["item_id"].is_in(events.items.implode()))
        if len(unmet):
            says = "items in the items file that no event is about; they are left out"
            remedy = "Nothing need be done."
            yield Finding("items never met", INFO, len(unmet), texts.height, "items", says, remedy, examples(unmet))
    yield from _spelt(facts, "item_id")
    yield from _spelt(facts, "user_id")


def _spelt(facts: Facts, name: str) -> Iterator[Finding]:
    """Ids with blanks around them, and ids that are another one but for blanks, case or the way of writing a number."""
    ids, what = _all_ids(facts, name), f"{name.removesuffix('_id')}s"
    if ids is None:
        return
    blank = ids.filter(ids.str.strip_chars() != ids)
    if len(blank):
        says = f"{what} whose id has blanks around it"
        remedy = f"Strip {name} in both files."
        yield Finding(f"blanks in {name}", WARNING, len(blank), len(ids), what, says, remedy, examples(blank))
    for title, level, common in SPELLINGS:
        frame = ids.alias("id").to_frame().with_columns(common=common)
        twice = frame.filter(pl.col("common").is_duplicated()).sort("common", "id")["id"]
        if len(twice):
            says = f"{what} whose id is another one's but for {title.removeprefix('ids that differ ')[3:]}"
            remedy = f"If they are one, write {name} in one way everywhere."
            yield Finding(
                title.replace("ids", name, 1), level, len(twice), len(ids), what, says, remedy, examples(twice)
            )


def _all_ids(facts: Facts, name: str) -> pl.Series | None:
    if name == "user_id":
        return None if facts.events is None else facts.events.users
    found = [] if facts.events is None else [facts.events.items]
    found += [] if facts.texts is None else [facts.texts["item_id"]]
    return pl.concat([ids.alias("id") for ids in found]).unique(maintain_order=True) if found else None

"""Check ids: whether the two files have the same items, and whether one id has several spellings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.checks._base import Facts
from harness.data import plausibility
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples, ids

MOST_ORPHANS = 0.5  # share of events above which the preparation refuses the files


def find(facts: Facts) -> Iterator[Finding]:
    """Find events without an item row, items without events, and doubtful ids."""
    events, texts = facts.events, facts.texts
    if events is not None and texts is not None:
        orphan = ~events.items.is_in(texts["item_id"].implode())
        count = int(events.per_item[orphan.to_numpy()].sum())
        if count:
            strangers = events.items.filter(orphan)
            says = f"events of {len(strangers):,} items without a row in the items file, hence without text" + (
                "; harness refuses the files" if count > MOST_ORPHANS * len(events) else ""
            )
            level = ERROR if count > MOST_ORPHANS * len(events) else WARNING
            remedy = "Add the items, or check whether ids are written in two ways (leading zeros, 1 and 1.0, case)."
            yield Finding("orphans", level, count, len(events), "events", says, remedy, examples(strangers))
        unmet = texts["item_id"].filter(~texts["item_id"].is_in(events.items.implode()))
        if len(unmet):
            says = "items in the items file without events; they are left out"
            remedy = "No action needed."
            yield Finding("items never met", INFO, len(unmet), texts.height, "items", says, remedy, examples(unmet))
    for column in ("item_id", "user_id"):
        yield from _doubtful(facts, column)


def _doubtful(facts: Facts, column: str) -> list[Finding]:
    """Find ids with several spellings, with invisible characters, or that stand for a missing value, in both files."""
    events, texts = facts.events, None if facts.texts is None else facts.texts["item_id"]
    if column == "user_id":
        return [] if events is None else plausibility.of_ids(events.users.alias(column), lambda: events.per_user)
    if events is None:
        return [] if texts is None else ids.find(texts, lambda: np.zeros(len(texts), np.int64), column)
    return plausibility.of_ids(events.items.alias(column), lambda: events.per_item, texts)

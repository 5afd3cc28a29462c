"""Ids: whether the two files speak of the same items, and whether one thing has two spellings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.checks._base import Facts
from harness.data import plausibility
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples, ids

MOST_ORPHANS = 0.5  # beyond it the preparation refuses the files


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
    for column in ("item_id", "user_id"):
        yield from _doubtful(facts, column)


def _doubtful(facts: Facts, column: str) -> list[Finding]:
    """Ids of events and of the items file that are spelt in two ways, hold what nobody sees or mean "missing"."""
    events, texts = facts.events, None if facts.texts is None else facts.texts["item_id"]
    if column == "user_id":
        return [] if events is None else plausibility.of_ids(events.users.alias(column), lambda: events.per_user)
    if events is None:
        return [] if texts is None else ids.find(texts, lambda: np.zeros(len(texts), np.int64), column)
    return plausibility.of_ids(events.items.alias(column), lambda: events.per_item, texts)

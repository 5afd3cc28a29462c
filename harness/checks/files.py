"""The files themselves: whether they can be read, and what is missing in columns that every row needs."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.checks import _read
from harness.checks._base import Facts
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples
from harness.data.reader import RawDataset, read_items
from harness.types import HarnessError


def read(raw: RawDataset) -> tuple[list[Finding], _read.RawEvents | None, pl.DataFrame | None]:
    """What is wrong with the files as such; the events; and the items as `harness.data.reader.read_items` gives them.

    None stands for what cannot be read, or of the items for what harness refuses: missing ids, ids that are there
    twice.
    """
    found, events, texts = [_format(note) for note in raw.notes], None, None
    try:
        events = _read.events(raw.interactions)
    except _read.Unusable as fault:
        says = f"{raw.interactions.name}: {fault.says}"
        found.append(Finding("interactions", ERROR, 1, 1, "files", says, fault.remedy))
    try:
        wrong = list(_items(_read.item_ids(raw.items)))
        texts = None if wrong else read_items(raw.items, raw.text)
        found += wrong
    except _read.Unusable as fault:
        found.append(Finding("items", ERROR, 1, 1, "files", f"{raw.items.name}: {fault.says}", fault.remedy))
    except HarnessError as error:
        remedy = "Mend the file, or text in dataset.toml."
        found.append(Finding("items", ERROR, 1, 1, "files", str(error).rstrip("."), remedy))
    return found, events, texts


def _format(note: str) -> Finding:
    remedy = "Nothing need be done if that is right."
    return Finding(f"format of {note.partition(' ')[0]}", INFO, 1, 1, "files", note, remedy)


def _items(ids: pl.Series) -> Iterator[Finding]:
    if missing := ids.null_count():
        says = "rows of the items file without an item_id; harness refuses the file"
        yield Finding("items without id", ERROR, missing, len(ids), "items", says, "Drop these rows or fill them in.")
    known = ids.drop_nulls()
    twice = known.filter(~known.is_first_distinct())
    if len(twice):
        says = "rows of the items file whose item_id is there before; harness refuses the file"
        remedy = "Keep one row an item."
        yield Finding(
            "items twice", ERROR, len(twice), len(ids), "items", says, remedy, examples(twice.unique().sort())
        )


def find(facts: Facts) -> Iterator[Finding]:
    """Ids and times that are missing."""
    events = facts.events
    if events is None:
        return
    for name in ("user_id", "item_id"):
        if events.missing[name]:
            says = f"events without a {name}; harness refuses the file"
            remedy = "Drop these rows or fill them in."
            yield Finding(f"missing {name}", ERROR, events.missing[name], events.rows, "events", says, remedy)
    if events.time is None and events.order is None:
        says = "neither a column timestamp nor a column order: nothing tells which event came first"
        remedy = "Add timestamp (seconds since 1970) or order (a number that rises along a user's events)."
        yield Finding("no time", ERROR, len(events), len(events), "events", says, remedy)
    elif events.time is None:
        says = "no column timestamp: the order is taken on trust, and the split gts cannot be used"
        yield Finding("no time", INFO, len(events), len(events), "events", says, "Add timestamp if the source has it.")
    for name in ("timestamp", "order"):
        if missing := events.missing.get(name):
            stands_in = name == "timestamp" and events.order is not None and not events.odd[name]
            spare = name == "order" and events.timed and not events.odd[name]
            says = f"events whose {name} is missing or no number; " + (
                "all are put in the order of the column order instead"
                if stands_in
                else "among events of equal time they come last, in file order"
                if spare
                else "harness refuses the file"
            )
            remedy = f"Give every event a number as {name}, or drop these rows."
            if spare:
                remedy = "Nothing need be done: order only breaks ties of timestamp."
            found = examples(events.odd[name])
            level = INFO if spare else WARNING if stands_in else ERROR
            yield Finding(f"missing {name}", level, missing, len(events), "events", says, remedy, found)

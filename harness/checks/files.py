"""Check the files: whether they can be read, and whether required columns have missing values."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from harness.checks import _read
from harness.checks._base import Facts
from harness.data import plausibility
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples
from harness.data.reader import RawDataset, read_items
from harness.types import HarnessError


def read(raw: RawDataset) -> tuple[list[Finding], _read.RawEvents | None, pl.DataFrame | None]:
    """Return the faults of the files, the events, and the items as `harness.data.reader.read_items` returns them.

    Events are None if unreadable; items also if harness refuses them: missing or duplicate ids.
    """
    findings: list[Finding] = [_format(note) for note in raw.notes]
    events, texts = None, None
    try:
        events = _read.events(raw.interactions)
    except _read.Unusable as fault:
        says = f"{raw.interactions.name}: {fault.reason}"
        findings.append(Finding("interactions", ERROR, 1, 1, "files", says, fault.remedy))
    try:
        faults = list(_items(_read.item_ids(raw.items)))
        texts = None if faults else read_items(raw.items, raw.text)
        findings += faults
    except _read.Unusable as fault:
        findings.append(Finding("items", ERROR, 1, 1, "files", f"{raw.items.name}: {fault.reason}", fault.remedy))
    except HarnessError as error:
        remedy = "Correct the file, or text in dataset.toml."
        findings.append(Finding("items", ERROR, 1, 1, "files", str(error).rstrip("."), remedy))
    if events is not None and texts is not None:
        findings += plausibility.of_lines(raw, events.users, events.items)
    return findings, events, texts


def _format(note: str) -> Finding:
    remedy = "No action needed if that is right."
    return Finding(f"format of {note.partition(' ')[0]}", INFO, 1, 1, "files", note, remedy)


def _items(ids: pl.Series) -> Iterator[Finding]:
    if missing := ids.null_count():
        says = "rows of the items file without an item_id; harness refuses the file"
        yield Finding("items without id", ERROR, missing, len(ids), "items", says, "Drop these rows or fill them in.")
    present = ids.drop_nulls()
    copies = present.filter(~present.is_first_distinct())
    if len(copies):
        says = "rows of the items file that repeat an earlier item_id; harness refuses the file"
        remedy = "Keep one row per item."
        yield Finding(
            "items twice", ERROR, len(copies), len(ids), "items", says, remedy, examples(copies.unique().sort())
        )


WANTED = {"timestamp": "number of seconds or date (2026-11-29)", "order": "number"}  # column of a clock -> its values


def find(facts: Facts) -> Iterator[Finding]:
    """Find missing ids and times."""
    events = facts.events
    if events is None:
        return
    for name in ("user_id", "item_id"):
        if events.missing[name]:
            says = f"events without a {name}; harness refuses the file"
            remedy = "Drop these rows or fill them in."
            yield Finding(f"missing {name}", ERROR, events.missing[name], events.rows, "events", says, remedy)
    if events.time is None and events.order is None:
        says = "neither a column timestamp nor a column order: the order of events is unknown"
        remedy = "Add timestamp (seconds since 1970) or order (a number that increases along a user's events)."
        yield Finding("no time", ERROR, len(events), len(events), "events", says, remedy)
    elif events.time is None:
        says = "no column timestamp: the order cannot be checked, and no split in time (gts, windows) can be used"
        yield Finding("no time", INFO, len(events), len(events), "events", says, "Add timestamp if the source has it.")
    for name in WANTED:
        if missing := events.missing.get(name):
            stands_in = name == "timestamp" and events.order is not None and not events.odd[name]
            spare = name == "order" and events.timed and not events.odd[name]
            says = f"events whose {name} is missing or not a {WANTED[name]}; " + (
                "all events are sorted by the column order instead"
                if stands_in
                else "among events with equal times they come last, in file order"
                if spare
                else "harness refuses the file"
            )
            remedy = f"Give every event a {WANTED[name]} as {name}, or drop these rows."
            if spare:
                remedy = "No action needed: order only breaks ties of timestamp."
            shown = examples(events.odd[name])
            level = INFO if spare else WARNING if stands_in else ERROR
            yield Finding(f"missing {name}", level, missing, len(events), "events", says, remedy, shown)

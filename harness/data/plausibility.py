"""Detect doubtful ids, times and texts: the preparation refuses them or puts warnings on the data card.

`harness check` reports the same findings (`harness.data.findings`), and others that change no result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl

from harness.data import scans, templates
from harness.data.findings import ERROR, EXAMPLES, INFO, WARNING, Finding, catalogue, clocks, examples, ids, titles
from harness.data.reader import LOOK, RawDataset, fields, read_events, read_items
from harness.metrics._all import CUTOFFS, HEADLINE
from harness.system import files
from harness.types import HarnessError

WARNINGS_FILE = "warnings.json"
COARSE = ("rounded clock", "day resolution")
POINTED = r"^-?\d+\.0$"
CUTOFF = int(HEADLINE.partition("@")[2])


def refuse(path: Path, times: np.ndarray | None) -> None:
    """Raise HarnessError if the event times (n,) from `path` mix units or are in fractions of a second."""
    if times is None:
        return
    for finding in clocks.units(times):
        if finding.level == ERROR:
            raise HarnessError(f"{path}: {finding.sentence[0].lower()}{finding.sentence[1:]} {finding.remedy}")


def of_ids(values: pl.Series, events: Callable[[], np.ndarray], also: pl.Series | None = None) -> list[Finding]:
    """Return findings on the ids of a column named user_id or item_id.

    `events` returns the number of events of each id, (n,); `also` are ids of the items file, perhaps without events.
    """
    column = values.name
    if also is None:
        return ids.find(values, events, column)
    new = also.filter(~also.is_in(values.implode())).alias(column)
    return ids.find(pl.concat([values, new]), lambda: np.append(events(), np.zeros(len(new), np.int64)), column)


def of_times(times: np.ndarray | None) -> list[Finding]:
    """Return findings on the times (n,), None if only the order is known.

    If most times are before 1995, they are taken as synthetic, and early times are no finding.
    """
    if times is None:
        return []
    findings = clocks.find(times, time.time())
    return [finding for finding in findings if finding.name != "early times" or finding.share < 1 / 2]


def sentences(findings: list[Finding], tied: bool) -> list[str]:
    """Return the findings for a card: errors and warnings, and a coarse clock if a user's events are `tied`."""
    return [finding.sentence for finding in findings if finding.level != INFO or (tied and finding.name in COARSE)]


def of_lines(raw: RawDataset, users: pl.Series, items: pl.Series) -> Iterator[Finding]:
    """Find lines of each file that a quote joined with the row before: their id is in `users` or `items`, str (n,)."""
    for path, column, known in ((raw.interactions, "user_id", users), (raw.items, "item_id", items)):
        values, lines = scans.joined(path, column)
        rows = pl.Series(values, dtype=pl.String)
        rows = rows.filter(rows.is_in(known.implode()))
        if len(rows):
            says = f"lines of {path.name} inside a quoted value that have a known {column}: rows that are not read"
            remedy = "Close the quote before them, or double quotes inside a value."
            name = f"joined lines in {path.name}"
            yield Finding(name, WARNING, len(rows), lines, "lines", says, remedy, examples(rows))


def of_fields(raw: RawDataset) -> Iterator[Finding]:
    """Find fields of the text that are whole numbers with a point: integers with gaps, as pandas writes them."""
    with scans.reading(raw.items):
        kinds = scans.scan(raw.items).collect_schema()
        names = [
            name for name in templates.fields(raw.items, raw.text) if kinds[name].is_float() or kinds[name] == pl.String
        ]
        if not names:
            return
        rows = fields(raw.items, names)
        first = rows.head(LOOK).collect()
        for name in names:
            if not first[f"field {name}"].str.contains(POINTED).all():  # without a value: true, all are counted
                continue
            values = rows.select(pl.col(f"field {name}")).collect().to_series()
            filled = values.drop_nulls()
            if len(filled) and filled.str.contains(POINTED).all():
                says = f"items whose {name} is a whole number with a decimal point, which their texts contain"
                remedy = f"Cast {name} to integers (in pandas: astype('Int64')) and write the items again."
                who = examples(filled.head(EXAMPLES))
                yield Finding(
                    f"decimal points in {name}", WARNING, len(filled), len(values), "items", says, remedy, who
                )


def on_reading(raw: RawDataset, users: pl.Series, items: pl.Series) -> list[str]:
    """Return the warnings that are not stored with a preparation: text column, joined lines, small catalogue.

    `users`, `items`: ids of the preparation, str (n,).
    """
    findings = [*of_lines(raw, users, items), *catalogue.find(len(items), CUTOFFS, CUTOFF)]
    if raw.choice is not None and not raw.choice.sure:
        findings = [*titles.chosen(raw.choice, len(items)), *findings]
    return [finding.sentence for finding in findings]


def late(raw: RawDataset, tied: bool, folder: Path) -> list[str]:
    """Return the warnings of a preparation from a version that did not store them in the card.

    They are computed from the raw files once and stored in `WARNINGS_FILE`. Raises HarnessError as `refuse` does.
    """
    with suppress(OSError, ValueError, KeyError):
        return list(json.loads((folder / WARNINGS_FILE).read_text(encoding="utf-8"))["warnings"])
    frame = read_events(raw.interactions)
    texts = read_items(raw.items, raw.text)
    times = clock_of(frame)
    refuse(raw.interactions, times)
    findings: list[Finding] = []
    for column, also in (("user_id", None), ("item_id", texts["item_id"])):
        counts = frame[column].value_counts(name="n")
        findings += of_ids(counts[column], counts["n"].to_numpy, also)
    with_events = texts.filter(pl.col("item_id").is_in(frame["item_id"].unique().implode()))
    warnings = sentences([*findings, *of_times(times), *titles.find(with_events)], tied)
    with suppress(OSError, HarnessError):  # the home may be read-only
        files.write_json(folder / WARNINGS_FILE, {"warnings": warnings})
    return warnings


def clock_of(frame: pl.DataFrame) -> np.ndarray | None:
    """Return the event times (n,), or None if one is missing."""
    timed = "timestamp" in frame.columns and frame["timestamp"].null_count() == 0
    return frame["timestamp"].to_numpy() if timed else None

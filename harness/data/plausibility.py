"""Data that may be taken for something else: refused by the preparation, or put on the card as warnings.

`harness check` reports the same findings (`harness.data.findings`), and more that change no number.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl

from harness.data.findings import ERROR, INFO, Finding, catalogue, clocks, ids, titles
from harness.data.reader import RawDataset, read_events, read_items
from harness.metrics._all import CUTOFFS, HEADLINE
from harness.system import files
from harness.types import HarnessError

KEPT = "warnings.json"
COARSE = ("rounded clock", "day resolution")
CUTOFF = int(HEADLINE.partition("@")[2])


def refuse(path: Path, times: np.ndarray | None) -> None:
    """Raise HarnessError if the times (n,) of the events in `path` are in several units, or not in seconds."""
    if times is None:
        return
    for finding in clocks.units(times):
        if finding.level == ERROR:
            raise HarnessError(f"{path}: {finding.sentence[0].lower()}{finding.sentence[1:]} {finding.remedy}")


def of_ids(known: pl.Series, events: Callable[[], np.ndarray], also: pl.Series | None = None) -> list[Finding]:
    """Doubtful ids of a column named user_id or item_id; `events`: how many each has, (n,); `also`: ids without any."""
    column = known.name
    if also is None:
        return ids.find(known, events, column)
    new = also.filter(~also.is_in(known.implode())).alias(column)
    return ids.find(pl.concat([known, new]), lambda: np.append(events(), np.zeros(len(new), np.int64)), column)


def of_times(times: np.ndarray | None) -> list[Finding]:
    """Doubtful times (n,), None where the order alone is known. Times of which most are before 1995 are made up."""
    if times is None:
        return []
    found = clocks.find(times, time.time())
    return [finding for finding in found if finding.name != "early times" or finding.share < 1 / 2]


def sentences(found: list[Finding], tied: bool) -> list[str]:
    """Those that a card holds: errors and warnings, and a coarse clock where events of a user are `tied`."""
    return [finding.sentence for finding in found if finding.level != INFO or (tied and finding.name in COARSE)]


def on_reading(raw: RawDataset, items: int) -> list[str]:
    """Warnings that are not kept with a preparation, which has `items`: of the text column, of a small catalogue."""
    found = list(catalogue.find(items, CUTOFFS, CUTOFF))
    if raw.choice is not None and not raw.choice.sure:
        found = [*titles.chosen(raw.choice, items), *found]
    return [finding.sentence for finding in found]


def late(raw: RawDataset, tied: bool, folder: Path) -> list[str]:
    """The warnings of a preparation that was made before they were kept in its card; read from the files once.

    Raises HarnessError as `refuse` does.
    """
    with suppress(OSError, ValueError, KeyError):
        return list(json.loads((folder / KEPT).read_text(encoding="utf-8"))["warnings"])
    frame = read_events(raw.interactions)
    texts = read_items(raw.items, raw.text)
    times = clock_of(frame)
    refuse(raw.interactions, times)
    found: list[Finding] = []
    for column, also in (("user_id", None), ("item_id", texts["item_id"])):
        counts = frame[column].value_counts(name="n")
        found += of_ids(counts[column], counts["n"].to_numpy, also)
    met = texts.filter(pl.col("item_id").is_in(frame["item_id"].unique().implode()))
    warnings = sentences([*found, *of_times(times), *titles.find(met)], tied)
    with suppress(OSError, HarnessError):  # a home that may only be read
        files.write_json(folder / KEPT, {"warnings": warnings})
    return warnings


def clock_of(frame: pl.DataFrame) -> np.ndarray | None:
    """The times of events (n,), None if one is missing."""
    timed = "timestamp" in frame.columns and frame["timestamp"].null_count() == 0
    return frame["timestamp"].to_numpy() if timed else None

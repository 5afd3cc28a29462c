"""CSV, wide: one line a row of the table, numbers as they are, an empty cell where there is none."""

from __future__ import annotations

import csv
import io
from typing import Any

from harness.report.tables._table import Table

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def render(table: Table) -> str:
    """One header line, then every row of every section, holes included."""
    frame = table.wide()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([guarded(value) for value in record] for record in frame.iter_rows())
    return out.getvalue()


def guarded(value: Any) -> Any:
    """The value as a spreadsheet may read it: text that would start a formula gets a leading quote.

    >>> guarded("=1+2"), guarded("-0.5"), guarded(None), guarded(0.1)
    ("'=1+2", '-0.5', '', 0.1)
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return float(f"{value:.8g}")  # digits beyond say nothing of a score
    if isinstance(value, str) and value.startswith(FORMULA) and not _numeric(value):
        return f"'{value}"
    return value


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

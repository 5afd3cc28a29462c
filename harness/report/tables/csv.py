"""CSV: one line per row of the table, unformatted numbers, an empty cell for a missing value."""

from __future__ import annotations

import csv
import io
from typing import Any

from harness.report.tables._table import Table

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def render(table: Table) -> str:
    """Render a header line, then every row of every section, including rows without result."""
    frame = table.wide()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(frame.columns)
    writer.writerows([guarded(value) for value in record] for record in frame.iter_rows())
    return out.getvalue()


def guarded(value: Any) -> Any:
    """Return the value safe for a spreadsheet: text that would start a formula gets a leading quote.

    >>> guarded("=1+2"), guarded("-0.5"), guarded(None), guarded(0.1)
    ("'=1+2", '-0.5', '', 0.1)
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return float(f"{value:.8g}")  # further digits are noise
    if isinstance(value, str) and value.startswith(FORMULA) and not _numeric(value):
        return f"'{value}"
    return value


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

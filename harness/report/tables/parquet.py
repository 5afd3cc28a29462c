"""Parquet: the rows as the CSV has them, typed, with the header of the table as JSON in the file's metadata."""

from __future__ import annotations

import io
import json

from harness.report.tables._table import Table


def render(table: Table) -> bytes:
    """Bytes of the file. Its key-value metadata hold `harness`: header and headline of the table."""
    about = {"header": table.header, "headline": table.headline}
    out = io.BytesIO()
    table.wide().write_parquet(out, metadata={"harness": json.dumps(about, sort_keys=True)})
    return out.getvalue()

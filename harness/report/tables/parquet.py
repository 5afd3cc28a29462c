"""Parquet: the rows of the CSV, typed, with the table's header as JSON in the file's metadata."""

from __future__ import annotations

import io
import json

from harness.report.tables._table import Table


def render(table: Table) -> bytes:
    """Render the bytes of the file; key `harness` of its metadata has the header and headline of the table."""
    about = {"header": table.header, "headline": table.headline}
    out = io.BytesIO()
    table.wide().write_parquet(out, metadata={"harness": json.dumps(about, sort_keys=True)})
    return out.getvalue()

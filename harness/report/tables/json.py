"""JSON: the whole table, for programs. All numbers are finite; unknown values are null."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from harness.report.tables import _captions as captions
from harness.report.tables._table import Table

FORMAT = 1  # increased when the meaning of a key changes


def render(table: Table) -> str:
    """Render an object: format, headline, metrics, header, sections (rows with the fields of `Row`), trials, notes."""
    value = {"format": FORMAT, **asdict(table), "notes": captions.footnotes(table)}
    for section in value["sections"]:
        del section["pairs"]  # n x n numbers, summarized in the rows
    del value["spectra"]
    value["trials"] = table.trials.drop("curve", "info").collect().to_dicts()
    return json.dumps(_rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    """Round floats to eight significant digits; further digits are noise."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value

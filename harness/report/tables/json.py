"""JSON: the whole table, for programs. Every number is finite; what is not known is null."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from harness.report.tables import _captions as captions
from harness.report.tables._table import Table

FORMAT = 1  # raised when a key changes its meaning


def render(table: Table) -> str:
    """An object with format, headline, metrics, header, sections (rows as `Row` has them), trials and notes."""
    value = {"format": FORMAT, **asdict(table), "notes": captions.footnotes(table)}
    for section in value["sections"]:
        del section["pairs"]  # n x n numbers that its rows sum up
    del value["spectra"]
    value["trials"] = table.trials.drop("curve", "info").collect().to_dicts()
    return json.dumps(_rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(value: Any) -> Any:
    """Floats to eight significant digits: those beyond say nothing of a score."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return float(f"{value:.8g}") if isinstance(value, float) else value

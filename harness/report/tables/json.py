"""JSON: the whole table, for programs. All numbers are finite; unknown values are null."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from json.encoder import encode_basestring
from typing import Any

import polars as pl

from harness.report.tables import _captions as captions
from harness.report.tables._table import Table

PLACE = "the trials"  # of the trials, in the text of everything else
FORMAT = 1  # increased when the meaning of a key changes


def render(table: Table) -> str:
    """Render an object: format, headline, metrics, header, sections (rows with the fields of `Row`), trials, notes."""
    value = {"format": FORMAT, **asdict(table), "notes": captions.footnotes(table)}
    for section in value["sections"]:
        del section["pairs"]  # n x n numbers, summarized in the rows
    del value["spectra"]
    value["trials"] = PLACE
    text = json.dumps(_rounded(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    before, _, after = text.rpartition(f'\n "trials": "{PLACE}"')
    return f'{before}\n "trials": {_trials(table.trials.drop("curve", "info", strict=False).collect())}{after}'


def _trials(frame: pl.DataFrame) -> str:
    """Return the rows as `json.dumps` writes them, column by column: there may be 100,000 of them."""
    if frame.is_empty():
        return "[]"
    keys = [json.dumps(name) for name in frame.columns]
    row = "  {\n" + ",\n".join(f"   {key}: %s" for key in keys) + "\n  }"
    columns = [_encoded(column) for column in frame.iter_columns()]
    return "[\n" + ",\n".join(row % values for values in zip(*columns, strict=True)) + "\n ]"


def _encoded(column: pl.Series) -> list[str]:
    """Return each value as JSON, without the encoder where its text is known by the type."""
    values = column.to_list()
    if column.dtype == pl.Float64 and column.is_finite().all():
        return ["null" if value is None else repr(float(f"{value:.8g}")) for value in values]
    if column.dtype == pl.Int64:
        return ["null" if value is None else str(value) for value in values]
    if column.dtype == pl.String:
        texts = {value: "null" if value is None else encode_basestring(value) for value in set(values)}
        return [texts[value] for value in values]
    texts = {value: json.dumps(_rounded(value), ensure_ascii=False, allow_nan=False) for value in set(values)}
    return [texts[value] for value in values]


def _rounded(value: Any) -> Any:
    """Round floats to eight significant digits, as further digits are noise; infinite ones and NaN become None."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    return value

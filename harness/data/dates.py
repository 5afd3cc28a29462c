"""Dates in the column `timestamp`: columns of dates, and text in ISO 8601."""

from __future__ import annotations

import polars as pl

ISO = (  # such as 2026-11-29, 2026-11-29 10:55, 2026-11-29T10:55:30.5Z, 2026-11-29 10:55:30+01:00
    r"^\s*(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])(?::(?P<second>[0-5][0-9](?:[.][0-9]+)?))?"
    r"\s?(?:Z|UTC|(?P<sign>[+-])(?P<ahead>[01][0-9]|2[0-3])(?::?(?P<more>[0-5][0-9]))?)?)?\s*$"
)
LOOK = 10_000  # rows among which the first value decides


def are_dates(rows: pl.LazyFrame, name: str, kind: pl.DataType) -> bool:
    """Return whether the column has a type of dates or is text whose first value is a date."""
    if kind != pl.String:
        return kind == pl.Date or isinstance(kind, pl.Datetime)
    first = rows.head(LOOK).select(pl.col(name).drop_nulls().first()).collect()[name]
    return bool(first.str.contains(ISO).any())


def seconds(name: str, kind: pl.DataType) -> pl.Expr:
    """Seconds since 1970 UTC, Float64, null where a text is not a date in ISO 8601; a date without a zone is in UTC."""
    if kind != pl.String:
        return (pl.col(name).cast(pl.Datetime("us")).dt.epoch("us") / 1e6).alias(name)
    parts = pl.col(name).str.extract_groups(ISO).struct
    clock = {part: parts.field(part).cast(pl.Float64).fill_null(0) for part in ("hour", "minute", "second")}
    ahead = parts.field("ahead").cast(pl.Float64) * 3600 + parts.field("more").cast(pl.Float64).fill_null(0) * 60
    sign = pl.when(parts.field("sign") == "-").then(-1).otherwise(1)
    day = parts.field("day").str.to_date("%Y-%m-%d", strict=False).dt.epoch("s")
    return (day + clock["hour"] * 3600 + clock["minute"] * 60 + clock["second"] - (sign * ahead).fill_null(0)).alias(
        name
    )

"""CSV, wide: one line a row of the table, numbers as they are, an empty cell where there is none."""

from __future__ import annotations

import csv
import io
from typing import Any

from harness.leaderboard._sample import Gain
from harness.leaderboard._table import Row, Section, Table

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def render(table: Table) -> str:
    """One header line, then every row of every section, holes included."""
    records = [_record(section, row, table.metrics) for section in table.sections for row in section.rows]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(records[0] if records else ["dataset"])
    writer.writerows([[guarded(value) for value in record.values()] for record in records])
    return out.getvalue()


def guarded(value: Any) -> Any:
    """The value as a spreadsheet may read it: text that would start a formula gets a leading quote.

    >>> guarded("=1+2"), guarded("-0.5"), guarded(None), guarded(0.1)
    ("'=1+2", '-0.5', '', 0.1)
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return float(f"{value:.8g}")  # the digits beyond depend on the order of summation
    if isinstance(value, str) and value.startswith(FORMULA) and not _numeric(value):
        return f"'{value}"
    return value


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _record(section: Section, row: Row, metrics: tuple[str, ...]) -> dict[str, Any]:
    fit = row.fit
    record = {"dataset": section.dataset, "backbone": section.backbone, "rank": row.rank}
    record |= {"adapter": row.cell.adapter, "encoder": row.cell.encoder, "baseline": row.cell.is_baseline}
    record |= {"state": row.state, "reason": row.reason, "marks": " ".join(row.marks)}
    for name in metrics:
        value = row.metrics.get(name)
        ends = {"": "mean", "_low": "low", "_high": "high"}
        record |= {f"{name}{end}": value and getattr(value, key) for end, key in ends.items()}
    record |= _gain("vs_id", row.vs_id) | _gain("vs_rival", row.vs_rival)
    record |= {f"trials_{key}": value for key, value in vars(row.trials).items()}
    record |= {"seeds_done": row.seeds_done, "seeds_planned": row.seeds_planned, "test_opened": row.test_opened}
    record |= {"search_seconds": row.search_seconds, "train_seconds": fit and fit.seconds}
    record |= {"parameters": fit and fit.parameters, "effective_rank": fit and fit.effective_rank}
    return record | {"valid": fit and fit.valid}


def _gain(prefix: str, gain: Gain | None) -> dict[str, Any]:
    against = gain and f"{gain.against.adapter} / {gain.against.encoder}"
    numbers = {f"{prefix}_{name}": gain and getattr(gain, name) for name in ("percent", "low", "high", "p")}
    return {f"{prefix}_against": against, **numbers}

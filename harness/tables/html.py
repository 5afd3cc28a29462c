"""HTML: one file that needs nothing else. Sortable tables, a choice of metric, intervals drawn, light and dark."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import stats
from harness.tables import _words as words
from harness.tables._table import REFERENCE, Section, Table

FOLDER = Path(__file__).parent
WIDTH = 160.0  # of the drawn scale, as the template has it
MARGIN = 4.0


@dataclass(frozen=True)
class Bar:
    """An interval in drawing units, on the scale that a section's rows share; `reference` is the mean of `id`. `off`:
    the mean lies off the scale, which spans the trained rows."""

    low: float
    mean: float
    high: float
    reference: float | None
    off: bool


def render(table: Table) -> str:
    """The page. Its policy forbids every request and every script but its own; all text is escaped."""
    loader = FileSystemLoader(FOLDER)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["shown"] = lambda value: words.safe(str(value))
    script = (FOLDER / "_page.js").read_text(encoding="utf-8")
    return page.get_template("_page.html").render(
        table=table,
        words=words,
        facts=[column for column in words.columns(table) if column.value],
        bars=[_bars(section, table.metrics) for section in table.sections],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((FOLDER / "_page.css").read_text(encoding="utf-8")),
    )


def _bars(section: Section, metrics: tuple[str, ...]) -> dict[str, list[Bar | None]]:
    """Bars of each metric, one a row, None for a hole."""
    return {name: _bars_of(section, name) for name in metrics}


def _bars_of(section: Section, name: str) -> list[Bar | None]:
    trained = [row for row in section.rows if row.metrics and not row.cell.is_baseline]
    spanned = [row.metrics[name] for row in trained or section.rows if row.metrics]
    bottom = min((value.low for value in spanned), default=0.0)
    span = max((value.high for value in spanned), default=0.0) - bottom or 1.0
    reference = next((row.metrics[name].mean for row in trained if row.cell.adapter == REFERENCE), None)

    def at(x: float) -> float:
        inside = min(max((x - bottom) / span, 0.0), 1.0)
        return round(MARGIN + (WIDTH - 2 * MARGIN) * inside, 1)

    def bar(value: stats.Interval) -> Bar:
        off = not bottom <= value.mean <= bottom + span
        return Bar(at(value.low), at(value.mean), at(value.high), None if reference is None else at(reference), off)

    return [bar(row.metrics[name]) if row.metrics else None for row in section.rows]

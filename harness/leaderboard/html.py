"""HTML: one file that needs nothing else. Sortable tables, a choice of metric, intervals drawn, light and dark."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import stats
from harness.leaderboard import _words as words
from harness.leaderboard._table import REFERENCE, Row, Section, Table

FOLDER = Path(__file__).parent
BAR = 100.0  # width of the drawn interval in its own units
MARGIN = 4.0


@dataclass(frozen=True)
class Fact:
    """A sortable column of plain text: `value` orders it, empty values last."""

    title: str
    text: Callable[[Row], str]
    value: Callable[[Row], float | str | None]


FACTS = (
    Fact("vs id %", lambda r: words.gain(r.vs_id, "differs" in r.marks), lambda r: r.vs_id and r.vs_id.percent),
    Fact("vs best rival %", lambda r: words.gain(r.vs_rival), lambda r: r.vs_rival and r.vs_rival.percent),
    Fact("valid", lambda r: words.score(r.fit and r.fit.valid), lambda r: r.fit and r.fit.valid),
    Fact("seeds", lambda r: f"{r.seeds_done}/{r.seeds_planned}", lambda r: r.seeds_done),
    Fact("trials d/p/f of n", words.trials, lambda r: r.trials.done + r.trials.pruned),
    Fact("search", lambda r: words.seconds(r.search_seconds or None), lambda r: r.search_seconds or None),
    Fact("train", lambda r: words.seconds(r.fit and r.fit.seconds), lambda r: r.fit and r.fit.seconds),
    Fact("params", lambda r: words.count(r.fit and r.fit.parameters), lambda r: r.fit and r.fit.parameters),
    Fact("erank", lambda r: words.number(r.fit and r.fit.effective_rank, 1), lambda r: r.fit and r.fit.effective_rank),
)


@dataclass(frozen=True)
class Bar:
    """An interval in drawing units, on the scale that a section's rows share; `reference` is the mean of `id`."""

    low: float
    mean: float
    high: float
    reference: float | None


def render(table: Table) -> str:
    """The page. Its policy forbids every request and every script but its own; all text is escaped."""
    loader = FileSystemLoader(FOLDER)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["shown"] = lambda value: words.safe(str(value))
    script = (FOLDER / "_page.js").read_text(encoding="utf-8")
    return page.get_template("_page.html").render(
        table=table,
        words=words,
        facts=FACTS,
        bars=[_bars(section, table.metrics) for section in table.sections],
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        style=Markup((FOLDER / "_page.css").read_text(encoding="utf-8")),
    )


def _bars(section: Section, metrics: tuple[str, ...]) -> dict[str, list[Bar | None]]:
    """Bars of each metric, one a row."""
    return {
        name: _scaled([row.metrics.get(name) for row in section.rows], _reference(section, name)) for name in metrics
    }


def _reference(section: Section, name: str) -> float | None:
    means = [row.metrics[name].mean for row in section.rows if row.cell.adapter == REFERENCE and row.metrics]
    return means[0] if means else None


def _scaled(values: list[stats.Interval | None], reference: float | None) -> list[Bar | None]:
    known = [value for value in values if value]
    low = min((value.low for value in known), default=0.0)
    span = max((value.high for value in known), default=0.0) - low or 1.0

    def at(x: float) -> float:
        return round(MARGIN + (BAR - 2 * MARGIN) * (x - low) / span, 2)

    line = None if reference is None else at(reference)
    return [value and Bar(at(value.low), at(value.mean), at(value.high), line) for value in values]

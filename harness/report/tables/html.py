"""HTML: a self-contained page with sortable tables that recompute for filtered rows, figures, a page per row."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.data import cards
from harness.report.tables import _captions as captions
from harness.report.tables import _columns, _format
from harness.report.tables._page._board import board, embedded
from harness.report.tables._parity import parity
from harness.report.tables._scores import REFERENCE
from harness.report.tables._table import Row, Section, Table
from harness.types import Json

FOLDER = Path(__file__).parent / "_page"
STYLES = ("page", "figures")
SCRIPTS = ("dom", "model", "grid", "leaderboard", "chart", "figures", "curves", "rowpage", "controls", "app")
SENTENCES = ("published", "prepared", "order")  # sentences of a card that add to its numbers
FIRST = ("users", "items", "events", "density", "mean_length", "licence", "redistributable", "citation", "hash")


def render(table: Table) -> str:
    """Render the page. Its policy allows no requests and only its inline script and style; all text is escaped."""
    loader = FileSystemLoader(FOLDER)
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page.filters["shown"] = lambda value: _format.safe(str(value))
    script = f"(() => {{\n{_joined('js', SCRIPTS, 'js')}\n}})();"  # a function scope keeps its names off the window
    style = _joined(".", STYLES, "css")
    return page.get_template("page.html").render(
        table=table,
        captions=captions,
        parity=parity,
        format=_format,
        columns=_columns.compact(table),
        datasets=list(dict.fromkeys(section.dataset for section in table.sections)),
        lead=_lead(table),
        missing=_missing(table),
        cards=_cards(table),
        few=any(one.too_few for one in table.across) or not table.across,
        provenance=captions.facts(table.header.get("provenance") or {}),
        reference=REFERENCE,
        interval=_format.bounds,
        board=Markup(embedded(board(table))),
        script=Markup(script),
        style=Markup(style),
        hashes={"script": _hash(script), "style": _hash(style)},
    )


def _joined(folder: str, names: tuple[str, ...], suffix: str) -> str:
    return "\n".join((FOLDER / folder / f"{name}.{suffix}").read_text(encoding="utf-8") for name in names)


def _hash(text: str) -> str:
    """Return the hash that allows an inline element in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _lead(table: Table) -> str:
    """Summarize the table in one sentence."""
    rows = {row.cell: row for section in table.sections for row in section.rows}
    done = sum(row.state == "done" for row in rows.values())
    datasets = len({section.dataset for section in table.sections})
    budget, date = table.header.get("budget") or {}, (table.header.get("provenance") or {}).get("date")
    parts = [f"{done} of {len(rows)} rows complete on {datasets} data set{'s' if datasets != 1 else ''}"]
    parts += [f"ranked by test {table.headline} over all items"]
    parts += [f"budget '{budget['name']}'"] if "name" in budget else []
    return ", ".join(parts) + (f". {date}." if date else ".")


def _missing(table: Table) -> list[tuple[Row, Section]]:
    """Return every incomplete row once, with its first section."""
    missing: dict[Any, tuple[Row, Section]] = {}
    for section in table.sections:
        for row in section.rows:
            if row.fit is None or row.state != "done":
                missing.setdefault(row.cell, (row, section))
    return list(missing.values())


def _cards(table: Table) -> list[tuple[str, Json]]:
    """Return (data set, facts of its card): the main ones and the rest."""
    by_dataset = {}
    for section in table.sections:
        if section.card and section.dataset not in by_dataset:
            shares = [key for key in section.card if key.endswith("share")]
            main = {key: section.card[key] for key in (*FIRST[:5], *shares, *FIRST[5:]) if key in section.card}
            rest = {key: value for key, value in section.card.items() if key not in main and key != "warnings"}
            users = {"test_users": section.test_users} if section.test_users else {}
            sentences = [pair for pair in cards.rows(cards.DataCard.from_json(section.card)) if pair[0] in SENTENCES]
            by_dataset[section.dataset] = {
                "main": captions.facts(main | users) + sentences,
                "rest": captions.facts(rest),
            }
    return list(by_dataset.items())

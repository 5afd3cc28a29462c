"""The texts of a table in a few lines, for a terminal; `_captions` has all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

from harness.report.tables import _captions as captions
from harness.report.tables._columns import Column
from harness.report.tables._format import FRONT, MEANINGS, SYMBOLS, label, safe
from harness.report.tables._frames import COMING
from harness.report.tables._parity import parity
from harness.report.tables._table import Section, Table

HEADER = ("suite", "protocol", "prep", "budget", "engine", "code")
NAMED = 3  # rows that are named before the others are counted
MORE = "All notes, statistics and provenance: harness leaderboard --notes"


def wrapped(lines: Iterable[str], width: int) -> list[str]:
    """Return the lines made safe and broken at blanks; continuations are indented. Longer words stay whole."""
    broken = []
    for line in map(safe, lines):
        broken += wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) or [""]
    return broken


def header(table: Table) -> list[str]:
    return captions.header_lines(table, HEADER)


def below(table: Table, section: Section) -> list[str]:
    """Return the budget of the section, the remarks on its components and the rows that have a reason."""
    coming = tuple(f"{label(row.cell)}: {row.state}" for row in section.rows if row.state in COMING)
    return [parity(table, section, NAMED), *(n for n in captions.notes(section) if not n.startswith(coming))]


def notes(table: Table, columns: Sequence[Column]) -> list[str]:
    """Explain the marks and the columns that are shown, in two lines, and say where the rest is."""
    titles = {column.title for column in columns}
    shown = [text for notes in captions.COLUMN_NOTES for title, text in notes.items() if title in titles]
    used = {mark for section in table.sections for row in section.rows for mark in row.marks}
    marks = [f"{SYMBOLS[mark]} {text}" for mark, text in MEANINGS.items() if mark in used]
    costs = {column.title for column in columns if column.topic == "cost"} or titles & set(captions.COST_NOTES)
    if costs and any(row.front for section in table.sections for row in section.rows):
        marks.append(f"{FRONT} on the Pareto front of {table.headline} and this cost")
    lines = [" ".join(["[low, high]: 95 % interval of the mean.", *shown]), " · ".join(marks)]
    return [line for line in lines if line] + [MORE]

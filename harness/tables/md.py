"""Markdown, as GitHub reads it: a compact table a section, then every metric with its interval."""

from __future__ import annotations

import re

from harness.tables import _words as words
from harness.tables._table import Row, Section, Table


def render(table: Table) -> str:
    """The table in Markdown; names cannot break a cell, open a tag or make a link."""
    blocks = ["# Leaderboard", _bullets(words.header_lines(table, words.ABOVE))]
    for section in table.sections:
        blocks += [f"## {escape(words.title(section))}", *map(escape, words.section_lines(section))]
        blocks += [_compact(table, section), escape(words.parity(table, section)), _bullets(words.notes(section))]
        if any(row.metrics for row in section.rows):
            blocks += ["Every metric on the test set, mean and 95 % interval:", _metrics(table, section)]
    for name, lines in words.cards_of(table):
        blocks += [f"## Data: {escape(name)}", _bullets(lines)]
    blocks += ["## Notes", _bullets(words.footnotes(table))]
    blocks += [_bullets(words.header_lines(table, ("provenance",)))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line.

    >>> escape("mlp|<b>[x](y)")
    'mlp\\|\\<b\\>\\[x\\](y)'
    """
    return re.sub(r"([\\`*\[\]<>|#~$&])", r"\\\1", words.safe(text))


def _compact(table: Table, section: Section) -> str:
    columns = words.columns(table)
    rows = [[_cell(row, column) for column in columns] for row in section.rows]
    return _grid([escape(column.title) for column in columns], [column.right for column in columns], rows)


def _cell(row: Row, column: words.Column) -> str:
    """The cell's text; the best row's numbers are bold, the second's underlined."""
    text = escape(column.text(row))
    if column.title.endswith("[95 %]"):
        text = f"**{text}**" if "best" in row.marks else f"<u>{text}</u>" if "second" in row.marks else text
    return text


def _metrics(table: Table, section: Section) -> str:
    names = list(table.metrics)
    rows = [
        [escape(words.label(row.cell)), *(escape(words.interval(row.metrics[name])) for name in names)]
        for row in section.rows
        if row.metrics
    ]
    return _grid(["row", *map(escape, names)], [False] + [True] * len(names), rows)


def _grid(titles: list[str], right: list[bool], rows: list[list[str]]) -> str:
    rule = ["--:" if side else ":--" for side in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows))


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)

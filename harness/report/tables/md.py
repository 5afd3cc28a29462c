"""GitHub Markdown: a compact table per section, then every metric with its interval."""

from __future__ import annotations

import re

from harness.report.tables import _captions as captions
from harness.report.tables import _columns, _format
from harness.report.tables._parity import parity
from harness.report.tables._table import Row, Section, Table


def render(table: Table) -> str:
    """Render the table as Markdown; names cannot break a cell, open a tag or make a link."""
    blocks = ["# Leaderboard", _bullets(captions.header_lines(table, captions.ABOVE))]
    for section in table.sections:
        blocks += [f"## {escape(captions.title(section))}", *map(escape, captions.section_lines(section))]
        blocks += [_compact(table, section), escape(parity(table, section)), _bullets(captions.notes(section))]
        if any(row.metrics for row in section.rows):
            blocks += ["All test metrics, mean and 95 % interval:", _metrics(table, section)]
        blocks += [*_topics(table, section), *_budget(section), *_slices(section)]
    for one in table.across:
        blocks += [f"## Over data sets × {escape(one.backbone)}", _texts(*captions.across_rows(one))]
        blocks += [_bullets(captions.across_lines(one))]
    for name, lines in captions.cards_of(table):
        blocks += [f"## Data: {escape(name)}", _bullets(lines)]
    blocks += ["## Notes", _bullets(captions.footnotes(table))]
    blocks += [_bullets(captions.header_lines(table, ("provenance",)))]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape(text: str) -> str:
    r"""Escape text so that Markdown shows it literally, on one line.

    >>> escape("mlp|<b>[x](y)")
    'mlp\\|\\<b\\>\\[x\\](y)'
    """
    return re.sub(r"([\\`*\[\]<>|#~$&])", r"\\\1", _format.safe(text))


def _compact(table: Table, section: Section) -> str:
    return _columns_table([column for column in _columns.all_columns(table) if not column.topic], section)


def _columns_table(columns: list[_columns.Column], section: Section) -> str:
    rows = [[_cell(row, column) for column in columns] for row in section.rows]
    return _grid([escape(column.title) for column in columns], [column.right for column in columns], rows)


def _topics(table: Table, section: Section) -> list[str]:
    """Return a table for each topic that has values, with the rows' names first."""
    blocks = []
    for topic, title in _columns.TOPICS.items():
        if facts := _columns.of_topic(table, topic):
            blocks += [f"{title}:", _columns_table([*_columns.names()[2:], *facts], section)]
    return blocks


def _budget(section: Section) -> list[str]:
    titles, rows = captions.budget_rows(section)
    if not rows:
        return []
    return [
        "Validation NDCG@10 after k trials: best of the first k (expected best of any k):",
        _texts(titles, rows),
    ]


def _slices(section: Section) -> list[str]:
    blocks = []
    for dimension, slices in captions.slice_groups(section).items():
        title = f"Test NDCG@10 by {dimension} (number of targets), and gain over id:"
        blocks += [escape(title), _texts(*captions.slice_rows(section, slices))]
    return blocks


def _texts(titles: list[str], rows: list[list[str]]) -> str:
    """Return a table of plain texts: a column of names, then columns of numbers."""
    escaped = [[escape(text) for text in row] for row in rows]
    return _grid([escape(title) for title in titles], [False] + [True] * (len(titles) - 1), escaped)


def _cell(row: Row, column: _columns.Column) -> str:
    """Return the cell's text: bold for the best row, underlined for the second."""
    text = escape(column.text(row))
    if column.title.endswith("[95 %]"):
        text = f"**{text}**" if "best" in row.marks else f"<u>{text}</u>" if "second" in row.marks else text
    return text


def _metrics(table: Table, section: Section) -> str:
    names = list(table.metrics)
    rows = [
        [escape(_format.label(row.cell)), *(escape(_format.interval(row.metrics[name])) for name in names)]
        for row in section.rows
        if row.metrics
    ]
    return _grid(["row", *map(escape, names)], [False] + [True] * len(names), rows)


def _grid(titles: list[str], right: list[bool], rows: list[list[str]]) -> str:
    rule = ["--:" if side else ":--" for side in right]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows))


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {escape(line)}" for line in lines)

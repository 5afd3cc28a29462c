"""Markdown, as GitHub reads it: a compact table a section, then every metric with its interval."""

from __future__ import annotations

import re

from harness.report.tables import _words as words
from harness.report.tables._table import Row, Section, Table


def render(table: Table) -> str:
    """The table in Markdown; names cannot break a cell, open a tag or make a link."""
    blocks = ["# Leaderboard", _bullets(words.header_lines(table, words.ABOVE))]
    for section in table.sections:
        blocks += [f"## {escape(words.title(section))}", *map(escape, words.section_lines(section))]
        blocks += [_compact(table, section), escape(words.parity(table, section)), _bullets(words.notes(section))]
        if any(row.metrics for row in section.rows):
            blocks += ["Every metric on the test set, mean and 95 % interval:", _metrics(table, section)]
        blocks += [*_topics(table, section), *_budget(section), *_slices(section)]
    for one in table.across:
        blocks += [f"## Over data sets × {escape(one.backbone)}", _texts(*words.across_rows(one))]
        blocks += [_bullets(words.across_lines(one))]
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
    return _columns([column for column in words.columns(table) if not column.topic], section)


def _columns(columns: list[words.Column], section: Section) -> str:
    rows = [[_cell(row, column) for column in columns] for row in section.rows]
    return _grid([escape(column.title) for column in columns], [column.right for column in columns], rows)


def _topics(table: Table, section: Section) -> list[str]:
    """A table of every topic that there is anything to say of, with the rows' names before it."""
    blocks = []
    for topic, title in words.TOPICS.items():
        if found := words.of_topic(table, topic):
            blocks += [f"{title}:", _columns([*words.names()[2:], *found], section)]
    return blocks


def _budget(section: Section) -> list[str]:
    titles, rows = words.budget_rows(section)
    if not rows:
        return []
    return [
        "Validation NDCG@10 at equal budget: best of the first k trials (expected best of any k of them):",
        _texts(titles, rows),
    ]


def _slices(section: Section) -> list[str]:
    blocks = []
    for dimension, slices in words.slice_groups(section).items():
        title = f"Test NDCG@10 by {dimension} (how many targets), and gain over id:"
        blocks += [escape(title), _texts(*words.slice_rows(section, slices))]
    return blocks


def _texts(titles: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is a name and whose others are numbers, from plain texts."""
    escaped = [[escape(text) for text in row] for row in rows]
    return _grid([escape(title) for title in titles], [False] + [True] * (len(titles) - 1), escaped)


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

"""Terminal: coloured on a terminal, else aligned text; the least important columns are dropped to fit the width."""

from __future__ import annotations

import io
import shutil
import sys

from rich.cells import cell_len

from harness.report.tables import _brief, _columns, _format
from harness.report.tables import _captions as captions
from harness.report.tables._parity import parity
from harness.report.tables._table import Row, Section, Table

GAP = 2
ALL = 10_000  # columns of characters that hold every column of a table
STYLES = {"best": "bold green", "second": "underline", "short": "yellow"}


WIDTH = 120  # of piped output, unless COLUMNS is set


def render(table: Table, *, notes: bool = False, wide: bool = False) -> str:
    """Render the compact table, fitted to the terminal, to COLUMNS, or to 120 columns if it is piped.

    notes: all notes, statistics and provenance. wide: every column, whatever the width.
    """
    width = shutil.get_terminal_size((WIDTH, 24)).columns
    style = coloured if sys.stdout.isatty() else plain
    return style(table, width, columns=ALL if wide else width, notes=notes)


def plain(table: Table, width: int, *, columns: int = 0, notes: bool = False) -> str:
    """Render aligned text without escape sequences. Text is wrapped at `width`, tables have up to `columns` columns
    where possible (default: `width`)."""
    shown = [fitting(table, section, columns or width) for section in table.sections]
    grids = [_plain_grid(*pair) for pair in zip(table.sections, shown, strict=True)]
    return _document(table, shown, grids, width, notes)


def coloured(table: Table, width: int, *, columns: int = 0, notes: bool = False) -> str:
    """`plain` with colours: best and second rows highlighted, rows without result dimmed."""
    shown = [fitting(table, section, columns or width) for section in table.sections]
    grids = [_rich_grid(*pair, columns or width) for pair in zip(table.sections, shown, strict=True)]
    return _document(table, shown, grids, width, notes)


def fitting(table: Table, section: Section, width: int) -> list[_columns.Column]:
    """Return the columns that fit, dropping those of lowest `keep` first; columns with `keep` 99 stay."""
    kept = _columns.compact(table)
    while sum(_width(column, section) + GAP for column in kept) > width:
        weakest = min(kept, key=lambda column: column.keep)
        if weakest.keep == 99:
            break
        kept.remove(weakest)
    return kept


def slices(table: Table) -> str:
    """Render the scores on parts of the test, or a line that no facts about the targets were recorded."""
    lines = []
    for section in table.sections:
        for dimension, group in captions.slice_groups(section).items():
            lines += ["", f"{captions.title(section)}: test NDCG@10 by {dimension} (number of targets), gain over id"]
            lines += _texts(*captions.slice_rows(section, group))
    lines += [captions.small_parts(table)] if captions.small_parts(table) else []
    lines = lines or ["", "No slices: no facts about the test targets were recorded."]
    return "\n".join(map(_format.safe, lines)) + "\n"


def lists(table: Table) -> str:
    """Render the metrics of the top-10 lists, or a line that none were recorded."""
    lines, columns = [], _columns.of_topic(table, "lists")
    for section in table.sections if columns else ():
        shown = [*_columns.names()[2:], *columns]
        lines += ["", f"{captions.title(section)}: {_columns.TOPICS['lists'].lower()}"]
        lines += _texts([column.title for column in shown], [[c.text(row) for c in shown] for row in section.rows])
    lines += ["", captions.list_note([column.title for column in columns])] if columns else []
    lines = lines or ["", "No metrics of lists were recorded: the runs are of an earlier version."]
    return "\n".join(map(_format.safe, lines)) + "\n"


def _document(table: Table, shown: list[list[_columns.Column]], grids: list[str], width: int, whole_notes: bool) -> str:
    parts = (*captions.ABOVE, "provenance")
    lines = _brief.wrapped(captions.header_lines(table, parts) if whole_notes else _brief.header(table), width)
    for section, grid in zip(table.sections, grids, strict=True):
        above = [captions.title(section), *captions.section_lines(section)]
        whole = [parity(table, section), *captions.notes(section)]
        below = whole if whole_notes else _brief.below(table, section)
        lines += ["", *_brief.wrapped(above, width), grid, *_brief.wrapped(below, width)]
    for one in table.across:
        lines += ["", _format.safe(f"Over data sets × {one.backbone}"), *_texts(*captions.across_rows(one))]
        lines += _brief.wrapped(captions.across_lines(one), width)
    columns = [column for columns in shown for column in columns]
    notes = captions.footnotes(table, columns) if whole_notes else _brief.notes(table, columns)
    return "\n".join([*lines, "", *_brief.wrapped(notes, width)]) + "\n"


def _texts(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Return the aligned lines of a table of plain texts."""
    cells = [[_format.safe(text) for text in row] for row in (titles, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    padded = [[cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)] for row in cells]
    return [(" " * GAP).join(row).rstrip() for row in padded]


def _plain_grid(section: Section, columns: list[_columns.Column]) -> str:
    widths = [_width(column, section) for column in columns]
    rows = [[column.title for column in columns], ["-" * width for width in widths]]
    rows += [[_format.safe(column.text(row)) for column in columns] for row in section.rows]
    return "\n".join(_aligned(cells, columns, widths) for cells in rows)


def _aligned(cells: list[str], columns: list[_columns.Column], widths: list[int]) -> str:
    padded = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        blank = " " * (width - cell_len(cell))
        padded.append(blank + cell if column.right else cell + blank)
    return (" " * GAP).join(padded).rstrip()


def _rich_grid(section: Section, columns: list[_columns.Column], width: int) -> str:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid(box=None, padding=(0, GAP, 0, 0), header_style="bold cyan")
    for column in columns:
        grid.add_column(Text(column.title), justify="right" if column.right else "left", no_wrap=True)
    for row in section.rows:
        grid.add_row(*(Text(_format.safe(column.text(row))) for column in columns), style=_style(row))
    console = Console(file=io.StringIO(), force_terminal=True, width=width + GAP)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _style(row: Row) -> str:
    if row.fit is None:
        return "dim"
    return next((STYLES[mark] for mark in row.marks if mark in STYLES), "")


def _width(column: _columns.Column, section: Section) -> int:
    return max(cell_len(_format.safe(text)) for text in (column.title, *(column.text(row) for row in section.rows)))

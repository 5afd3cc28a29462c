"""From frames of results to ranked tables. One module a format: the file's name is the format's name, its function
`render(table) -> str` makes the text. Knows no engine: frames in, text out."""

from __future__ import annotations

import importlib

from harness import registry
from harness.tables._table import Results, Row, Section, Table, build

__all__ = ["Results", "Row", "Section", "Table", "build", "check_format", "formats", "render"]


def formats() -> list[str]:
    """Names of the formats a table can be rendered in."""
    return registry.names(__name__)


def check_format(format: str) -> None:
    """Raises HarnessError, with the nearest name, if no file of this folder has that format."""
    registry.find(__name__, format)


def render(table: Table, format: str) -> str:
    """The table as text. Raises HarnessError as `check_format` does."""
    return importlib.import_module(f"{__name__}.{registry.find(__name__, format)}").render(table)

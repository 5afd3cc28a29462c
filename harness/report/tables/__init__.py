"""From frames of results to ranked tables. One module a format: the file's name is the format's name, its function
`render(table)` makes the text, or the bytes of a file that is none. Knows no engine: frames in, text out."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from harness import registry
from harness.report.tables._build import build
from harness.report.tables._frames import Results
from harness.report.tables._table import Row, Section, Table
from harness.system.files import atomic

__all__ = ["Results", "Row", "Section", "Table", "build", "check_format", "formats", "render", "write"]


def formats() -> list[str]:
    """Names of the formats a table can be rendered in."""
    return registry.names(__name__)


def check_format(format: str) -> None:
    """Raises HarnessError, with the nearest name, if no file of this folder has that format."""
    registry.find(__name__, format)


def write(table: Table, format: str, path: Path) -> None:
    """The table as a file, whole or not at all. Raises HarnessError as `check_format` does, OSError if the disk does
    not take it."""
    made = render(table, format)
    with atomic(path) as temporary:
        temporary.write_bytes(made if isinstance(made, bytes) else made.encode())


def render(table: Table, format: str) -> Any:
    """The table as text (str), or as bytes where the format is no text. Raises HarnessError as `check_format` does."""
    return importlib.import_module(f"{__name__}.{registry.find(__name__, format)}").render(table)

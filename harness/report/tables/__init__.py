"""Ranked tables from frames of results, in several formats.

Each public module is a format: its name is the format's name, and its function `render(table)` returns the text, or
bytes for a binary format. Independent of the engine: frames in, text out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness import registry
from harness.report.tables._build import build
from harness.report.tables._frames import Results, finite
from harness.report.tables._table import Row, Section, Table
from harness.system.files import atomic
from harness.types import HarnessError

__all__ = [
    "Results",
    "Row",
    "Section",
    "Table",
    "build",
    "check_format",
    "finite",
    "format_of",
    "formats",
    "render",
    "save",
    "write",
]


def formats() -> list[str]:
    """Return the names of the available formats."""
    return registry.names(__name__)


def check_format(format: str) -> None:
    """Raise HarnessError, with the nearest name, for an unknown format."""
    registry.find(__name__, format)


def format_of(path: Path | None) -> str:
    """Return the format that the suffix of a file names; `terminal` for .txt, no suffix and no file.

    Raises HarnessError for any other suffix.
    """
    suffix = "" if path is None else path.suffix[1:].lower()
    if suffix in ("", "txt"):
        return "terminal"
    if suffix not in formats():
        hint = registry.suggest(suffix, formats())
        raise HarnessError(f"{path}: no table format has the suffix .{suffix}. {hint} Rename it, or add --format.")
    return suffix


def write(table: Table, format: str, path: Path) -> None:
    """Write the table to a file atomically. Raises HarnessError for an unknown format, OSError if writing fails."""
    save(render(table, format), path)


def save(content: str | bytes, path: Path) -> None:
    """Write what `render` returns to a file atomically. Raises OSError if writing fails."""
    with atomic(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode())


def render(table: Table, format: str) -> Any:
    """Render the table as text (str), or bytes for a binary format. Raises HarnessError for an unknown format."""
    return registry.load_module(__name__, format).render(table)

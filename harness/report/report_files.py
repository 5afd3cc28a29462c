"""The files that a bench leaves of its table, and whether they are there already: ``<home>/reports/<stamp>/``."""

from __future__ import annotations

import json
from pathlib import Path

from harness.record.ledger import Ledger
from harness.report import tables
from harness.system import failpoints
from harness.system.code_hash import code_hash
from harness.system.files import next_stamp, sha256, write_json
from harness.types import digest

FORMATS = ("md", "tex", "csv", "json", "html", "parquet")
MADE_OF = "made-of.json"  # written last: what the table was made of, and what each file must be


def made_of(ledger: Ledger) -> str:
    """Hash of what a home's table depends on: this code, and how far each segment was read. What was read stays as it
    is (segments only grow, and a damaged line is named), and so do ranks (lost ones are an event)."""
    damages = sorted(map(str, ledger.damages))
    return digest({"code": code_hash(), "segments": ledger.extent(), "damages": damages})


def kept(home: Path, of: str) -> Path | None:
    """The newest report's HTML file, if that report was made of the same and every file of it is still there whole."""
    folder = max((home / "reports").glob("*/"), default=home)
    try:
        made = json.loads((folder / MADE_OF).read_text(encoding="utf-8"))
        whole = made["of"] == of and all(sha256(folder / _name(form)) == made["files"][form] for form in FORMATS)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder / _name("html") if whole else None


def write(table: tables.Table, home: Path, of: str) -> Path:
    """The table in every file format; returns the HTML file."""
    folder = home / "reports" / next_stamp(home / "reports")
    for number, form in enumerate(FORMATS):
        if number:
            failpoints.reach("report")
        tables.write(table, form, folder / _name(form))
    write_json(folder / MADE_OF, {"of": of, "files": {form: sha256(folder / _name(form)) for form in FORMATS}})
    return folder / _name("html")


def _name(form: str) -> str:
    return f"leaderboard.{form}"

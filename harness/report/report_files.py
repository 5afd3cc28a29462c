"""Write a bench's table in every format to ``<home>/reports/<stamp>/``, unless a current report exists."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.record.ledger import Ledger
from harness.report import table_scope, tables
from harness.system import failpoints
from harness.system.code_hash import code_hash
from harness.system.files import atomic, next_stamp, sha256, write_json, write_text
from harness.types import digest

FORMATS = ("md", "tex", "csv", "json", "html", "parquet")
TRIALS = "trials.parquet"  # every started trial, with parameters and curve; the page draws the best of long searches
STUDY = "study.toml"  # the study file of the newest launch, if its launch recorded one
MANIFEST = "made-of.json"  # written last: hashes of the table's inputs and of each file


def inputs_hash(ledger: Ledger, run: str | None = None) -> str:
    """Return a hash of everything that the newest table, or that of launch `run`, depends on: this code, which table it
    is, and how far each segment was read.

    This suffices: segments only grow, damaged lines are part of the hash, and lost ranks are an event.
    """
    damages = sorted(map(str, ledger.damages))
    table = table_scope.newest(ledger, run).table if ledger.launches else ""
    return digest({"code": code_hash(), "table": table, "segments": ledger.extent(), "damages": damages})


def existing(home: Path, inputs: str) -> Path | None:
    """Return the newest report's HTML file if it has the same `inputs_hash` and all its files are intact, else None."""
    folder = max((home / "reports").glob("*/"), default=home)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        whole = manifest["of"] == inputs and all(sha256(folder / name) == files[name] for name in {*NAMES, *files})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return folder / _name("html") if whole else None


def write(table: tables.Table, home: Path, inputs: str, study: str = "") -> Path:
    """Write the table in every file format, its trials and the study file; return the HTML file."""
    folder = _new_folder(home / "reports")
    trials = table.trials.drop("info").collect()  # once for all formats
    with atomic(folder / TRIALS) as temporary:
        trials.write_parquet(temporary)
    table = replace(table, trials=trials.lazy())
    for number, form in enumerate(FORMATS):
        if number:
            failpoints.reach("report")
        tables.write(table, form, folder / _name(form))
    if study:
        write_text(folder / STUDY, study)
    names = (*NAMES, STUDY) if study else NAMES
    write_json(folder / MANIFEST, {"of": inputs, "files": {name: sha256(folder / name) for name in names}})
    return folder / _name("html")


def _new_folder(reports: Path) -> Path:
    """Create a folder that no other bench has; names sort by time."""
    while True:
        folder = reports / next_stamp(reports)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def _name(form: str) -> str:
    return f"leaderboard.{form}"


NAMES = (TRIALS, *map(_name, FORMATS))

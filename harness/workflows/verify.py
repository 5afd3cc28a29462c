"""Verify a publication: hashes, ledger, and every table recomputed from the ranks."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from harness.metrics._all import means
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import tables
from harness.system import parquet
from harness.system.code_hash import code_hash
from harness.types import HarnessError, Json, TrialResult
from harness.workflows import publication, publish
from harness.workflows.publication import Publication

RELATIVE = 1e-9  # allowed difference of numbers: machines sum in different orders
NAMES = ("dataset", "backbone", "encoder", "adapter")
RENDERED = ("md", "html")  # compared as text, if the code is the same


@dataclass(frozen=True)
class Verdict:
    """What `verify` found. `faults`: every difference, as a line; `cells`: number of equal table cells."""

    folder: Path
    faults: tuple[str, ...]
    files: int
    events: int
    ranks: int
    cells: int
    manifest: str  # its sha256
    skipped: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """The last line of the output."""
        if self.faults:
            return f"{self.folder}: {len(self.faults)} difference(s)."
        return (
            f"{self.folder}: {self.files} files, {self.events:,} events, {self.ranks} rank files, {self.cells:,} table "
            f"cells: equal (manifest sha256 {self.manifest})."
        )


def run(folder: Path) -> Verdict:
    """Verify the publication in a folder. Raises HarnessError if there is none."""
    source = publication.find(folder)
    found, notes, cells, events = publication.faults(source), [], 0, 0
    try:
        with source.ledger() as ledger:
            found += [f"ledger/{damage}" for damage in ledger.damages]
            events = sum(
                source.segment(path).count(b"\n") for path in source.named("ledger", publication.SEGMENT).values()
            )
            ranks = source.named("ranks", ".parquet")
            if lost := set(publish.confirmed(ledger)) - ranks.keys():
                notes.append(f"The ranks of {len(lost)} finished runs are not in the folder; tables say so.")
            found += _ranks(source, ledger) + _described("", source.manifest, publish.contents(ledger))
            for place, run_of in _tables(source, ledger, found):
                table = publish.built(ledger, source, run_of)
                found += _described(f"table '{place}': ", source.manifest["tables"][place], publish.summary(table))
                cells += _compare(source, place, table, found)
                _compare_text(source, place, table, found, notes)
    except HarnessError as error:  # the records are damaged; the hashes name the file too
        found.append(str(error))
    except Exception as error:  # the folder may hold anything, in lines and files with valid checksums too
        found.append(f"The records cannot be replayed ({type(error).__name__}: {error})")
    return Verdict(
        folder=folder,
        faults=tuple(dict.fromkeys(found)),
        files=len(source.files),
        events=events,
        ranks=len(source.named("ranks", ".parquet")),
        cells=cells,
        manifest=source.seal,
        skipped=tuple(notes),
    )


def _tables(source: Publication, ledger: Ledger, found: list[str]) -> list[tuple[str, str]]:
    """Return place and launch of each table, and name those that the manifest lacks."""
    runs = publish.table_runs(ledger)
    places = {
        str(value["table"]): (place, value["run"]) for place, value in (source.manifest.get("tables") or {}).items()
    }
    found += [f"{publication.MANIFEST}: no table for launch {run}" for key, run in runs.items() if key not in places]
    found += [f"{publication.MANIFEST}: table {key} has no launch" for key in places.keys() - runs.keys()]
    wrong = [run for key, run in runs.items() if key in places and places[key][1] != run]
    found += [f"{publication.MANIFEST}: launch {run} is newer than that of its table" for run in wrong]
    return [(places[key][0], run) for key, run in runs.items() if key in places]


def _described(what: str, published: Any, again: Json) -> list[str]:
    """Name the keys of the manifest that differ from the records; older versions did not write all of them."""
    wanted = json.loads(json.dumps(again))
    wrong = [key for key in wanted if key in published and not _equal(published[key], wanted[key])]
    return [f"{publication.MANIFEST}: {what}'{key}' differs from the records" for key in wrong]


def _ranks(source: Publication, ledger: Ledger) -> list[str]:
    """Name rank files that are unreadable, belong to no finished run, or give other scores than the run recorded."""
    faults, done = [], set(publish.confirmed(ledger))
    for trial_id in source.named("ranks", ".parquet"):
        name = f"ranks/{trial_id}.parquet"
        if (frame := source.ranks(trial_id)) is None:
            faults.append(f"{name}: unreadable")
        elif trial_id not in done:
            faults.append(f"{name}: the ledger has no finished run of this id")
        else:
            faults += [f"{name}: {line}" for line in _scores(ledger, trial_id, frame)]
    return faults


def _scores(ledger: Ledger, trial_id: str, frame: pl.DataFrame) -> list[str]:
    """Name the first score of a run that its ranks do not give."""
    recorded = (ledger.result(trial_id) or TrialResult("done")).test
    if not recorded or not frame.height or artifacts.mid_ranked(ledger.trials[trial_id].trial):
        return []  # mid-ranks were not what older versions scored
    again = means(artifacts.bounds(frame), frame["user"].to_numpy())
    wrong = sorted(key for key in recorded.keys() & again.keys() if not _equal(recorded[key], again[key]))
    return [f"{key} is {again[key]:.8g}, recorded {recorded[key]:.8g}" for key in wrong[:1]]


def _compare(source: Publication, place: str, table: tables.Table, found: list[str]) -> int:
    """Compare the published Parquet and CSV files with a table, cell by cell; return the number of equal cells."""
    wanted = {
        "leaderboard.parquet": _texts(table.wide()),
        "leaderboard.csv": _csv(tables.render(table, "csv")),
        publish.TRIALS: _texts(table.trials.drop("info", strict=False).collect()),
    }
    equal = 0
    for file, again in wanted.items():
        name = f"{place}{file}"
        path = source.folder / name
        try:
            is_csv = path.suffix == ".csv"
            published = _csv(path.read_text(encoding="utf-8")) if is_csv else _texts(parquet.read(path))
        except Exception as error:  # the folder may hold anything
            found.append(f"{name}: unreadable ({type(error).__name__})")
        else:
            equal += _cells(name, published, again, found)
    return equal


def _csv(text: str) -> list[list[Any]]:
    return list(csv.reader(io.StringIO(text)))


def _texts(frame: pl.DataFrame) -> list[list[Any]]:
    return [frame.columns, *(list(record) for record in frame.iter_rows())]


def _cells(name: str, published: list[list[Any]], wanted: list[list[Any]], found: list[str]) -> int:
    """Compare two tables, each a header and rows; name each difference."""
    (columns, *rows), (again, *others) = published or [[]], wanted
    if len(rows) != len(others):
        found.append(f"{name}: {len(rows)} rows, recomputed {len(others)}")
        return 0
    lost = [column for column in columns if column not in again]
    found += [f"{name}: column {column} cannot be recomputed by this version" for column in lost]
    found += [f"{name}: column {column} is missing" for column in again if column not in columns]
    common, equal = [column for column in again if column in columns], 0
    for number, (row, other) in enumerate(zip(rows, others, strict=True), 1):
        left, right = dict(zip(columns, row, strict=False)), dict(zip(again, other, strict=True))
        label = "/".join(str(right[key]) for key in NAMES if key in right)
        for column in common:
            if _equal(left.get(column), right[column]):
                equal += 1
            else:
                found.append(
                    f"{name}: row {number} ({label}), {column}: {left.get(column)}, recomputed {right[column]}"
                )
    return equal


def _equal(one: Any, other: Any) -> bool:
    """Whether two cells agree; numbers, also those in text, up to `RELATIVE`."""
    if one == other:
        return True
    if isinstance(one, dict) or isinstance(other, dict):  # `other` may have keys that an older version did not write
        both = isinstance(one, dict) and isinstance(other, dict)
        return both and all(key in other and _equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) or isinstance(other, list):
        lists = isinstance(one, list) and isinstance(other, list) and len(one) == len(other)
        return lists and all(map(_equal, one, other))
    try:
        left, right = float(one), float(other)
    except (TypeError, ValueError):
        return False
    return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=1e-12) or (math.isnan(left) and math.isnan(right))


def _compare_text(source: Publication, place: str, table: tables.Table, found: list[str], notes: list[str]) -> None:
    """Compare what people read, if it was rendered by the same code."""
    if source.manifest.get("written_by", {}).get("code") != code_hash():
        notes.append(
            f"{place}leaderboard.{{{','.join(RENDERED)}}} were rendered by other code; only hashes checked. Cells may "
            "differ if a rule has changed since: manifest.json names the version that wrote them."
        )
        return
    for form in RENDERED:
        name = f"{place}leaderboard.{form}"
        try:
            published = (source.folder / name).read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue  # named by the hashes
        if published != tables.render(table, form):
            found.append(f"{name}: differs from the recomputed table")


def to_json(verdict: Verdict) -> str:
    """Return the verdict as JSON."""
    value = vars(verdict) | {"folder": str(verdict.folder), "equal": not verdict.faults}
    return json.dumps(value, indent=1)

"""Write the results of a home to a folder that stands alone (`publication`)."""

from __future__ import annotations

import glob
import gzip
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from uuid import uuid4

from harness.record import artifacts, housekeeping, leases, redaction, segments
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.report import ledger_frames, table_scope, tables
from harness.system.code_hash import code_hash
from harness.system.files import sha256, write_json, write_text
from harness.types import NO_TEXT, HarnessError, Json, digest
from harness.workflows import publication, publication_readme
from harness.workflows.publication import Publication

FORMATS = ("md", "csv", "parquet", "html")
TRIALS = "trials.parquet"


def write(home: Path, folder: Path) -> Publication:
    """Write all results of a home to `folder`, which must be missing or empty.

    Raises HarnessError if it is not, if the home has no results, or if its ledger or the ranks or the spectrum of a
    finished run are damaged. An unfinished folder is removed.
    """
    _check_target(folder)
    ledger = Ledger.open(home)
    table_scope.newest(ledger)  # raises if there are no results
    if damages := [damage for damage in ledger.damages if not damage.torn]:
        raise HarnessError(f"The ledger is damaged ({damages[0]}); only a whole one can be published. See docs/faq.md.")
    try:
        with _part(folder) as part:
            _write_segments(home, part)
            with Publication(part, {}).ledger() as copied:  # a bench may go on in the home meanwhile
                _write_results(home, copied, part)
                manifest = _write_tables(copied, part)
            _seal(part, manifest)
            if folder.exists():
                folder.rmdir()
            part.rename(folder)
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written: {error.strerror or error}.") from error
    return publication.find(folder)


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """Create a hidden folder beside `folder` and remove it at the end, with those that killed processes left there."""
    me, mark = leases.here(), f".{folder.name}.part-"
    place = digest(me["place"])[:8]
    for left in folder.parent.glob(f"{glob.escape(mark)}*"):
        if _is_left(left, left.name.removeprefix(mark), place):
            shutil.rmtree(left, ignore_errors=True)
    part = folder.with_name(f"{mark}{place}-{me['pid']}-{me['born']}-{uuid4().hex[:8]}")
    part.mkdir(parents=True)
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_left(part: Path, owner: str, place: str) -> bool:
    """Whether the process that wrote a part is gone; one of another machine is if the part is older than a day."""
    words = owner.split("-")
    if leases.here()["place"] and len(words) == 4 and words[0] == place and words[1].isdecimal():
        return not leases.lives(int(words[1]), words[2])
    return housekeeping.age(part) >= housekeeping.DAY


def _check_target(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HarnessError(f"{folder} is not empty; name a folder that does not exist or is empty.")


def _write_segments(home: Path, part: Path) -> None:
    private = [str(home), str(Path.home()), str(Path.cwd())]
    for path in segments.segment_files(home):
        content = b"".join(public_lines(path))
        if word := redaction.leftovers(content, [word for word in private if word.count("/") > 1]):
            raise HarnessError(
                f"ledger/{path.name} names the folder {word} of this machine in a part that must not be changed "
                "(a data set or an encoder); give that part by a relative path and run the bench again."
            )
        _write(part / "ledger" / f"{path.stem}{publication.SEGMENT}", gzip.compress(content, mtime=0))


def _write_results(home: Path, ledger: Ledger, part: Path) -> None:
    """Write ranks, spectra and study files of what a ledger records."""
    for trial_id in confirmed(ledger):
        if (fault := artifacts.fault(home, trial_id, artifacts.RANKS)) == "damaged":
            raise HarnessError(f"The ranks of trial {trial_id} are {fault}; rerun the bench to repeat this run.")
        own = artifacts.artifact_folder(home, trial_id)
        if not fault:
            _write(part / "ranks" / f"{trial_id}.parquet", (own / artifacts.RANKS).read_bytes())
        if artifacts.fault(home, trial_id, artifacts.SPECTRUM) == "damaged":
            raise HarnessError(f"{own / artifacts.SPECTRUM} is damaged; remove it to publish this run without it.")
        if artifacts.load_spectra(home, trial_id) is not None:
            _write(part / "spectra" / f"{trial_id}.json", (own / artifacts.SPECTRUM).read_bytes())
    for run, launch in ledger.launches.items():
        write_text(part / "studies" / f"{run}.toml", study_file(run, launch))


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def public_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a segment, redacted; an unfinished last line is left out."""
    with path.open("rb") as file:
        for line in file:
            text = line.removesuffix(b"\n")
            if text and (text != line or segments.whole(text)):
                yield redaction.redact(text) + b"\n"


def confirmed(ledger: Ledger) -> list[str]:
    """Return the ids of the finished confirmations."""
    return [i for i, entry in ledger.trials.items() if entry.role != "search" and entry.status == "done"]


def study_file(run: str, launch: LaunchRecord) -> str:
    """Return the study file of a launch or, if it recorded none, its recorded options as comments."""
    if launch.study:
        return redaction.redact_study(launch.study)
    options = {"protocol": launch.protocol.identity(), "prep": launch.prep.identity()}
    options |= {"budget": launch.budget.to_json(), "engine": launch.search, "suite": launch.suite}
    cells = sorted({str(study.cell) for study in launch.studies})
    lines = [f"Launch {run} recorded no study file (older version of harness). Its options:"]
    lines += [f"{name} = {json.dumps(value, sort_keys=True)}" for name, value in options.items() if value]
    lines += ["Its cells:", *cells]
    return redaction.redact_text("".join(f"# {line}\n" for line in lines))


def table_runs(ledger: Ledger) -> dict[str, str]:
    """Key of a table -> its newest launch, the newest table first."""
    newest = {ledger.launches[run].table: run for run in sorted(ledger.launches)}
    return dict(sorted(newest.items(), key=lambda pair: pair[1], reverse=True))


def built(ledger: Ledger, source: Publication, run: str) -> tables.Table:
    """Return the table of a launch, from what the publication holds."""
    table = tables.build(ledger_frames.build(ledger, source.sources(), run))
    return replace(table, trials=table.trials.collect().lazy())


def _write_tables(ledger: Ledger, part: Path) -> Json:
    """Write every table from the published records alone; return the manifest, which lacks the files."""
    source, places = Publication(part, {}), {}
    for key, run in table_runs(ledger).items():
        table, place = built(ledger, source, run), f"tables/{key[:12]}/" if places else ""
        for form in FORMATS:
            tables.write(table, form, part / f"{place}leaderboard.{form}")
        table.trials.drop("info", strict=False).collect().write_parquet(part / f"{place}{TRIALS}")
        places[place] = {"table": key, "run": run, **summary(table)}
    return _manifest(ledger, places)


def _seal(part: Path, manifest: Json) -> None:
    """Write README and manifest, with the sha256 of every other file."""
    write_text(part / publication.README, publication_readme.text(manifest))
    names = sorted(path.relative_to(part).as_posix() for path in part.rglob("*") if path.is_file())
    manifest["files"] = {name: sha256(part / name) for name in names}
    write_json(part / publication.MANIFEST, manifest)


def summary(table: tables.Table) -> Json:
    """Return what an index shows of a table: protocol, preparation, budget and the best row of each section."""
    best = []
    for section in table.sections:
        for row in [row for row in section.rows if row.rank == 1 and row.metrics][:1]:
            value = row.metrics[table.headline]
            names = {"dataset": section.dataset, "backbone": section.backbone, "encoder": row.cell.encoder}
            best.append(
                {**names, "adapter": row.cell.adapter, "mean": value.mean, "low": value.low, "high": value.high}
            )
    shown = {key: table.header[key] for key in ("protocol", "prep", "budget", "engine")}
    return tables.finite({**shown, "headline": table.headline, "best": best})  # one test user has no interval


def _manifest(ledger: Ledger, places: Json) -> Json:
    return {
        "kind": publication.KIND,
        "format": publication.FORMAT,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "written_by": {"harness": metadata.version("harness-bench"), "code": code_hash()},
        **contents(ledger),
        "tables": places,
    }


def contents(ledger: Ledger) -> Json:
    """Return what a manifest takes from the ledger: code that ran, data sets, encoders, finished runs."""
    launches = [ledger.launches[run] for run in sorted(ledger.launches)]
    keys = ("hash", "licence", "citation", "redistributable", "users", "items", "events")
    versions = [{k: launch.provenance.get(k) for k in ("harness", "git", "code", "dirty")} for launch in launches]
    return {
        "ran_with": [value for at, value in enumerate(versions) if value not in versions[:at]],
        "data": {name: {k: card.get(k) for k in keys} for launch in launches for name, card in launch.data.items()},
        "encoders": sorted({s.cell.encoder for launch in launches for s in launch.studies} - {NO_TEXT}),
        "runs": list(_runs(ledger)),
        "folds": dict(_folds(ledger)),
    }


def _folds(ledger: Ledger) -> Iterator[tuple[str, int]]:
    """Yield trial and test window of every finished confirmation of a protocol with several."""
    for trial_id in confirmed(ledger):
        protocol = ledger.trials[trial_id].trial.protocol
        if protocol.folds:
            yield trial_id, protocol.fold


def _runs(ledger: Ledger) -> Iterator[Json]:
    """Yield trial, cell and seed of every finished confirmation, for readers of the ranks."""
    for trial_id in confirmed(ledger):
        trial = ledger.trials[trial_id].trial
        cell = {key: getattr(trial.cell, key) for key in ("dataset", "encoder", "backbone", "adapter")}
        yield {
            "trial": trial_id,
            **cell,
            "seed": trial.seed,
            "data": trial.inputs.data,
            "study": ledger.trials[trial_id].study,
        }

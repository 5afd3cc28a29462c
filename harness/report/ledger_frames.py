"""From the ledger to the frames a leaderboard is made of. Reads no engine and no MLflow."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from harness import registry
from harness.record import artifacts
from harness.record.artifacts import ArtifactSources, FrameOf
from harness.record.launches import LaunchRecord, StudyRecord
from harness.record.ledger import Ledger, TrialEntry
from harness.report.tables import Results
from harness.report.tables._frames import CELLS, KEY, QUERIES, RANKS, RUNS, SPECTRA, TRIALS
from harness.search import spaces
from harness.types import Cell, HarnessError, TrialResult


def of_home(home: Path, run: str | None = None, at_trials: int | None = None) -> Results:
    """What a home folder holds, as `build` makes it of its ledger."""
    return build(Ledger.open(home), artifacts.sources(home), run, at_trials)


def newest(ledger: Ledger, run: str | None = None) -> LaunchRecord:
    """The newest launch, or that of `run`. Raises HarnessError if there is none."""
    if not ledger.launches and ledger.damages:
        raise HarnessError(f"No launch can be read, since the ledger is damaged: {ledger.damages[0]}.")
    if not ledger.launches:
        raise HarnessError("This home holds no results yet; run: harness bench")
    if run is None:
        return ledger.launches[max(ledger.launches)]
    if run not in ledger.launches:
        raise HarnessError(f"There is no run '{run}' in this home; the newest is {max(ledger.launches)}.")
    return ledger.launches[run]


def launches(ledger: Ledger, run: str | None = None) -> list[LaunchRecord]:
    """The launches that stand in one table with the newest, or with `run` and not after it, oldest first."""
    wanted = newest(ledger, run).table
    names = [name for name in sorted(ledger.launches) if run is None or name <= run]
    return [ledger.launches[name] for name in names if ledger.launches[name].table == wanted]


def build(
    ledger: Ledger, beside: ArtifactSources | FrameOf, run: str | None = None, at_trials: int | None = None
) -> Results:
    """Everything that stands in one table with a launch: all cells of launches of the same protocol, preparation and
    epochs. Of two studies of one cell (a changed space or component) the newer launch's counts.

    at_trials: as if each search had ended after its first so many trials: their best is the winner, and its test is
    known only where it was confirmed. Raises HarnessError if there is no such launch.
    """
    launch = newest(ledger, run)
    known = beside if isinstance(beside, ArtifactSources) else ArtifactSources(beside)
    studies, skipped, cards = _planned(ledger, run)
    if at_trials is not None:
        studies = {cell: study.cut_to(at_trials) for cell, study in studies.items()}
    found = {cell: _found(ledger, own, known.ranks) for cell, own in studies.items()}
    rows = [_run_row(ledger, cell, trial_id) for cell, own in found.items() for trial_id in own]
    ranks = {trial_id: frame for own in found.values() for trial_id, frame in own.items()}
    cells = [_cell_row(ledger, cell, own, len(found[cell])) for cell, own in studies.items()]
    cells += [_skipped_row(cell, reason) for cell, reason in skipped.items()]
    return Results(
        pl.DataFrame(rows, schema=RUNS),
        _ranks(ranks),
        pl.DataFrame(cells, schema=CELLS).sort(KEY),
        _header(ledger, launch, studies, cards, at_trials) | ({"tracking": known.page} if known.page else {}),
        _trials(ledger, studies),
        _queries(launch.protocol.identity(), cards, known),
        _spectra([row["trial"] for row in rows], known),
    )


Studies = dict[Cell, StudyRecord]


def _planned(ledger: Ledger, run: str | None) -> tuple[Studies, dict[Cell, str], dict[str, Any]]:
    """Studies, reasons of skipped cells and data cards of the launches that stand in one table.

    The newest launch that names a cell decides whether it is a study or skipped.
    """
    studies: Studies = {}
    skipped: dict[Cell, str] = {}
    cards: dict[str, Any] = {}
    for launch in launches(ledger, run):
        for study in launch.studies:
            skipped.pop(study.cell, None)
            studies[study.cell] = study
        for left_out in launch.skipped:
            studies.pop(left_out.cell, None)
            skipped[left_out.cell] = left_out.reason
        cards |= launch.data
    return studies, skipped, cards


def _found(ledger: Ledger, study: StudyRecord, ranks_of: FrameOf) -> dict[str, pl.DataFrame]:
    """The ranks of a study's finished confirmations, of those that are there and whole."""
    frames = {trial_id: ranks_of(trial_id) for trial_id in _confirmed(ledger, study)}
    return {trial_id: frame for trial_id, frame in frames.items() if frame is not None}


def _ranks(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Trial, user and bounds of the rank of every test target, from the frames of the trials."""
    if not frames:
        return pl.DataFrame(schema=RANKS)
    together = pl.concat(frames.values(), how="vertical_relaxed")  # before any expression: each costs as much as a file
    trial = pl.concat([pl.Series("trial", [name]).new_from_index(0, own.height) for name, own in frames.items()])
    return together.select(trial, pl.col("user").cast(pl.Int64), pl.col("low", "high").cast(pl.Float64))


def _header(
    ledger: Ledger, launch: LaunchRecord, studies: Studies, cards: dict[str, Any], at_trials: int | None
) -> dict[str, Any]:
    header: dict[str, Any] = {
        "protocol": launch.protocol.identity(),
        "prep": launch.prep.identity(),
        "budget": launch.budget.to_json(),
        "engine": launch.search,
        "provenance": launch.provenance,
        "data": cards,
    }
    header |= {"ties": launch.ties, "components": _remarks(studies)}
    settings = sorted({study.setting for study in studies.values() if study.setting})
    header |= {"settings": {name: spaces.about(name) for name in settings}} if settings else {}
    pages = [page for name in sorted(ledger.finished) if (page := ledger.finished[name].get("tracking"))]
    header |= {"tracking": pages[-1]} if pages else {}
    confirmed = [trial_id for study in studies.values() for trial_id in ledger.confirmations(study)]
    header["test_opened"] = sum(ledger.opened.get(trial_id, 0) for trial_id in confirmed)
    return header if at_trials is None else header | {"at_trials": at_trials}


def _queries(protocol: dict[str, Any], cards: dict[str, Any], known: ArtifactSources) -> pl.DataFrame:
    """What is known of the test targets of each data set, of those that it was recorded for."""
    frames = []
    for name, card in cards.items():
        found = known.queries(artifacts.queries_key(card["hash"], protocol))
        if found is not None:
            frames.append(found.select(pl.lit(name).alias("dataset"), *[c for c in QUERIES if c != "dataset"]))
    return pl.concat(frames).cast(QUERIES) if frames else pl.DataFrame(schema=QUERIES)  # pyright: ignore[reportArgumentType]


def _spectra(trials: list[str], known: ArtifactSources) -> pl.DataFrame:
    found = [(trial_id, known.spectra(trial_id)) for trial_id in trials]
    records = [{"trial": trial_id, **own} for trial_id, own in found if own is not None]
    return pl.DataFrame(records, schema=SPECTRA)


def _skipped_row(cell: Cell, reason: str) -> dict[str, Any]:
    empty = dict.fromkeys(CELLS, 0) | _names(cell) | {"search_seconds": 0.0, "state": "skipped", "reason": reason}
    return empty | {"searched": None, "tuned": "", "setting": "", "warm_start": "", "cell_seconds": None}


def _remarks(cells: Iterable[Cell]) -> dict[str, dict[str, Any]]:
    """What components say of themselves that a reader must know: kind/name -> `note` and, of backbones, `pace`."""
    named = {(registry.ADAPTERS, c.adapter) for c in cells if not c.is_baseline}
    named |= {(registry.BACKBONES, c.backbone) for c in cells if not c.is_baseline}
    found = {}
    for package, word in sorted(named):
        name = registry.split_overrides(word)[0]
        if name in registry.names(package):  # else it was removed since
            own = registry.schema(package, name).attributes
            found[f"{package}/{name}"] = {key: own[key] for key in ("note", "pace") if own.get(key)}
    return {name: remarks for name, remarks in found.items() if remarks}


def _names(cell: Cell) -> dict[str, str]:
    return {key: getattr(cell, key) for key in KEY}


def _confirmed(ledger: Ledger, study: StudyRecord) -> list[str]:
    """Those of them that are done."""
    return [i for i in ledger.confirmations(study) if _status(ledger, i) == "done"]


def _searched(ledger: Ledger, study: StudyRecord) -> list[tuple[int, str, TrialEntry]]:
    return ledger.searched(study.id, ledger.planned(study))


def _status(ledger: Ledger, trial_id: str) -> str:
    entry = ledger.trials.get(trial_id)
    return (entry.status if entry else None) or "pending"


def _run_row(ledger: Ledger, cell: Cell, trial_id: str) -> dict[str, Any]:
    entry = ledger.trials[trial_id]
    result = entry.result
    assert result is not None
    return _names(cell) | {
        "trial": trial_id,
        "seed": entry.trial.seed,
        "params": json.dumps(entry.trial.params, sort_keys=True),
        "best_valid": result.best,
        "seconds": result.info.get("seconds", 0.0),
        "parameters": int(result.info.get("parameters", 0)),
        "effective_rank": result.info.get("effective_rank"),
        "info": json.dumps(result.info, sort_keys=True),
    }


def _trials(ledger: Ledger, studies: Studies) -> pl.LazyFrame:
    """`Results.trials`, a study at a time and only the columns that are asked for: what stands in the ledger's memory
    is had without reading a trial from disk."""

    def read(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, _: int | None
    ) -> Iterator[pl.DataFrame]:
        for cell, study in studies.items():
            frame = _trials_of(ledger, cell, study, columns or list(TRIALS))
            frame = frame if predicate is None else frame.filter(predicate)
            yield frame if rows is None else frame.head(rows)
            rows = None if rows is None else max(rows - frame.height, 0)

    return register_io_source(read, schema=TRIALS)


def _trials_of(ledger: Ledger, cell: Cell, study: StudyRecord, columns: Sequence[str]) -> pl.DataFrame:
    """A study's trials that were ever started: its search by number, then its confirmations by place."""
    found = [("search", *own) for own in _searched(ledger, study)]
    confirming = enumerate(ledger.confirmations(study))
    found += [("confirm", place, i, ledger.trials[i]) for place, i in confirming if i in ledger.trials]
    known = {"study": study.id} | _names(cell)
    values = {name: known[name] if name in known else [COLUMNS[name](*own) for own in found] for name in columns}
    schema = {name: TRIALS[name] for name in columns}
    given = {name: [value] * len(found) if name in known else value for name, value in values.items()}
    return pl.DataFrame(given, schema=schema)


def _value(of: Callable[[TrialResult], Any], else_: Any) -> Callable[[str, int, str, TrialEntry], Any]:
    """A column out of a trial's result, and what stands there while it has none."""
    return lambda role, number, trial_id, entry: else_ if (result := entry.result) is None else of(result)


def _unless_failed(name: str) -> Callable[[str, int, str, TrialEntry], Any]:
    return _value(lambda result: None if result.status == "failed" else getattr(result, name), None)


COLUMNS: dict[str, Callable[[str, int, str, TrialEntry], Any]] = {
    "trial": lambda role, number, trial_id, entry: trial_id,
    "role": lambda role, number, trial_id, entry: role,
    "number": lambda role, number, trial_id, entry: number,
    "seed": lambda role, number, trial_id, entry: entry.trial.seed,
    "status": lambda role, number, trial_id, entry: entry.status or "running",
    "reason": lambda role, number, trial_id, entry: entry.reason if entry.status else "",
    "best": _unless_failed("best"),
    "best_epoch": _unless_failed("best_epoch"),
    "curve": _value(lambda result: result.curve, []),
    "epochs": lambda role, number, trial_id, entry: entry.trained if entry.status else entry.epochs,
    "seconds": _value(lambda result: result.info.get("seconds"), None),
    "params": lambda role, number, trial_id, entry: json.dumps(entry.trial.params, sort_keys=True),
    "info": _value(lambda result: json.dumps(result.info, sort_keys=True), "{}"),
    "started": lambda role, number, trial_id, entry: entry.time or None,
    "ended": lambda role, number, trial_id, entry: (entry.ended or None) if entry.status else None,
    "run": lambda role, number, trial_id, entry: entry.run,
}


def _cell_row(ledger: Ledger, cell: Cell, study: StudyRecord, seeds_found: int) -> dict[str, Any]:
    ended = [entry for _, _, entry in _searched(ledger, study) if entry.status is not None]
    count = {s: sum(e.status == s for e in ended) for s in ("done", "pruned", "failed")}
    state, reason = _state(ledger, study, ended, seeds_found)
    return _names(cell) | {
        "trials_done": count["done"],
        "trials_pruned": count["pruned"],
        "trials_failed": count["failed"],
        "trials_planned": ledger.planned(study),
        "search_seconds": sum(entry.seconds for entry in ended),
        "search_epochs": sum(entry.trained for entry in ended),
        "searched": None if study.searched is None else list(study.searched),
        "tuned": _tuned(study),
        "setting": study.setting,
        "warm_start": study.warm_source,
        "cell_seconds": study.cell_seconds,
        "seeds_done": seeds_found,
        "seeds_planned": study.seeds,
        "state": state,
        "reason": reason,
    }


def _tuned(study: StudyRecord) -> str:
    """Where a cell's configuration comes from: `nothing`, `fixed`, `default` or `searched`."""
    if study.cell.is_baseline:
        return "nothing"
    if study.searched == ():
        return "fixed"
    return "searched" if study.trials else "default"


def _ended_early(study: StudyRecord, planned: int) -> str:
    """Why a complete search has fewer trials than it was allowed."""
    if planned < study.trials:
        return f"its {study.cell_seconds:g} seconds were spent after {planned} trials"
    if study.allowed is not None:
        return f"its grid was searched whole after {planned} of {study.allowed} trials"
    return ""


def _collapse(ledger: Ledger, study: StudyRecord) -> str:
    """Said of a cell all of whose runs came to one vector for all items: no scores, no choice, middle ranks."""
    runs = [ledger.result(i) for i in _confirmed(ledger, study)]
    ranks = [run.info.get("effective_rank") for run in runs if run is not None]
    return "collapsed: its items all have one vector" if ranks and all(rank == 0 for rank in ranks) else ""


def _state(ledger: Ledger, study: StudyRecord, ended: list[TrialEntry], seeds_found: int) -> tuple[str, str]:
    """State and reason of a cell. Where it is not at its end, the reason says how far it is."""
    confirmed = [_status(ledger, i) for i in ledger.confirmations(study)]
    planned = ledger.planned(study)
    searched = len(ended) == planned
    if seeds_found == study.seeds:
        return "done", _collapse(ledger, study) or _ended_early(study, planned)
    if "failed" in confirmed or (searched and ended and not any(e.status == "done" for e in ended)):
        return "failed", _reason(ledger, study, ended)
    lost = confirmed.count("done") - seeds_found
    if lost:
        return "partial", f"the ranks of {lost} of its runs are missing or damaged; the same bench makes them again"
    if study.cut and searched and not seeds_found:
        return "partial", f"the best of its first {planned} trials was not confirmed"
    far = f"{len(ended)} of {planned} trials, {seeds_found} of {study.seeds} seeds"
    if _running(ledger, study):
        return "running", far
    return ("partial", far) if ended or seeds_found else ("pending", "")


def _running(ledger: Ledger, study: StudyRecord) -> bool:
    """Whether a trial of the study is started and not ended in a launch that has not finished (or was killed)."""
    entries = [entry for _, _, entry in _searched(ledger, study)]
    entries += [ledger.trials[i] for i in ledger.confirmations(study) if i in ledger.trials]
    return any(entry.status is None and entry.run not in ledger.finished for entry in entries)


def _reason(ledger: Ledger, study: StudyRecord, searched: list[TrialEntry]) -> str:
    """The most frequent reason of a cell's failures."""
    confirmed = [ledger.trials[i] for i in ledger.confirmations(study) if i in ledger.trials]
    reasons = [entry.reason for entry in [*searched, *confirmed] if entry.status == "failed"]
    alike = [re.sub(r"\d+", "0", reason) for reason in reasons]  # epochs, steps and sizes do not make another reason
    return reasons[alike.index(max(alike, key=alike.count))] if reasons else ""

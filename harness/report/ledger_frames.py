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
from harness.record.ledger import Ledger, TrialEntry
from harness.report.tables import Results
from harness.report.tables._frames import CELLS, KEY, QUERIES, RANKS, RUNS, SPECTRA, TRIALS
from harness.search import spaces
from harness.types import MIDDLE, Cell, HarnessError, TrialResult


def of_home(home: Path, run: str | None = None, at_trials: int | None = None) -> Results:
    """What a home folder holds, as `build` makes it of its ledger."""
    return build(Ledger.open(home), artifacts.sources(home), run, at_trials)


def newest(ledger: Ledger, run: str | None = None) -> dict[str, Any]:
    """The newest launch event, or that of `run`. Raises HarnessError if there is none."""
    if not ledger.launches and ledger.damages:
        raise HarnessError(f"No launch can be read, since the ledger is damaged: {ledger.damages[0]}.")
    if not ledger.launches:
        raise HarnessError("This home holds no results yet; run: harness bench")
    if run is None:
        return ledger.launches[max(ledger.launches)]
    if run not in ledger.launches:
        raise HarnessError(f"There is no run '{run}' in this home; the newest is {max(ledger.launches)}.")
    return ledger.launches[run]


def launches(ledger: Ledger, run: str | None = None) -> list[dict[str, Any]]:
    """The launches that stand in one table with the newest, or with `run` and not after it, oldest first."""
    wanted = newest(ledger, run)["table"]
    names = [name for name in sorted(ledger.launches) if run is None or name <= run]
    return [ledger.launches[name] for name in names if ledger.launches[name]["table"] == wanted]


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
        studies = {cell: _cut(own, at_trials) for cell, own in studies.items()}
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
        _queries(launch["protocol"], cards, known),
        _spectra([row["trial"] for row in rows], known),
    )


Studies = dict[Cell, dict[str, Any]]


def _cut(described: dict[str, Any], trials: int) -> dict[str, Any]:
    """A study as if it had ended after so many trials."""
    return described | {"trials": trials, "cut": True} if described["trials"] > trials else described


def _planned(ledger: Ledger, run: str | None) -> tuple[Studies, dict[Cell, str], dict[str, Any]]:
    """Studies, reasons of skipped cells and data cards of the launches that stand in one table.

    The newest launch that names a cell decides whether it is a study or skipped.
    """
    studies: Studies = {}
    skipped: dict[Cell, str] = {}
    cards: dict[str, Any] = {}
    for event in launches(ledger, run):
        warm = {"warm_start": (event.get("engine") or {}).get("warm_start")}
        for described in event["studies"]:
            cell = Cell(**described["cell"])
            skipped.pop(cell, None)
            studies[cell] = warm | described
        for described in event["skipped"]:
            cell = Cell(**described["cell"])
            studies.pop(cell, None)
            skipped[cell] = described["reason"]
        cards |= event["data"]
    return studies, skipped, cards


def _found(ledger: Ledger, described: dict[str, Any], ranks_of: FrameOf) -> dict[str, pl.DataFrame]:
    """The ranks of a study's finished confirmations, of those that are there and whole."""
    frames = {trial_id: ranks_of(trial_id) for trial_id in _confirmed(ledger, described)}
    return {trial_id: frame for trial_id, frame in frames.items() if frame is not None}


def _ranks(frames: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Trial, user and bounds of the rank of every test target, from the frames of the trials."""
    if not frames:
        return pl.DataFrame(schema=RANKS)
    together = pl.concat(frames.values(), how="vertical_relaxed")  # before any expression: each costs as much as a file
    trial = pl.concat([pl.Series("trial", [name]).new_from_index(0, own.height) for name, own in frames.items()])
    return together.select(trial, pl.col("user").cast(pl.Int64), pl.col("low", "high").cast(pl.Float64))


def _header(
    ledger: Ledger, launch: dict[str, Any], studies: Studies, cards: dict[str, Any], at_trials: int | None
) -> dict[str, Any]:
    header = {key: launch[key] for key in ("protocol", "prep", "budget", "engine", "provenance")} | {"data": cards}
    header |= {"ties": launch.get("ties", MIDDLE), "components": _remarks(studies)}
    settings = sorted({own["setting"] for own in studies.values() if "setting" in own})
    header |= {"settings": {name: spaces.about(name) for name in settings}} if settings else {}
    pages = [page for name in sorted(ledger.finished) if (page := ledger.finished[name].get("tracking"))]
    header |= {"tracking": pages[-1]} if pages else {}
    header["test_opened"] = sum(ledger.opened.get(i, 0) for d in studies.values() for i in confirmations(ledger, d))
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


def confirmations(ledger: Ledger, described: dict[str, Any]) -> list[str]:
    """Ids of the planned confirmations of a study's winner; none while it is undecided."""
    if "confirm" in described:
        return described["confirm"]
    return ledger.confirming(described["study"], ledger.planned(described), described["seeds"])


def _confirmed(ledger: Ledger, described: dict[str, Any]) -> list[str]:
    """Those of them that are done."""
    return [i for i in confirmations(ledger, described) if _status(ledger, i) == "done"]


def _searched(ledger: Ledger, described: dict[str, Any]) -> list[tuple[int, str, TrialEntry]]:
    return ledger.searched(described["study"], ledger.planned(described))


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
        for cell, described in studies.items():
            frame = _trials_of(ledger, cell, described, columns or list(TRIALS))
            frame = frame if predicate is None else frame.filter(predicate)
            yield frame if rows is None else frame.head(rows)
            rows = None if rows is None else max(rows - frame.height, 0)

    return register_io_source(read, schema=TRIALS)


def _trials_of(ledger: Ledger, cell: Cell, described: dict[str, Any], columns: Sequence[str]) -> pl.DataFrame:
    """A study's trials that were ever started: its search by number, then its confirmations by place."""
    found = [("search", *own) for own in _searched(ledger, described)]
    confirming = enumerate(confirmations(ledger, described))
    found += [("confirm", place, i, ledger.trials[i]) for place, i in confirming if i in ledger.trials]
    known = {"study": described["study"]} | _names(cell)
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


def _cell_row(ledger: Ledger, cell: Cell, described: dict[str, Any], seeds_found: int) -> dict[str, Any]:
    ended = [entry for _, _, entry in _searched(ledger, described) if entry.status is not None]
    count = {s: sum(e.status == s for e in ended) for s in ("done", "pruned", "failed")}
    state, reason = _state(ledger, described, ended, seeds_found)
    searched = described.get("searched")
    return _names(cell) | {
        "trials_done": count["done"],
        "trials_pruned": count["pruned"],
        "trials_failed": count["failed"],
        "trials_planned": ledger.planned(described),
        "search_seconds": sum(entry.seconds for entry in ended),
        "search_epochs": sum(entry.trained for entry in ended),
        "searched": searched,
        "tuned": "nothing"
        if cell.is_baseline
        else "fixed"
        if searched == []
        else "searched"
        if described["trials"]
        else "default",
        "setting": described.get("setting", ""),
        "warm_start": _warm(described),
        "cell_seconds": described.get("cell_seconds"),
        "seeds_done": seeds_found,
        "seeds_planned": described["seeds"],
        "state": state,
        "reason": reason,
    }


def _ended_early(described: dict[str, Any], planned: int) -> str:
    """Why a complete search has fewer trials than it was allowed."""
    if planned < described["trials"]:
        return f"its {described['cell_seconds']:g} seconds were spent after {planned} trials"
    if "allowed" in described:
        return f"its grid was searched whole after {planned} of {described['allowed']} trials"
    return ""


def _collapse(ledger: Ledger, described: dict[str, Any]) -> str:
    """Said of a cell all of whose runs came to one vector for all items: no scores, no choice, middle ranks."""
    runs = [ledger.result(i) for i in _confirmed(ledger, described)]
    ranks = [run.info.get("effective_rank") for run in runs if run is not None]
    return "collapsed: its items all have one vector" if ranks and all(rank == 0 for rank in ranks) else ""


def _warm(described: dict[str, Any]) -> str:
    """The data set whose best configurations a search began with; empty where it began cold."""
    return str(described.get("warm_start") or "yes") if described.get("warm") else ""


def _state(ledger: Ledger, described: dict[str, Any], ended: list[TrialEntry], seeds_found: int) -> tuple[str, str]:
    """State and reason of a cell. Where it is not at its end, the reason says how far it is."""
    confirmed = [_status(ledger, i) for i in confirmations(ledger, described)]
    planned = ledger.planned(described)
    searched = len(ended) == planned
    if seeds_found == described["seeds"]:
        return "done", _collapse(ledger, described) or _ended_early(described, planned)
    if "failed" in confirmed or (searched and ended and not any(e.status == "done" for e in ended)):
        return "failed", _reason(ledger, described, ended)
    lost = confirmed.count("done") - seeds_found
    if lost:
        return "partial", f"the ranks of {lost} of its runs are missing or damaged; the same bench makes them again"
    if described.get("cut") and searched and not seeds_found:
        return "partial", f"the best of its first {planned} trials was not confirmed"
    far = f"{len(ended)} of {planned} trials, {seeds_found} of {described['seeds']} seeds"
    if _running(ledger, described):
        return "running", far
    return ("partial", far) if ended or seeds_found else ("pending", "")


def _running(ledger: Ledger, described: dict[str, Any]) -> bool:
    """Whether a trial of the study is started and not ended in a launch that has not finished (or was killed)."""
    entries = [entry for _, _, entry in _searched(ledger, described)]
    entries += [ledger.trials[i] for i in confirmations(ledger, described) if i in ledger.trials]
    return any(entry.status is None and entry.run not in ledger.finished for entry in entries)


def _reason(ledger: Ledger, described: dict[str, Any], searched: list[TrialEntry]) -> str:
    """The most frequent reason of a cell's failures."""
    confirmed = [ledger.trials[i] for i in confirmations(ledger, described) if i in ledger.trials]
    reasons = [entry.reason for entry in [*searched, *confirmed] if entry.status == "failed"]
    alike = [re.sub(r"\d+", "0", reason) for reason in reasons]  # epochs, steps and sizes do not make another reason
    return reasons[alike.index(max(alike, key=alike.count))] if reasons else ""

"""Build the frames of a leaderboard from the ledger. Uses neither the engine nor MLflow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from harness import registry
from harness.record import artifacts, leases
from harness.record.artifacts import ArtifactSources, FrameOf
from harness.record.launches import LaunchRecord, StudyRecord, merged
from harness.record.ledger import Ledger
from harness.report import table_scope, trial_rows
from harness.report.run_rows import run_row
from harness.report.tables import Results
from harness.report.tables._frames import CELLS, KEY, QUERIES, RUNS, SPECTRA
from harness.search import spaces
from harness.types import Cell, Inputs, Json, Protocol


def of_home(home: Path, run: str | None = None, at_trials: int | None = None) -> Results:
    """Return the results of a home folder: `build` for its ledger."""
    return build(Ledger.open(home), artifacts.sources(home), run, at_trials)


def build(
    ledger: Ledger, files: ArtifactSources | FrameOf, run: str | None = None, at_trials: int | None = None
) -> Results:
    """Return the results of a launch's table: all cells of launches with the same protocol, preparation and epochs.

    If a cell has two studies (changed space or component), the one of the newer launch counts. at_trials: act as if
    each search had ended after this many trials; the best of them wins, and has test results only if it was confirmed.
    Raises HarnessError if there is no such launch.
    """
    launch, scope = table_scope.newest(ledger, run), table_scope.of(ledger, run)
    sources = files if isinstance(files, ArtifactSources) else ArtifactSources(files)
    studies = {cell: study for cell, study in scope.studies.items() if cell not in scope.outdated}
    if at_trials is not None:
        studies = {cell: study.cut_to(at_trials) for cell, study in studies.items()}
    sources.prefetch([i for study in studies.values() for i in ledger.confirmations(study)])
    runs_of = {cell: _runs_of(ledger, study, sources.ranks) for cell, study in studies.items()}
    rows = [run_row(ledger, cell, ids) for cell, runs in runs_of.items() for ids in runs]
    ranks = {ids[0]: frame for runs in runs_of.values() for ids, frame in runs.items()}
    cells = [_cell_row(ledger, cell, study, len(runs_of[cell]), scope.inputs[cell]) for cell, study in studies.items()]
    cells += [_skipped_row(cell, reason) for cell, reason in (scope.skipped | scope.outdated).items()]
    return Results(
        pl.DataFrame(rows, schema=RUNS),
        ranks,
        pl.DataFrame(cells, schema=CELLS).sort(KEY),
        _header(ledger, launch, studies, scope.cards, at_trials) | ({"tracking": sources.page} if sources.page else {}),
        trial_rows.lazy(ledger, studies),
        _queries(launch.protocol, scope.cards, sources),
        _spectra([row["trial"] for row in rows], sources),
    )


Studies = dict[Cell, StudyRecord]


def _versions(inputs: list[Inputs]) -> dict[str, int | str]:
    """Return the versions of what all rows of a section share: training core, backbone, loss."""
    versions = inputs[0].versions if inputs else {}
    return {f"version of {name}": version for name, version in versions.items() if name != "adapters"}


def _runs_of(ledger: Ledger, study: StudyRecord, ranks_of: FrameOf) -> dict[tuple[str, ...], pl.DataFrame]:
    """Return the ranks of a study's complete runs, by the ids of their trials: one or, with folds, one a fold.

    Runs with missing or damaged ranks are left out.
    """
    runs = {}
    for ids in _complete(ledger, study):
        frames = [ranks_of(trial_id) for trial_id in ids]
        found = [frame for frame in frames if frame is not None]
        if len(found) == len(ids):
            runs[tuple(ids)] = artifacts.of_folds(found)
    return runs


def _complete(ledger: Ledger, study: StudyRecord) -> list[list[str]]:
    """Return the trials of each seed whose confirmations have all finished."""
    return [ids for ids in ledger.by_seed(study) if all(_status(ledger, i) == "done" for i in ids)]


def provenance(ledger: Ledger, trials: Iterable[str], launch: LaunchRecord) -> Json:
    """Return the merged provenance of the launches that ran these trials; of `launch` if none has."""
    known = ledger.trials
    runs = {known.words[code] for code in {known.run[known.rows[i]] for i in trials if i in known.rows}}
    found = [ledger.launches[run] for run in sorted(runs & ledger.launches.keys())]
    return merged(one.provenance for one in found or [launch])


def trials_of(ledger: Ledger, study: StudyRecord) -> Iterator[str]:
    """Yield the ids of the trials that a study's row rests on, with those of an ensemble's parts."""
    yield from (trial_id for _, trial_id in ledger.search_ids(study.id, ledger.planned(study)))
    yield from ledger.confirmations(study)
    for part in study.parts:
        yield from trials_of(ledger, part)


def _header(ledger: Ledger, launch: LaunchRecord, studies: Studies, cards: Json, at_trials: int | None) -> Json:
    header: Json = {
        "protocol": launch.protocol.identity(),
        "prep": launch.prep.identity(),
        "budget": launch.budget.to_json(),
        "engine": launch.search,
        "provenance": provenance(ledger, chain.from_iterable(trials_of(ledger, s) for s in studies.values()), launch),
        "data": cards,
    } | ({"suite": launch.suite} if launch.suite else {})
    header |= {"ties": launch.ties, "components": _remarks(studies)}
    settings = sorted({study.setting for study in studies.values() if study.setting})
    header |= {"settings": {name: spaces.about(name) for name in settings}} if settings else {}
    pages = [page for name in sorted(ledger.over) if (page := ledger.over[name].get("tracking"))]
    header |= {"tracking": pages[-1]} if pages else {}
    confirmed = {trial_id for study in studies.values() for trial_id in ledger.confirmations(study)}
    header["test_opened"] = sum(ledger.opened.get(trial_id, 0) for trial_id in confirmed)
    header["test_opened_by_others"] = _opened_by_others(ledger, launch.protocol, studies, cards, confirmed)
    return header if at_trials is None else header | {"at_trials": at_trials}


def _opened_by_others(ledger: Ledger, protocol: Protocol, studies: Studies, cards: Json, confirmed: set[str]) -> int:
    """Return how often the same test of the same cells was opened for other winners, as of shorter searches."""
    same = [part.identity() for part in protocol.parts]
    opened = 0
    for trial_id in (ledger.opened.keys() - confirmed) & ledger.trials.keys():
        trial = ledger.trials[trial_id].trial
        data = (cards.get(trial.cell.dataset) or {}).get("hash")
        if trial.cell in studies and trial.inputs.data == data and trial.protocol.identity() in same:
            opened += ledger.opened[trial_id]
    return opened


def _queries(protocol: Protocol, cards: Json, sources: ArtifactSources) -> pl.DataFrame:
    """Return the recorded facts about test targets, for the data sets that have them, of all folds."""
    frames = []
    for name, card in cards.items():
        parts = [sources.queries(artifacts.queries_key(card["hash"], part.identity())) for part in protocol.parts]
        found = [frame for frame in parts if frame is not None]
        if len(found) == len(parts):
            frame = artifacts.of_folds(found)
            frames.append(frame.select(pl.lit(name).alias("dataset"), *[c for c in QUERIES if c != "dataset"]))
    return pl.concat(frames).cast(QUERIES) if frames else pl.DataFrame(schema=QUERIES)  # pyright: ignore[reportArgumentType]


def _spectra(trials: list[str], sources: ArtifactSources) -> pl.DataFrame:
    spectra = [(trial_id, sources.spectra(trial_id)) for trial_id in trials]
    records = [{"trial": trial_id, **spectrum} for trial_id, spectrum in spectra if spectrum is not None]
    return pl.DataFrame(records, schema=SPECTRA)


def _skipped_row(cell: Cell, reason: str) -> Json:
    empty = dict.fromkeys(CELLS, 0) | dict.fromkeys(("tuned", "setting", "warm_start"), "")
    empty |= {"search_seconds": 0.0, "searched": None, "shared": "{}", "cell_seconds": None}
    return empty | _names(cell) | {"state": "skipped", "reason": reason}


def _remarks(cells: Iterable[Cell]) -> dict[str, Json]:
    """Return remarks of components for the reader: kind/name -> `note`, for backbones `pace`, and `reads_mean` for
    adapters that do not draw among the texts of an item, where a cell has several."""
    adapters = [(cell, name) for cell in cells if not cell.is_baseline for name in cell.parts or (cell.adapter,)]
    several = {(registry.ADAPTERS, name) for cell, name in adapters if cell.has_variants}
    named = {(registry.ADAPTERS, name) for _, name in adapters}
    named |= {(registry.BACKBONES, c.backbone) for c in cells if not c.is_baseline}
    remarks = {}
    for package, word in sorted(named):
        name = registry.split_overrides(word)[0]
        if name in registry.names(package):  # else it has been removed since
            attributes = registry.schema(package, name).attributes
            remarks[f"{package}/{name}"] = {key: attributes[key] for key in ("note", "pace") if attributes.get(key)}
            if (package, word) in several and attributes.get("uses_text", True) and not attributes.get("draws"):
                remarks[f"{package}/{name}"]["reads_mean"] = True
    return {name: remark for name, remark in remarks.items() if remark}


def _names(cell: Cell) -> dict[str, str]:
    return {key: getattr(cell, key) for key in KEY}


def _confirmed(ledger: Ledger, study: StudyRecord) -> list[str]:
    """Return the ids of a study's finished confirmations."""
    return [i for i in ledger.confirmations(study) if _status(ledger, i) == "done"]


def _searched(ledger: Ledger, study: StudyRecord) -> np.ndarray:
    """Return the rows of a study's started search trials in `ledger.trials`."""
    return ledger.search_rows(study.id, ledger.planned(study))


def _ended(ledger: Ledger, studies: Iterable[StudyRecord]) -> np.ndarray:
    """Return the rows of the ended search trials of studies."""
    rows = np.concatenate([_searched(ledger, study) for study in studies])
    return rows[ledger.trials.column("status", rows) > 0]


def _status(ledger: Ledger, trial_id: str) -> str:
    entry = ledger.trials.get(trial_id)
    return (entry.status if entry else None) or "pending"


def _cell_row(ledger: Ledger, cell: Cell, study: StudyRecord, seeds_found: int, inputs: list[Inputs]) -> Json:
    searches = study.parts or (study,)
    trials, ended = ledger.trials, _ended(ledger, searches)
    codes, trained = trials.column("status", ended), np.unique(ended)  # a configuration drawn twice is trained once
    count = {status: np.count_nonzero(codes == trials.code(status)) for status in ("done", "pruned", "failed")}
    state, reason = _state(ledger, study, ended, seeds_found)
    return _names(cell) | {
        "trials_done": count["done"],
        "trials_pruned": count["pruned"],
        "trials_failed": count["failed"],
        "trials_planned": sum(map(ledger.planned, searches)),
        "search_seconds": sum(trials.column("seconds", trained).tolist()),
        "search_epochs": int(trials.column("trained", trained).sum()),
        "searched": _dimensions(study),
        "shared": json.dumps(study.ranges | _versions(inputs)),
        "tuned": _tuned(study),
        "setting": study.setting,
        "warm_start": study.warm_source,
        "source_trials": study.transferred,
        "cell_seconds": study.cell_seconds,
        "seeds_done": seeds_found,
        "seeds_planned": study.seeds,
        "state": state,
        "reason": reason,
    }


def _dimensions(study: StudyRecord) -> list[str] | None:
    """Return the searched parameters; those of all parts for an ensemble; None if they were not recorded."""
    named = [one.searched for one in study.parts or (study,)]
    return None if None in named else sorted({name for names in named for name in names or ()})


def _tuned(study: StudyRecord) -> str:
    """Return the origin of a cell's configuration: `nothing`, `fixed`, `default`, `transferred`, `searched` or
    `parts`."""
    if study.parts:
        return "parts"
    if study.cell.is_baseline:
        return "nothing"
    if study.searched == ():
        return "fixed"
    if study.trials:
        return "searched"
    return "transferred" if study.transferred else "default"


def _ended_early(study: StudyRecord, planned: int) -> str:
    """Return why a complete search has fewer trials than allowed; "" if it has all."""
    if planned < study.trials:
        return f"its time budget of {study.cell_seconds:g} s was used up after {planned} trials"
    if study.allowed is not None:
        return f"its grid was exhausted after {planned} of {study.allowed} trials"
    return ""


def _collapse(ledger: Ledger, study: StudyRecord) -> str:
    """Return a remark if in all runs all items have the same vector, so that all scores tie; else ""."""
    runs = [ledger.result(i) for i in _confirmed(ledger, study)]
    ranks = [run.info.get("effective_rank") for run in runs if run is not None]
    return "collapsed: all items have the same vector" if ranks and all(rank == 0 for rank in ranks) else ""


def _state(ledger: Ledger, study: StudyRecord, ended: np.ndarray, seeds_found: int) -> tuple[str, str]:
    """Return state and reason of a cell, of which the trials in the rows `ended` have ended. While it is unfinished,
    the reason is its progress."""
    confirmed = [_status(ledger, i) for i in ledger.confirmations(study)]
    if study.parts:
        return _ensemble_state(ledger, study, confirmed, seeds_found)
    planned, done = ledger.planned(study), ledger.trials.code("done")
    searched = len(ended) == planned
    if seeds_found == study.seeds:
        return "done", _collapse(ledger, study) or _ended_early(study, planned)
    if "failed" in confirmed or (searched and len(ended) and done not in ledger.trials.column("status", ended)):
        return "failed", _reason(ledger, study, ended)
    lost = len(_complete(ledger, study)) - seeds_found
    if lost:
        return (
            "partial",
            f"the ranks of {lost} of its runs are missing or damaged; rerun the bench to repeat these runs",
        )
    if study.cut and searched and not seeds_found:
        return "partial", f"the best of its first {planned} trials was not confirmed"
    far = f"{len(ended)} of {planned} trials, {seeds_found} of {study.seeds} seeds"
    if _running(ledger, study):
        return "running", far
    return ("partial", far) if len(ended) or seeds_found else ("pending", "")


def _ensemble_state(ledger: Ledger, study: StudyRecord, confirmed: list[str], seeds_found: int) -> tuple[str, str]:
    """Return state and reason of an ensemble, whose parts may have failed or still be running."""
    if seeds_found == study.seeds:
        return "done", ""
    if "failed" in confirmed:
        return "failed", _reason(ledger, study, np.empty(0, np.int64))
    for part in study.parts:
        runs = len(_complete(ledger, part))
        state, _ = _state(ledger, part, _ended(ledger, [part]), runs)
        if state == "failed":
            return "failed", f"its part {part.cell.adapter} failed"
        if part.cut and state == "partial" and not runs:
            return "partial", f"the best of the first {part.trials} trials of {part.cell.adapter} was not confirmed"
    return ("partial" if seeds_found else "pending"), f"{seeds_found} of {study.seeds} rounds"


def _running(ledger: Ledger, study: StudyRecord) -> bool:
    """Return whether a trial of the study has started and not ended in a launch that still runs."""
    rows = np.concatenate([_searched(ledger, study), _confirmation_rows(ledger, study)])
    open_rows = rows[ledger.trials.column("status", rows) == 0]
    runs = {ledger.trials.entry(row).run for row in open_rows} - ledger.over.keys()
    return ledger.home is not None and any(leases.alive(ledger.home, run) for run in runs)


def _confirmation_rows(ledger: Ledger, study: StudyRecord) -> np.ndarray:
    rows = ledger.trials.rows
    return np.array([rows[i] for i in ledger.confirmations(study) if i in rows], np.int64)


def _reason(ledger: Ledger, study: StudyRecord, searched: np.ndarray) -> str:
    """Return the most frequent failure reason of a cell."""
    entries = map(ledger.trials.entry, (*searched, *_confirmation_rows(ledger, study)))
    reasons = [entry.reason for entry in entries if entry.status == "failed"]
    alike = [
        re.sub(r"\d+", "0", reason) for reason in reasons
    ]  # reasons that differ only in epochs, steps or sizes are the same
    count = Counter(alike)
    return reasons[alike.index(max(alike, key=count.__getitem__))] if reasons else ""

"""The MLflow mirror of the ledger: write ended trials, read them back.

There is one MLflow run per trial, nested under one run per bench process (`mlflow_run` has its layout). Runs are found
by tags, so mirroring twice changes nothing and a partly written run is completed under its id. An outage causes one
warning; `sync` catches up from the ledger. `mlflow_rest` serves plain HTTP servers without importing MLflow,
`mlflow_client` every other store.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import polars as pl

from harness.record import artifacts, local_store, mlflow_client, mlflow_run
from harness.record.artifacts import RANKS, ArtifactSources
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.record.mirrored_files import MirroredFiles, record_of
from harness.record.mlflow_run import (
    BENCH,
    BUNDLE,
    COMPLETE,
    EXPERIMENT,
    FILES,
    NOTE,
    PARENT,
    RECORD_FILE,
    REPORT,
    SPECTRUM,
    TRIAL,
    BenchPage,
    Refused,
    StoredRun,
)
from harness.record.tracking_uri import check, check_readable, default_uri, first_line, redact, runs_page
from harness.system.threads import in_threads
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    from harness.record.mlflow_rest import RestStore

__all__ = [
    "RefusedTrials",
    "Tracker",
    "default_uri",
    "first_line",
    "read",
    "redact",
    "refusal",
    "runs_page",
    "show",
    "sync",
]

LISTED = 3  # refused trials in a message
Store: TypeAlias = "RestStore | mlflow_client.ClientStore"


class Tracker:
    """A connection to one MLflow store. Every method may raise any exception of its store.

    `mend`: quarantine a damaged or unfinished SQLite file, so that the mirror is rebuilt. `make`: create the experiment
    if it does not exist. Raises HarnessError if the experiment does not exist (without `make`) or was deleted, or if a
    password would be sent unencrypted (`tracking_uri.check`).
    """

    def __init__(self, uri: str, home: Path, *, mend: bool = False, make: bool = True) -> None:
        check(uri)
        self.store = _store(uri, mend)
        location = (home / "mlflow" / "artifacts").as_uri() if local_store.path_of(uri) is not None else None
        found = self.store.experiment(EXPERIMENT) or (_created(self.store, location) if make else None)
        self.experiment = _active(found, uri)
        self.home, self.uri = home, uri
        self.page = runs_page(uri, self.experiment)
        self.parents: dict[str, str] = {}  # bench -> its completely written MLflow run
        self.benches: dict[str, str] = {}  # MLflow run -> bench, of this home or another
        self.begun: dict[str, StoredRun] = {}  # trial or bench -> its partly written MLflow run
        self.whole: dict[str, StoredRun] = {}  # trial -> its completely written MLflow run
        self.refused: dict[str, str] = {}  # trial -> why the store does not take it

    def look(self) -> None:
        """Note which trials are written, in `whole`, and runs left incomplete by a killed process or an outage, in
        `begun`; if two processes created runs of one trial, the later one is deleted."""
        # a run that another process adds meanwhile moves the others along: the last of a page comes again in the next
        runs = {run.id: run for run in self.store.runs(self.experiment)}
        for run in sorted(runs.values(), key=lambda run: (not mlflow_run.is_complete(run), run.start, run.id)):
            if (bench := run.tags.get(BENCH)) is not None:
                self.benches[run.id] = bench
                if COMPLETE in run.tags:
                    self.parents[bench] = run.id
                else:
                    self.begun[bench] = run
            if (trial_id := run.tags.get(TRIAL)) is None:
                continue
            if trial_id in self.whole or trial_id in self.begun:
                self.store.delete(run.id)
            elif mlflow_run.is_complete(run):
                self.whole[trial_id] = _slim(run)
            else:
                self.begun[trial_id] = run

    def lacks(self, ledger: Ledger, trial_id: str) -> bool:
        """Whether the store lacks an ended trial, or its newest result or places."""
        run = self.whole.get(trial_id)
        return run is None or self._replaced(ledger, trial_id, run) or bool(self._missing(ledger, trial_id, run))

    def _replaced(self, ledger: Ledger, trial_id: str, run: StoredRun) -> bool:
        """Whether a trial is `done` here with another result: finished in a home that was merged, or repeated.

        As in a ledger, the first `done` counts. Another home, whose processor may round differently, repeats nothing.
        """
        entry, best = ledger.trials[trial_id], mlflow_run.best_of(run.tags)
        if entry.status != "done":
            return False
        if run.status != mlflow_run.STATUS["done"] and COMPLETE not in run.tags:
            return True
        ours = self.benches.get(run.tags.get(PARENT, ""), entry.run) in ledger.launches
        return ours and best not in (None, entry.best)

    def _missing(self, ledger: Ledger, trial_id: str, run: StoredRun) -> list[tuple[str, int]]:
        """Places that the run of a trial lacks: it was drawn again later, or by another home."""
        known = mlflow_run.places_of(run.tags)
        if known is None or len(known) >= mlflow_run.PLACED:
            return []
        return [place for place in ledger.places(trial_id) if place not in known]

    def write(self, ledger: Ledger, trial_ids: Sequence[str], launches: Sequence[str] = ()) -> Iterator[str]:
        """Write benches and ended trials over all connections; yield the id of each trial once it is written, or is in
        `refused`."""
        # a damaged launch gets no run
        runs = {ledger.trials[trial_id].run for trial_id in trial_ids}.union(launches)
        benches = sorted(runs & ledger.launches.keys() - self.parents.keys())
        for _ in in_threads(lambda run: self._bench(ledger, run), benches, self.store.connections):
            pass
        yield from in_threads(lambda trial_id: self._offer(ledger, trial_id), trial_ids, self.store.connections)

    def _bench(self, ledger: Ledger, run: str) -> None:
        """Write the MLflow run of a bench process."""
        launch = ledger.launches[run]
        stored = self._begin(run, BENCH, f"bench {run}", int(launch.time * 1000), {BENCH: run})
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "launch.json"
            file.write_text(json.dumps({"kind": "launched", "time": launch.time, **launch.to_json()}), encoding="utf-8")
            self.store.put(stored, file)
        for key in queries_keys(launch):
            if (file := artifacts.queries_path(self.home, key)).is_file():
                self.store.put(stored, file, "queries")
        self.store.end(stored.id, "FINISHED")
        self.store.log(stored.id, {}, [], {COMPLETE: "true"})
        self.parents[run] = stored.id

    def show(self, run: str, page: BenchPage) -> bool:
        """Write the page of a mirrored bench; False if its run is not here, or shows this report already."""
        found = [one for one in self.store.runs(self.experiment, f"tags.`{BENCH}` = '{run}'") if COMPLETE in one.tags]
        if not found or found[0].tags.get(REPORT) == page.report:
            return False
        for file in page.files:
            self.store.put(found[0], file, "report")
        if page.inputs:
            self.store.log_inputs(found[0].id, page.inputs)
        for points in mlflow_run.batches(page.metrics):
            self.store.log(found[0].id, {}, points, {})
        self.store.log(found[0].id, {}, [], {NOTE: page.note, REPORT: page.report})  # last: the page is whole
        return True

    def _offer(self, ledger: Ledger, trial_id: str) -> None:
        """Write one ended trial; one that the store refuses must not keep the others."""
        try:
            self._trial(ledger, trial_id)
        except Refused as error:
            _active(self.store.experiment(EXPERIMENT), self.uri)  # one that was deleted meanwhile refuses all trials
            self.refused[trial_id] = str(error)

    def _trial(self, ledger: Ledger, trial_id: str) -> None:
        """Write one ended trial. Its end comes last: a run without it is written again.

        Of a trial that is written already, its places are completed, or its whole run is replaced.
        """
        old = self.whole.get(trial_id)
        if old is not None and not self._replaced(ledger, trial_id, old):
            places = [*(mlflow_run.places_of(old.tags) or ()), *self._missing(ledger, trial_id, old)]
            tags = mlflow_run.place_tags(places)
            self.store.log(old.id, {}, [], tags)
            self.whole[trial_id] = replace(old, tags={**old.tags, **tags})
            return
        content = mlflow_run.content(ledger, trial_id)
        files, large = mlflow_run.files_of(self.home, trial_id)
        text = json.dumps(content.record)
        parent = self.parents.get(ledger.trials[trial_id].run)
        tags = content.tags | ({PARENT: parent} if parent else {})
        with tempfile.TemporaryDirectory() as scratch:
            if (record := mlflow_run.record_tags(text)) is None:
                file = Path(scratch) / RECORD_FILE
                file.write_text(text, encoding="utf-8")
                files.append(file)
            bundle = Path(scratch) / BUNDLE
            added = record or {}
            if files:
                added |= {FILES: json.dumps(mlflow_run.pack(files, bundle))}
            resumed = trial_id in self.begun
            run = self._begin(trial_id, TRIAL, content.name, content.began, tags | added)
            for file in [bundle, *large] if files else large:
                self.store.put(run, file)
        *first, last = mlflow_run.batches(content.metrics)
        for points in first:
            self.store.log(run.id, {}, points, {})
        # tags come last in a call: they complete a run of an earlier version that has its end already
        self.store.log(run.id, content.params, last, tags | added if resumed else {})
        self.store.end(run.id, content.status, content.ended)
        self.whole[trial_id] = _slim(replace(run, status=content.status, tags=content.tags))
        if old is not None:
            self.store.delete(old.id)

    def _begin(self, name: str, tag: str, title: str, start: int, tags: dict[str, str]) -> StoredRun:
        """Return the begun run of a trial or bench, or create it."""
        if name not in self.begun:
            run, repeated = self.store.create_run(self.experiment, title, start, tags)
            self.begun[name] = run
            if repeated:  # the first call may have been carried out although its answer was lost
                for other in self.store.runs(self.experiment, f"tags.`{tag}` = '{name}'"):
                    if other.id != run.id:
                        self.store.delete(other.id)
        return self.begun[name]


def _slim(run: StoredRun) -> StoredRun:
    """A run with the tags that `Tracker.lacks` reads: the records of all trials would fill the memory."""
    places, best = mlflow_run.places_of(run.tags), mlflow_run.best_of(run.tags)
    tags = {key: run.tags[key] for key in (COMPLETE, PARENT) if key in run.tags}
    tags |= {} if places is None else mlflow_run.place_tags(places)
    return replace(run, tags=tags if best is None else tags | {mlflow_run.BEST: repr(best)})


def _store(uri: str, mend: bool) -> Store:
    if uri.startswith(("http://", "https://")):
        from harness.record import mlflow_rest

        if mlflow_rest.serves():
            return mlflow_rest.RestStore(uri, mlflow_client.MlflowArtifacts(uri))
    return mlflow_client.ClientStore(uri, mend=mend)


def _created(store: Store, location: str | None) -> tuple[str, bool] | None:
    """Create the experiment, unless another process does at the same time; return it as `Store.experiment`."""
    try:
        return store.create_experiment(EXPERIMENT, location), True
    except Exception:
        if (found := store.experiment(EXPERIMENT)) is None:
            raise
        return found


def _active(found: tuple[str, bool] | None, uri: str) -> str:
    """Return the id of an experiment. Raises HarnessError if there is none or it was deleted: MLflow then keeps it, but
    accepts no runs and does not release its name."""
    if found is None:
        raise HarnessError(f"MLflow at {redact(uri)} has no experiment '{EXPERIMENT}'; `harness sync` writes it.")
    experiment, active = found
    if active:
        return experiment
    raise HarnessError(
        f"MLflow at {redact(uri)} has deleted the experiment '{EXPERIMENT}'. Restore it, with "
        f"MLFLOW_TRACKING_URI={redact(uri)} mlflow experiments restore --experiment-id {experiment}, "
        "or name another store with --tracking."
    )


class RefusedTrials(HarnessError):
    """The store does not take some trials; all others are written."""


def refusal(uri: str, ledger: Ledger, refused: Mapping[str, str]) -> str:
    """Return one line on trials that a store refuses; `refused`: why, by trial."""
    some = [f"{i} of {ledger.trials[i].trial.cell} ({why})" for i, why in list(refused.items())[:LISTED]]
    rest = f" and {len(refused) - LISTED} more" if len(refused) > LISTED else ""
    what = "1 trial" if len(refused) == 1 else f"{len(refused)} trials"
    return f"MLflow at {redact(uri)} refuses {what}: {'; '.join(some)}{rest}."


def sync(uri: str, home: Path, ledger: Ledger, log: Callable[[str], None] = lambda _: None) -> int:
    """Mirror the launches and ended trials that the store lacks; return the number of trials.

    Raises RefusedTrials, once all others are written, if the store does not take some, and HarnessError if it cannot be
    reached.
    """
    try:
        tracker = Tracker(uri, home, mend=True)
        tracker.look()
        missing = [i for i, e in ledger.trials.items() if e.status is not None and tracker.lacks(ledger, i)]
        # also launches without trials, which decide the state of skipped cells
        for number, trial_id in enumerate(tracker.write(ledger, missing, list(ledger.launches)), 1):
            log(f"[{number}/{len(missing)}] {ledger.trials[trial_id].trial.cell}")
        if tracker.refused:
            raise RefusedTrials(f"{refusal(uri, ledger, tracker.refused)} All others are written.")
        return len(missing)
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} refused the data: {first_line(error)}") from error


def show(uri: str, home: Path, run: str, page: BenchPage) -> bool:
    """Write the page of a bench to its MLflow run, as `Tracker.show`. Raises HarnessError if the store refuses."""
    try:
        return Tracker(uri, home, make=False).show(run, page)
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} refused the report: {first_line(error)}") from error


def queries_keys(launch: LaunchRecord) -> list[str]:
    """Return the keys of the target facts of a launch's data sets, one a fold."""
    parts = launch.protocol.parts
    return [artifacts.queries_key(card["hash"], one.identity()) for card in launch.data.values() for one in parts]


def read(uri: str, home: Path) -> tuple[Ledger, ArtifactSources]:
    """Rebuild a ledger and readers of its files from MLflow only.

    Raises HarnessError if the store cannot be read or contains no mirror.
    """
    check_readable(uri)
    try:
        return _read(uri, home)
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} cannot be read: {first_line(error)}") from error


def _read(uri: str, home: Path) -> tuple[Ledger, ArtifactSources]:
    tracker = Tracker(uri, home, make=False)
    store, ledger, facts_in = tracker.store, Ledger(), {}  # key of target facts -> run of a bench
    runs = store.runs(tracker.experiment)
    benches = {run.tags[BENCH]: run for run in runs if BENCH in run.tags and COMPLETE in run.tags}
    trials = {run.tags[TRIAL]: run for run in runs if TRIAL in run.tags and mlflow_run.is_complete(run)}
    with ThreadPoolExecutor(store.connections) as pool:
        launches = pool.map(lambda run: store.get(run, "launch.json"), benches.values())
        records = pool.map(lambda run: record_of(store, run), trials.values())
    for (name, run), event in zip(benches.items(), launches, strict=True):
        ledger.take(name, json.loads(event))
        facts_in |= dict.fromkeys(queries_keys(ledger.launches[name]), run)
    decided: list[Json] = []
    for (trial_id, run), record in zip(trials.items(), records, strict=True):
        places = mlflow_run.places_of(run.tags)
        _replay(ledger, trial_id, record, record["places"] if places is None else places)
        decided += record.get("decided", ())  # none in records of earlier versions
    _decide(ledger, decided)
    files = MirroredFiles(store, uri, trials)

    def prefetch(trial_ids: Sequence[str]) -> None:
        files.begin([i for i in trial_ids if i in ledger.trials and ledger.trials[i].status == "done"])

    return ledger, ArtifactSources(
        lambda trial_id: files.of_trial(trial_id, RANKS),
        lambda key: files.load(facts_in.get(key), f"queries/{key}.parquet", pl.read_parquet),
        lambda trial_id: files.of_trial(trial_id, SPECTRUM),
        tracker.page,
        prefetch,
    )


def _replay(ledger: Ledger, trial_id: str, record: Json, places: Sequence[tuple[str, int]]) -> None:
    event = {"kind": "started", "id": trial_id, "trial": record["trial"], "time": record["time"]}
    for study, number in places or [("", 0)]:
        ledger.take(record["run"], {**event, "study": study, "number": number})
    for _ in range(record["opened"]):
        ledger.take(record["run"], {"kind": "opened", "id": trial_id})
    ended = {"kind": "ended", "id": trial_id, "result": record["result"], "time": record["ended"]}
    ledger.take(record["run"], ended)


def _decide(ledger: Ledger, events: Sequence[Json]) -> None:
    """Take the decisions on winners, each of which stands in the record of every confirmation of its row."""
    for at, study, trials, winner in sorted({(e["time"], e["study"], e["trials"], e["winner"]) for e in events}):
        ledger.take("", {"kind": "decided", "time": at, "study": study, "trials": trials, "winner": winner})

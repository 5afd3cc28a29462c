"""The MLflow mirror of the ledger; the only module that imports MLflow. Writes ended trials and reads them back.

There is one MLflow run per trial, nested under one run per bench process. Runs are found by tags, so mirroring twice
changes nothing and a partly written run is completed under its id. An outage causes one warning; `sync` catches up
from the ledger.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from harness import registry
from harness.record import artifacts
from harness.record.artifacts import ArtifactSources
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger, TrialEntry
from harness.record.tracking_uri import damage, default_uri, first_line, redact, runs_page
from harness.system import checksums
from harness.types import HarnessError, Json

# One call to a dead server would otherwise block for minutes (7 retries with back-off).
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # a 429 may ask for an hour; we retry later
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results

__all__ = ["Tracker", "damage", "default_uri", "first_line", "read", "redact", "runs_page", "save_model", "sync"]

EXPERIMENT = "harness"
CONNECTIONS = 4  # concurrent calls to a server, as many as its default workers; a local SQLite file gets one
TRIAL, BENCH, COMPLETE, PARENT = "harness.trial", "harness.run", "harness.complete", "mlflow.parentRunId"
SERVED = ("mlflow", "numpy", "safetensors", "torch")  # packages that a saved model needs
SCRIPT = """import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from harness.training import exported_model


class Recommend(PythonModel):
    # rows of `history`, lists of item ids, and of `times` where the model reads them; a dict a row comes back

    def load_context(self, context):
        self.model = exported_model.load(context.artifacts["export"])

    def predict(self, context, model_input: pd.DataFrame, params=None):
        histories = [list(history) for history in model_input["history"]]
        times = [list(row) for row in model_input["times"]] if "times" in model_input else None
        return [vars(answer) for answer in self.model.recommend(histories, (params or {}).get("k", 10), times)]


set_model(Recommend())
"""
RANKS, SPECTRUM = "ranks.parquet", "spectrum.json"
_PARSERS: dict[str, Callable[[bytes], Any]] = {RANKS: artifacts.parse_ranks, SPECTRUM: artifacts.parse_spectra}
_STATUS = {"done": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}


def metric_name(name: str) -> str:
    """MLflow refuses `@` in metric names.

    >>> metric_name("NDCG@10")
    'NDCG_at_10'
    """
    return name.replace("@", "_at_")


class Tracker:
    """A connection to one MLflow store. Every method may raise any exception of MLflow.

    `mend`: quarantine a damaged SQLite file, so that the mirror is rebuilt. `make`: create the experiment if it does
    not exist. Raises HarnessError if the experiment does not exist (without `make`) or was deleted.
    """

    def __init__(self, uri: str, home: Path, *, mend: bool = False, make: bool = True) -> None:
        from mlflow import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        local = uri.startswith("sqlite:///")
        if local:
            Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
            if mend and (why := damage(uri)):
                checksums.set_aside(Path(uri.removeprefix("sqlite:///")), f"{why}; it will be rebuilt from the ledger")
        self.client, self.uri = MlflowClient(tracking_uri=uri), uri
        self.connections = 1 if local else CONNECTIONS
        self._places: dict[str, str] = {}  # MLflow run -> URI of its artifacts
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            if not make:
                raise HarnessError(
                    f"MLflow at {redact(uri)} has no experiment '{EXPERIMENT}'; `harness sync` writes it."
                )
            location = (home / "mlflow" / "artifacts").as_uri() if local else None
            self.experiment = self.client.create_experiment(EXPERIMENT, artifact_location=location)
        else:
            self.experiment = _active(experiment, uri)
        self.home = home
        self.page = runs_page(uri, self.experiment)
        self.parents: dict[str, str] = {}
        self.begun: dict[str, str] = {}  # trial -> its partly written MLflow run

    def runs(self, tag: str) -> list[Any]:
        """Return all runs of the experiment that have a tag."""
        runs, token = [], None
        while True:
            page = self.client.search_runs(
                [self.experiment], filter_string=f"tags.`{tag}` != ''", max_results=1000, page_token=token
            )
            runs += [self._noted(run) for run in page]
            token = page.token
            if not token:
                return runs

    def _noted(self, run: Any) -> Any:
        self._places[run.info.run_id] = run.info.artifact_uri
        return run

    def _files(self, run: str) -> Any:
        """Return the artifact repository of a run. The client would fetch the run first, one request for each."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(self._places[run], tracking_uri=self.uri)

    def _create(self, **what: Any) -> str:
        return self._noted(self.client.create_run(self.experiment, **what)).info.run_id

    def _put(self, run: str, name: str, value: Json) -> None:
        """Write a value as a JSON file of a run."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / name
            path.write_text(json.dumps(value), encoding="utf-8")
            self._files(run).log_artifact(str(path))

    def mirrored(self) -> set[str]:
        """Return the ids of completely mirrored trials. Runs left incomplete by a killed process or an outage are noted
        in `begun`; if two processes created runs of one trial, the later one is deleted."""
        complete: set[str] = set()
        for run in sorted(self.runs(TRIAL), key=lambda r: (COMPLETE not in r.data.tags, r.info.start_time)):
            trial_id = run.data.tags[TRIAL]
            if trial_id in complete or trial_id in self.begun:
                self.client.delete_run(run.info.run_id)
            elif COMPLETE in run.data.tags:
                complete.add(trial_id)
            else:
                self.begun[trial_id] = run.info.run_id
        return complete

    def parent(self, ledger: Ledger, run: str) -> str:
        """Return the MLflow run of a bench process; create or complete it if needed."""
        begun: dict[str, str] = {}
        if not self.parents:
            for existing in self.runs(BENCH):
                runs = self.parents if COMPLETE in existing.data.tags else begun
                runs[existing.data.tags[BENCH]] = existing.info.run_id
        if run not in self.parents:
            launch = ledger.launches[run]
            mlflow_run = begun.get(run) or self._create(
                start_time=int(launch.time * 1000), tags={BENCH: run}, run_name=f"bench {run}"
            )
            self._put(mlflow_run, "launch.json", {"kind": "launched", "time": launch.time, **launch.to_json()})
            for key in queries_keys(launch):
                if (file := artifacts.queries_path(self.home, key)).is_file():
                    self._files(mlflow_run).log_artifact(str(file), "queries")
            self.client.set_terminated(mlflow_run)
            self.client.set_tag(mlflow_run, COMPLETE, "true")
            self.parents[run] = mlflow_run
        return self.parents[run]

    def mirror(self, ledger: Ledger, trial_id: str) -> None:
        """Write one ended trial: parameters, per-epoch and final metrics, artifacts."""
        from mlflow.entities import Metric, Param, RunTag

        entry = ledger.trials[trial_id]
        trial, result = entry.trial, entry.result
        assert result is not None
        tags = {TRIAL: trial_id, PARENT: self.parent(ledger, entry.run), "harness.role": trial.role}
        tags |= {f"harness.{key}": value for key, value in vars(trial.cell).items()}
        began, ended = int(entry.time * 1000), int(max(entry.ended, entry.time) * 1000)
        name = f"{trial.cell.adapter} {trial.cell.backbone} {trial.cell.dataset} {trial.role} {trial_id[:6]}"
        run = self.begun.get(trial_id) or self._create(start_time=began, tags=tags, run_name=name)
        self.begun[trial_id] = run  # the store ignores points that it already has: same step, time and value
        params = {**trial.params, "seed": trial.seed, "epochs": trial.epochs, **vars(trial.cell)}
        metrics = [Metric("epoch/NDCG_at_10", value, began, step) for step, value in enumerate(result.curve)]
        for group in ("valid", "test", "info"):
            values = getattr(result, group).items()
            metrics += [Metric(f"{group}/{metric_name(key)}", float(value), ended, 0) for key, value in values]
        pairs = [Param(key, str(value)[:6000]) for key, value in params.items()]
        self._artifacts(run, ledger, entry)
        self.client.set_terminated(run, _STATUS[result.status], end_time=ended)
        for at in range(0, max(len(metrics), 1), 800):  # a call takes 1,000 entries
            last = [RunTag(COMPLETE, "true")] if at + 800 >= len(metrics) else []
            # the store writes the tags of a call last: a run without this one is written again
            self.client.log_batch(run, metrics[at : at + 800], pairs if at == 0 else [], last)

    def _artifacts(self, run: str, ledger: Ledger, entry: TrialEntry) -> None:
        result = entry.result
        assert result is not None
        record = {
            "trial": entry.trial.to_json(),
            "result": asdict(result),
            "places": ledger.places(entry.trial.id),
            "opened": ledger.opened.get(entry.trial.id, 0),
            "run": entry.run,
            "time": entry.time,
            "ended": entry.ended,
        }
        self._put(run, "trial.json", record)
        folder = artifacts.artifact_folder(self.home, entry.trial.id)
        for file in sorted(folder.glob("[!.]*")):
            self._files(run).log_artifact(str(file))

    def has(self, run: str, file: str) -> bool:
        folder = file.rpartition("/")[0] or None
        return any(artifact.path == file for artifact in self._files(run).list_artifacts(folder))

    def records(self, tag: str, file: str, pool: ThreadPoolExecutor) -> list[tuple[str, str, Future[bytes]]]:
        """Begin to read a file of every complete run with a tag; return the tag's value, the run and the read."""
        complete = [run for run in self.runs(tag) if COMPLETE in run.data.tags]
        ids = [(run.data.tags[tag], run.info.run_id) for run in complete]
        return [(value, run, pool.submit(self.load, run, file)) for value, run in ids]

    def load(self, run: str, file: str) -> bytes:
        """Return the content of a file. One request: `download_artifacts` would list its folder first."""
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "file"
            self._files(run)._download_file(file, str(path))
            return path.read_bytes()


def _active(experiment: Any, uri: str) -> str:
    """Return the id of an experiment. Raises HarnessError if it was deleted: MLflow then keeps it, but accepts no runs
    and does not release its name."""
    if experiment.lifecycle_stage == "active":
        return experiment.experiment_id
    raise HarnessError(
        f"MLflow at {redact(uri)} has deleted the experiment '{EXPERIMENT}'. Restore it, with "
        f"MLFLOW_TRACKING_URI={redact(uri)} mlflow experiments restore --experiment-id {experiment.experiment_id}, "
        "or name another store with --tracking."
    )


def sync(uri: str, home: Path, ledger: Ledger, log: Callable[[str], None] = lambda _: None) -> int:
    """Mirror the launches and ended trials that the store lacks; return the number of trials.

    Raises HarnessError if the store cannot be reached.
    """
    try:
        tracker = Tracker(uri, home, mend=True)
        here = tracker.mirrored()
        missing = [i for i, e in ledger.trials.items() if e.status is not None and i not in here]
        for run in sorted(ledger.launches):  # also those without trials, which decide the state of skipped cells
            tracker.parent(ledger, run)
        with ThreadPoolExecutor(tracker.connections) as pool:
            writes = [pool.submit(tracker.mirror, ledger, trial_id) for trial_id in missing]
            try:
                for number, (trial_id, write) in enumerate(zip(missing, writes, strict=True), 1):
                    write.result()
                    log(f"[{number}/{len(missing)}] {ledger.trials[trial_id].trial.cell}")
            finally:
                pool.shutdown(cancel_futures=True)
        return len(missing)
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} refused the data: {first_line(error)}") from error


def queries_keys(launch: LaunchRecord) -> list[str]:
    """Return the keys of the target facts of a launch's data sets, one a fold."""
    parts = launch.protocol.parts
    return [artifacts.queries_key(card["hash"], one.identity()) for card in launch.data.values() for one in parts]


def read(uri: str, home: Path) -> tuple[Ledger, ArtifactSources]:
    """Rebuild a ledger and readers of its files from MLflow only.

    Raises HarnessError if the store cannot be read or contains no mirror.
    """
    local = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not local.is_file():
        raise HarnessError(f"There is no MLflow store at {uri}.")
    if why := damage(uri):
        raise HarnessError(f"{uri.removeprefix('sqlite:///')} is damaged ({why}); `harness sync` rebuilds it.")
    try:
        tracker = Tracker(uri, home, make=False)
        ledger, runs, facts_in = Ledger(), {}, {}  # trial -> run; key of target facts -> run
        with ThreadPoolExecutor(tracker.connections) as pool:
            for name, run, event in tracker.records(BENCH, "launch.json", pool):
                ledger.take(name, json.loads(event.result()))
                facts_in |= dict.fromkeys(queries_keys(ledger.launches[name]), run)
            for trial_id, run, record in tracker.records(TRIAL, "trial.json", pool):
                runs[trial_id] = run
                _replay(ledger, trial_id, json.loads(record.result()))
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} cannot be read: {first_line(error)}") from error

    def load(run: str | None, file: str, parse: Callable[[bytes], Any]) -> Any:
        """Read a file of a run; None if the run or file does not exist or the file is damaged."""
        try:
            if run is None or not tracker.has(run, file):
                return None
            return parse(tracker.load(run, file))
        except pl.exceptions.PolarsError:
            return None
        except Exception as error:
            raise HarnessError(f"MLflow at {redact(uri)} cannot be read: {first_line(error)}") from error

    begun: dict[tuple[str, str], Future[Any]] = {}  # reads of trials' files by trial and file

    def of_trial(trial_id: str, file: str) -> Any:
        if (read := begun.pop((trial_id, file), None)) is not None:
            return read.result()
        return load(runs.get(trial_id), file, _PARSERS[file])

    def prefetch(trial_ids: Sequence[str]) -> None:
        with_files = [i for i in trial_ids if i in ledger.trials and ledger.trials[i].status == "done"]
        pool = ThreadPoolExecutor(tracker.connections)
        for file in _PARSERS:
            begun.update({(i, file): pool.submit(load, runs.get(i), file, _PARSERS[file]) for i in with_files})
        pool.shutdown(wait=False)

    return ledger, ArtifactSources(
        lambda trial_id: of_trial(trial_id, RANKS),
        lambda key: load(facts_in.get(key), f"queries/{key}.parquet", pl.read_parquet),
        lambda trial_id: of_trial(trial_id, SPECTRUM),
        tracker.page,
        prefetch,
    )


def save_model(folder: Path, export: Path) -> None:
    """An MLflow model of an export folder: code and safetensors, nothing pickled, with the code it needs beside it.

    Raises HarnessError if MLflow does not write it.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array, DataType

    inputs = Schema([ColSpec(Array(DataType.string), "history"), ColSpec(Array(DataType.double), "times", False)])
    parameters = ParamSchema([ParamSpec("k", DataType.long, 10)])
    code_paths = [str(registry.folder_of(package)) for package in ("harness", "adapters", "backbones")]
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "recommend.py"
        script.write_text(SCRIPT, encoding="utf-8")
        try:
            with warnings.catch_warnings(action="ignore"):
                mlflow.pyfunc.save_model(
                    str(folder),
                    python_model=str(script),
                    artifacts={"export": str(export)},
                    code_paths=code_paths,
                    signature=ModelSignature(inputs, params=parameters),
                    pip_requirements=[f"{name}=={metadata.version(name)}" for name in SERVED],
                )
        except Exception as error:
            raise HarnessError(f"MLflow did not write {folder}: {first_line(error)}") from error


def _replay(ledger: Ledger, trial_id: str, record: Json) -> None:
    event = {"kind": "started", "id": trial_id, "trial": record["trial"], "time": record["time"]}
    for study, number in record["places"] or [("", 0)]:
        ledger.take(record["run"], {**event, "study": study, "number": number})
    for _ in range(record["opened"]):
        ledger.take(record["run"], {"kind": "opened", "id": trial_id})
    ended = {"kind": "ended", "id": trial_id, "result": record["result"], "time": record["ended"]}
    ledger.take(record["run"], ended)

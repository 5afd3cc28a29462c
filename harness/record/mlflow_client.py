"""MLflow's own client and model format; the only module that imports MLflow.

The client serves local stores, servers that need a plugin of MLflow, and artifacts that do not go through a server.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from harness import overlay, registry
from harness.overlay import Overlay
from harness.record import local_store
from harness.record.mlflow_run import (
    CONTEXT,
    EXPERIMENT,
    REFUSED,
    SOURCE,
    TRIAL,
    DatasetInput,
    Point,
    Refused,
    Span,
    StoredRun,
)
from harness.record.tracking_uri import check, check_readable, first_line, redact
from harness.system import accounts
from harness.types import HarnessError

accounts.ensure_home()
# One call to a dead server would otherwise block for minutes (7 retries with back-off).
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # a 429 may ask for an hour; we retry later
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # stdout is for results

SERVED = ("mlflow", "numpy", "safetensors", "torch")  # packages that a saved model needs
SCRIPT = """import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from harness import overlay, registry
from harness.training import exported_model


class Recommend(PythonModel):
    # rows of `history`, lists of item ids, and of `times` where the model reads them; a dict a row comes back

    def load_context(self, context):
        if place := context.artifacts.get("components"):
            with open(place, encoding="utf-8") as file:
                registry.add(overlay.loads(file.read(), place))
        self.model = exported_model.load(context.artifacts["export"])

    def predict(self, context, model_input: pd.DataFrame, params=None):
        histories = [list(history) for history in model_input["history"]]
        times = [list(row) for row in model_input["times"]] if "times" in model_input else None
        return [vars(answer) for answer in self.model.recommend(histories, (params or {}).get("k", 10), times)]


set_model(Recommend())
"""


class MlflowArtifacts:
    """Artifacts of runs wherever MLflow can read and write them."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def put(self, run: StoredRun, file: Path, folder: str = "") -> None:
        self._repository(run).log_artifact(str(file), folder or None)

    def has(self, run: StoredRun, name: str) -> bool:
        found = self._repository(run).list_artifacts(name.rpartition("/")[0] or None)
        return any(artifact.path == name for artifact in found)

    def get(self, run: StoredRun, name: str, span: Span | None = None) -> bytes:
        start, size = span or (0, -1)
        with tempfile.TemporaryDirectory() as scratch:
            if run.place.startswith("file:"):
                path = Path(url2pathname(urlsplit(run.place).path)) / name
            else:  # one request: `download_artifacts` would list the folder first
                path = Path(scratch) / "file"
                self._repository(run)._download_file(name, str(path))
            with open(path, "rb") as stream:
                stream.seek(start)
                return stream.read(size)

    def _repository(self, run: StoredRun) -> Any:
        """Return the repository of a run. MLflow's client would fetch the run first, one request for each."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        return get_artifact_repository(run.place, tracking_uri=self.uri)


class ClientStore(MlflowArtifacts):
    """A store behind MLflow's client, with the methods of `mlflow_rest.RestStore`. Raises any exception of MLflow."""

    def __init__(self, uri: str, *, mend: bool = False) -> None:
        super().__init__(uri)
        self.client = _client(uri, mend=mend)
        self.connections = 1 if uri.startswith("sqlite:") else 4  # SQLite has one writer

    def experiment(self, name: str) -> tuple[str, bool] | None:
        found = self.client.get_experiment_by_name(name)
        return None if found is None else (found.experiment_id, found.lifecycle_stage == "active")

    def create_experiment(self, name: str, location: str | None) -> str:
        return self.client.create_experiment(name, artifact_location=location)

    def runs(self, experiment: str, condition: str = "") -> list[StoredRun]:
        runs, token = [], None
        while True:
            page = self.client.search_runs([experiment], condition, max_results=1000, page_token=token)
            runs += map(_stored, page)
            if not (token := page.token):
                return runs

    def create_run(self, experiment: str, name: str, start: int, tags: Mapping[str, str]) -> tuple[StoredRun, bool]:
        with _content():
            return _stored(self.client.create_run(experiment, start, dict(tags), name)), False

    def log(self, run: str, params: Mapping[str, str], metrics: Sequence[Point], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [Metric(point.key, point.value, point.time, point.step) for point in metrics]
        with _content():
            self.client.log_batch(run, points, [Param(*p) for p in params.items()], [RunTag(*t) for t in tags.items()])

    def log_inputs(self, run: str, inputs: Sequence[DatasetInput]) -> None:
        from mlflow import entities

        found = []
        for one in inputs:
            source, profile = json.dumps(one.source), json.dumps(one.profile)
            data = entities.Dataset(one.name, one.digest, SOURCE, source, profile=profile)
            found.append(entities.DatasetInput(data, [entities.InputTag(CONTEXT, one.context)]))
        self.client.log_inputs(run, found)

    def end(self, run: str, status: str, time: int | None = None) -> None:
        self.client.set_terminated(run, status, time)

    def delete(self, run: str) -> None:
        self.client.delete_run(run)


@contextmanager
def _content() -> Iterator[None]:
    """Raise Refused if MLflow does not take the content of a call."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.get_http_status_code() not in REFUSED:
            raise
        raise Refused(first_line(error)) from error


def _stored(run: Any) -> StoredRun:
    info = run.info
    return StoredRun(info.run_id, info.artifact_uri, info.status, info.start_time, run.data.tags)


def _client(uri: str, *, mend: bool = False) -> Any:
    """Return MLflow's client of a store. Raises HarnessError if a password would be sent unencrypted, and as
    `local_store.prepare`."""
    from mlflow import MlflowClient
    from mlflow.store.db.utils import _get_latest_schema_revision

    check(uri)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if (file := local_store.path_of(uri)) is not None:
        local_store.prepare(file, _get_latest_schema_revision(), _migrate, mend=mend)
    return MlflowClient(tracking_uri=uri)


def _migrate(uri: str) -> None:
    """Let MLflow write its tables to a local store, and close it. Raises any exception of MLflow."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH).engine.dispose()


def save_model(folder: Path, export: Path, own: Overlay) -> None:
    """An MLflow model of an export folder: code and safetensors, nothing pickled, with the code it needs beside it.

    `own`: its components from outside harness; the model holds their source and requires the packages they import.
    Raises HarnessError if MLflow does not write it.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, Array, DataType

    # MLflow takes no whole numbers for an array of doubles, and no fractions for one of whole numbers
    inputs = Schema([ColSpec(Array(DataType.string), "history"), ColSpec(AnyType(), "times", False)])
    parameters = ParamSchema([ParamSpec("k", DataType.long, 10)])
    code_paths = [str(registry.folder_of(package)) for package in ("harness", "adapters", "backbones")]
    # without the local label of a build (`+cpu`), which no index has
    needed = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in SERVED]
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "recommend.py"
        script.write_text(SCRIPT, encoding="utf-8")
        artifacts = {"export": str(export)}
        if own.components:
            source = Path(scratch) / "components.json"
            source.write_text(overlay.dumps(own), encoding="utf-8")
            artifacts["components"] = str(source)
        try:
            with warnings.catch_warnings(action="ignore"):
                mlflow.pyfunc.save_model(
                    str(folder),
                    python_model=str(script),
                    artifacts=artifacts,
                    code_paths=code_paths,
                    signature=ModelSignature(inputs, params=parameters),
                    pip_requirements=sorted({*needed, *own.packages()}),
                )
        except Exception as error:
            raise HarnessError(f"MLflow did not write {folder}: {first_line(error)}") from error


def mirrored_run(uri: str, trial_id: str) -> Any:
    """Return the MLflow run of a mirrored trial.

    Raises HarnessError if there is no such store, it is away or does not have the trial, or if a password would be sent
    unencrypted.
    """
    check_readable(uri)
    with _refusals(uri):
        client = _client(uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        found = client.search_runs([experiment.experiment_id], f"tags.`{TRIAL}` = '{trial_id}'") if experiment else []
    if not found:
        raise HarnessError(f"MLflow at {redact(uri)} does not have trial {trial_id}; `harness sync` writes it.")
    return found[0]


def log_model(uri: str, trial_id: str, name: str, folder: Path) -> str:
    """Log the model in `folder` (`save_model`) as a LoggedModel of a mirrored trial's run; return its id.

    Raises HarnessError as `mirrored_run`, and if the store refuses the model.
    """
    from mlflow.entities import LoggedModelOutput

    run, tags = mirrored_run(uri, trial_id), {TRIAL: trial_id}
    with _refusals(uri):
        client, info = _client(uri), run.info
        model = client.create_logged_model(info.experiment_id, name, info.run_id, tags, run.data.params, "harness")
        client.log_model_artifacts(model.model_id, str(folder))
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(info.run_id, [LoggedModelOutput(model.model_id, 0)])
        return model.model_id


@contextmanager
def _refusals(uri: str) -> Iterator[None]:
    """Raise every exception of a store as HarnessError."""
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        raise HarnessError(f"MLflow at {redact(uri)} refused the model: {first_line(error)}") from error

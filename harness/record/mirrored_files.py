"""Read records, ranks and spectra of trials back from the MLflow mirror."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from harness.record import artifacts, mlflow_run
from harness.record.artifacts import RANKS
from harness.record.mlflow_run import BUNDLE, FILES, RECORD_FILE, SPECTRUM, TRIAL, StoredRun
from harness.record.tracking_uri import first_line, redact
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    from harness.record.tracking import Store

_PARSERS: dict[str, Callable[[bytes], Any]] = {RANKS: artifacts.parse_ranks, SPECTRUM: artifacts.parse_spectra}
T = TypeVar("T")


class MirroredFiles:
    """Files of mirrored runs, read ahead over all connections of the store."""

    def __init__(self, store: Store, uri: str, trials: Mapping[str, StoredRun]) -> None:
        self._store, self._uri, self._trials = store, uri, trials
        self._begun: dict[tuple[str, str], Future[dict[str, Any]]] = {}  # by trial and file

    def begin(self, trial_ids: Sequence[str]) -> None:
        """Begin to read ranks and spectra of trials."""
        pool = ThreadPoolExecutor(self._store.connections)
        for trial_id in trial_ids:
            if run := self._trials.get(trial_id):
                self._begun |= dict.fromkeys(((trial_id, file) for file in _PARSERS), pool.submit(self._of_table, run))
        pool.shutdown(wait=False)

    def of_trial(self, trial_id: str, file: str) -> Any:
        """Return a parsed file; None if the run or file does not exist or the file is damaged."""
        if (reading := self._begun.pop((trial_id, file), None)) is not None:
            return reading.result()[file]
        run = self._trials.get(trial_id)
        return self._of_table(run)[file] if run else None

    def _of_table(self, run: StoredRun) -> dict[str, Any]:
        """Read ranks and spectrum: one request, except for runs of earlier versions."""
        if FILES not in run.tags:
            return {file: self.load(run, file, parse) for file, parse in _PARSERS.items()}
        index = {file: span for file, span in mlflow_run.index_of(run.tags).items() if file in _PARSERS}
        start = min((start for start, _ in index.values()), default=0)
        stop = max((start + size for start, size in index.values()), default=0)
        content = self._guarded(lambda: self._store.get(run, BUNDLE, (start, stop - start))) if index else b""
        cut = {file: content[at - start : at - start + size] for file, (at, size) in index.items()}
        return {file: _parsed(cut[file], parse) if file in cut else None for file, parse in _PARSERS.items()}

    def load(self, run: StoredRun | None, file: str, parse: Callable[[bytes], Any]) -> Any:
        """Read an artifact of a run; None if the run or file does not exist or the file is damaged."""
        if run is None or not self._guarded(lambda: self._store.has(run, file)):
            return None
        return _parsed(self._guarded(lambda: self._store.get(run, file)), parse)

    def _guarded(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except Exception as error:
            raise HarnessError(f"MLflow at {redact(self._uri)} cannot be read: {first_line(error)}") from error


def _parsed(content: bytes, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(content)
    except pl.exceptions.PolarsError:
        return None


def record_of(store: Store, run: StoredRun) -> Json:
    """Return the record of a trial: from its tags, its bundle or, of an earlier version, its file."""
    try:
        if (record := mlflow_run.record_of(run.tags)) is not None:
            return record
        if span := mlflow_run.index_of(run.tags).get(RECORD_FILE):
            return json.loads(store.get(run, BUNDLE, span))
        return json.loads(store.get(run, RECORD_FILE))
    except json.JSONDecodeError as error:
        raise HarnessError(
            f"The MLflow run {run.id} of trial {run.tags[TRIAL]} has a damaged record ({error}); delete the run, then "
            "`harness sync` writes it."
        ) from error

"""The layout of a trial in MLflow: name, tags, parameters, metrics and the file bundle of its run.

The record from which a ledger is rebuilt is JSON in the tags `harness.record.1`, `.2`, ..., except for the trial's
places in searches, which are in the tag `harness.places` (earlier versions: in the record). Files of a confirmation are
one artifact, `files.zip`, without compression; the tag `harness.files` says where each file lies in it, so that a table
reads ranks and spectrum without the rest. Large files, but not those of tables, are artifacts of their own. Earlier
versions wrote every file, and `trial.json`, as an artifact.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.types import Json, digest

EXPERIMENT = "harness"
TRIAL, BENCH, PARENT = "harness.trial", "harness.run", "mlflow.parentRunId"
COMPLETE = "harness.complete"  # of benches, and of trials that earlier versions wrote
RECORD, FILES = "harness.record", "harness.files"
PLACES = "harness.places"  # where a trial stands in searches, which may grow after it was written
BEST = "harness.best"  # its best validation value: with another one, the trial was repeated
REPORT, NOTE = "harness.report", "mlflow.note.content"  # of benches; the second is the description on a run's page
CONTEXT, SOURCE = "mlflow.data.context", "harness"  # tag and type of source of a dataset input
RECORD_FILE, BUNDLE, SPECTRUM = "trial.json", "files.zip", "spectrum.json"
PART = 5000  # characters of a tag: the limit of older servers; today's is 8,000
LARGE = 1 << 20  # bytes; not every store can read a part of an artifact, so a bundle stays small
PLACED = 100  # places of a trial: 40 characters each
PARTS = 10  # a longer record is a file of the bundle
RUNNING = "RUNNING"
STATUS = {"done": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}

REFUSED = (400, 413, 422)  # HTTP status of a request whose content a server does not take
NAME, DATASET = 250, 500  # characters of the name of a metric or run, and of a data set

Span = tuple[int, int]  # offset and length, bytes


class Refused(Exception):
    """A store refuses what it was sent, and would do so again; one line."""


@dataclass(frozen=True)
class StoredRun:
    """A run as a store lists it. `place`: URI of its artifacts. `start`: milliseconds since the epoch."""

    id: str
    place: str
    status: str
    start: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Point:
    """A value of a metric. `time`: milliseconds since the epoch."""

    key: str
    value: float
    time: int
    step: int = 0


@dataclass(frozen=True)
class DatasetInput:
    """A data set or embedding that a run used. `digest`: its hash. `context`: `data` or `embedding`. `source`: where it
    comes from; `profile`: counts that MLflow shows."""

    name: str
    digest: str
    context: str
    source: Json
    profile: Json


@dataclass(frozen=True)
class BenchPage:
    """What MLflow shows of a bench: the files of its `report` (name of its folder), a `note` in Markdown, the headline
    metric of every row, data sets and embeddings."""

    report: str
    files: tuple[Path, ...]
    note: str
    metrics: list[Point]
    inputs: list[DatasetInput]


@dataclass(frozen=True)
class Content:
    """What MLflow shows of a trial, and its record. `began`, `ended`: milliseconds since the epoch."""

    name: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: list[Point]
    status: str
    began: int
    ended: int
    record: Json


def metric_name(*parts: str) -> str:
    """Join the parts of a metric's name by slashes. Characters that some MLflow refuses become underscores.

    >>> metric_name("test", "NDCG@10", "toy", "spectran[taylor=1] st:org/model")
    'test/NDCG_at_10/toy/spectran_taylor_1_ st_org_model'
    """
    admitted = (re.sub(r"[^\w.\- ]|^\.{0,2}$", "_", part.replace("@", "_at_")) for part in parts)
    return shortened("/".join(admitted), NAME)


def metric_names(group: str, names: Iterable[str]) -> dict[str, str]:
    """Return the metric's name of each of a group's names; a hash tells apart those that would be equal."""
    admitted = {name: metric_name(group, name) for name in names}
    times = Counter(admitted.values())
    return {
        name: metric if times[metric] == 1 else f"{metric[: NAME - 9]}_{digest(name)[:8]}"
        for name, metric in admitted.items()
    }


def shortened(text: str, length: int) -> str:
    """Cut a text that is too long; the hash of all of it keeps it distinct."""
    return text if len(text) <= length else f"{text[: length - 9]}_{digest(text)[:8]}"


def content(ledger: Ledger, trial_id: str) -> Content:
    """Return the content of the run of an ended trial."""
    entry = ledger.trials[trial_id]
    trial, result = entry.trial, entry.result
    assert result is not None
    cell = trial.cell
    began, ended = int(entry.time * 1000), int(max(entry.ended, entry.time) * 1000)
    metrics = [Point("epoch/NDCG_at_10", value, began, step) for step, value in enumerate(result.curve)]
    for group in ("valid", "test", "info"):
        values = getattr(result, group)
        metrics += [Point(name, float(values[key]), ended) for key, name in metric_names(group, values).items()]
    return Content(
        name=shortened(f"{cell.adapter} {cell.backbone} {cell.dataset} {trial.role} {trial_id[:6]}", NAME),
        tags={TRIAL: trial_id, "harness.role": trial.role}
        | {f"harness.{k}": v for k, v in vars(cell).items()}
        | place_tags(ledger.places(trial_id))
        | {BEST: repr(result.best)},
        params={
            key: str(value)[:6000]
            for key, value in {**trial.params, "seed": trial.seed, "epochs": trial.epochs, **vars(cell)}.items()
        },
        metrics=metrics,
        status=STATUS[result.status],
        began=began,
        ended=ended,
        record={
            "trial": trial.to_json(),
            "result": asdict(result),
            "places": ledger.places(trial_id),
            "opened": ledger.opened.get(trial_id, 0),
            "run": entry.run,
            "time": entry.time,
            "ended": entry.ended,
            "decided": _decided(ledger, trial_id) if trial.role == "confirm" else [],
        },
    )


def _decided(ledger: Ledger, trial_id: str) -> list[Json]:
    """The decisions that led to a confirmation: the launches before it chose among the trials ended by then."""
    entry = ledger.trials[trial_id]
    launch = ledger.launches.get(entry.run)  # None if its line is damaged
    studies = [study for study in launch.studies if study.cell == entry.trial.cell] if launch else []
    events = [event for study in studies for event in tuple(ledger.decisions.get(study.id, ()))]
    return [{key: event[key] for key in ("study", "trials", "winner", "time")} for event in events]


def record_tags(text: str) -> dict[str, str] | None:
    """Split a record, JSON in ASCII, over tags; None if it is too long.

    >>> list(record_tags("x" * 5001))
    ['harness.record.1', 'harness.record.2']
    """
    parts = [text[at : at + PART] for at in range(0, len(text), PART)]
    return {f"{RECORD}.{number}": part for number, part in enumerate(parts, 1)} if len(parts) <= PARTS else None


def record_of(tags: Mapping[str, str]) -> Json | None:
    """Return the record in the tags of a run, None if it is in a file. Raises ValueError if a part is missing."""
    parts = []
    while (part := tags.get(f"{RECORD}.{len(parts) + 1}")) is not None:
        parts.append(part)
    # what follows the record is left from an attempt whose record was longer
    return json.JSONDecoder().raw_decode("".join(parts))[0] if parts and RECORD_FILE not in index_of(tags) else None


def index_of(tags: Mapping[str, str]) -> dict[str, Span]:
    """Return where the files of a run lie in its bundle; empty if it has none."""
    return {name: (start, size) for name, (start, size) in json.loads(tags.get(FILES, "{}")).items()}


def places_of(tags: Mapping[str, str]) -> list[tuple[str, int]] | None:
    """Return the (study, number) pairs of a written trial; None if they are in a file of an earlier version."""
    found = json.loads(tags[PLACES]) if PLACES in tags else _recorded(tags).get("places")
    return None if found is None else [(study, number) for study, number in found]


def best_of(tags: Mapping[str, str]) -> float | None:
    """Return the best validation value of a written trial; None if it is in a file of an earlier version."""
    value = tags[BEST] if BEST in tags else _recorded(tags).get("result", {}).get("best")
    return None if value is None else float(value)


def _recorded(tags: Mapping[str, str]) -> Json:
    """The record in the tags of a run; empty if it is in a file or damaged."""
    try:
        return record_of(tags) or {}
    except json.JSONDecodeError:
        return {}


def place_tags(places: Sequence[tuple[str, int]]) -> dict[str, str]:
    """Return the tag of a trial's places; the first `PLACED`, which fit into it."""
    return {PLACES: json.dumps(places[:PLACED])}


def is_complete(run: StoredRun) -> bool:
    """Whether everything of a trial's run is written: its end is the last write."""
    if COMPLETE in run.tags:
        return True
    return run.status != RUNNING and (f"{RECORD}.1" in run.tags or RECORD_FILE in index_of(run.tags))


def files_of(home: Path, trial_id: str) -> tuple[list[Path], list[Path]]:
    """Return the files of a trial for its bundle, those of tables first, and those that are too large for it."""
    in_table = lambda file: file.name in (artifacts.RANKS, SPECTRUM)  # noqa: E731
    files = artifacts.artifact_folder(home, trial_id).glob("[!.]*")
    files = sorted(files, key=lambda file: (not in_table(file), file.name))
    large = [file for file in files if not in_table(file) and file.stat().st_size > LARGE]
    return [file for file in files if file not in large], large


def pack(files: Sequence[Path], bundle: Path) -> dict[str, Span]:
    """Write files into a ZIP archive without compression; return where each lies in it."""
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for file in files:
            archive.write(file, file.name)
        members = archive.infolist()
    with open(bundle, "rb") as stream:
        return {member.filename: (_start(stream, member.header_offset), member.file_size) for member in members}


def _start(archive: BinaryIO, header: int) -> int:
    """Return where the content of a file begins: after a header of 30 bytes, its name and an extra field."""
    archive.seek(header + 26)
    name, extra = struct.unpack("<HH", archive.read(4))
    return header + 30 + name + extra


def batches(metrics: Sequence[Point], size: int = 800) -> list[Sequence[Point]]:
    """Split metrics into calls, at least one; a call takes 1,000 entries."""
    return [metrics[at : at + size] for at in range(0, max(len(metrics), 1), size)]

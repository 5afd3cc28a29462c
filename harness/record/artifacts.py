"""Files of trials in a home folder: checkpoints while they run, artifacts when they end.

home/checkpoints/<trial>.checkpoint
home/artifacts/<trial>/{ranks.parquet, lists.parquet (if requested), spectrum.json, model.safetensors}
home/artifacts/<trial>/elsewhere.json  where the weights are, if `--artifacts` names a place
home/queries/<key>.parquet             facts about the test targets of a prepared data set under a protocol

A checkpoint is safetensors followed by their sha256; `seal.json` holds the checksums of artifacts.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl

from harness.metrics._ties import Ranks
from harness.metrics.lists._base import NOTHING, TopLists
from harness.paths import expanded
from harness.record import places
from harness.stats.folds import FOLD
from harness.system import checksums, parquet
from harness.system.files import GOES_ON, atomic, sha256, write_json
from harness.types import HarnessError, Json, Trial, digest

RANKS, WEIGHTS, SPECTRUM = "ranks.parquet", "model.safetensors", "spectrum.json"
QUERIES_VERSION = 1  # raise it when the recorded facts about test targets change
LISTS = "lists.parquet"
ELSEWHERE = "elsewhere.json"  # the files of a trial that lie in a place beside the home (`places`)
TIES_KEPT = 3  # core version from which ranks are stored as the bounds of ties; before, as their middle


FrameOf = Callable[[str], pl.DataFrame | None]


@dataclass(frozen=True)
class ArtifactSources:
    """Readers of a bench's files, each returning None if a file is missing: `ranks` and `spectra` by trial id,
    `queries` by `queries_key`. `page`: URL of the tracking server's page of runs. `prefetch`: called with the trials
    whose files will be read, so that a remote source can read several at once."""

    ranks: FrameOf
    queries: FrameOf = lambda key: None
    spectra: Callable[[str], dict[str, list[float]] | None] = lambda trial_id: None
    page: str | None = None
    prefetch: Callable[[Sequence[str]], None] = lambda trial_ids: None


def sources(home: Path) -> ArtifactSources:
    """Return the readers for a home folder."""
    return ArtifactSources(
        lambda trial_id: load_ranks(home, trial_id),
        lambda key: load_queries(home, key),
        lambda trial_id: load_spectra(home, trial_id),
    )


def check_home(home: Path) -> Path:
    """Create the home folder if needed and return its absolute path. Raises HarnessError if it is not writable."""
    home = _absolute(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}-{uuid4().hex[:8]}"  # containers share a home and their process ids
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HarnessError(
            f"The home folder {home} cannot be written ({error.strerror}); name another with --home or HARNESS_HOME."
        ) from error
    return home


def find_home(home: Path) -> Path:
    """Return the absolute path of the home folder without creating it. Raises HarnessError if it cannot be read."""
    home = _absolute(home)
    try:
        if home.exists():
            os.listdir(home)
    except OSError as error:
        raise HarnessError(
            f"The home folder {home} cannot be read ({error.strerror}); name another with --home or HARNESS_HOME."
        ) from error
    return home


def _absolute(home: Path) -> Path:
    try:
        return expanded(home).absolute()
    except HarnessError as error:
        raise HarnessError(f"The home folder {str(error).rstrip('.')}, with --home or HARNESS_HOME.") from error


def checkpoint_path(home: Path, trial_id: str) -> Path:
    return home / "checkpoints" / f"{trial_id}.checkpoint"


def artifact_folder(home: Path, trial_id: str) -> Path:
    return home / "artifacts" / trial_id


def save_checkpoint(home: Path, trial_id: str, data: bytes) -> bool:
    """Save a trial's state; False if the disk refuses it. The trial can continue; a crash then costs more time."""
    try:
        with atomic(checkpoint_path(home, trial_id)) as path:
            path.write_bytes(signed(data))
    except OSError:
        return False
    return True


def signed(state: bytes) -> bytes:
    """Return the content of a checkpoint: a trial's state and its sha256."""
    return state + hashlib.sha256(state).digest()


def state_of(content: bytes) -> bytes | None:
    """Return the state in a checkpoint, or None if it is damaged."""
    return content[:-32] if hashlib.sha256(content[:-32]).digest() == content[-32:] else None


def load_checkpoint(home: Path, trial_id: str) -> bytes | None:
    """Return a trial's state, or None if there is none; a damaged checkpoint is quarantined."""
    path = checkpoint_path(home, trial_id)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if (state := state_of(content)) is None:
        checksums.set_aside(path, "its checksum is wrong; the trial restarts")
    return state


def drop_checkpoint(home: Path, trial_id: str) -> None:
    checkpoint_path(home, trial_id).unlink(missing_ok=True)


def save_artifacts(
    home: Path,
    trial_id: str,
    *,
    users: np.ndarray,
    ranks: Ranks,
    spectra: dict[str, np.ndarray],
    weights: bytes,
    lists: TopLists | None = None,
    elsewhere: Json | None = None,
) -> None:
    """Write the non-empty artifacts of a finished trial and, last, their checksums. If the disk refuses one, the
    checksums are missing, which `check_artifacts` reports.

    elsewhere: file name -> what `Place.put` returned, for files that the worker has written to a place itself.
    """
    folder = artifact_folder(home, trial_id)
    try:
        for name in (checksums.SEAL, ELSEWHERE, *(elsewhere or {})):
            (folder / name).unlink(missing_ok=True)
        _write_artifacts(folder, users, ranks, spectra, weights)
        if elsewhere:
            write_json(folder / ELSEWHERE, elsewhere)
        (folder / LISTS).unlink(missing_ok=True)
        if lists is not None:
            with atomic(folder / LISTS) as path:
                lists_frame(users, lists).write_parquet(path)
        checksums.seal(folder)
    except (OSError, pl.exceptions.PolarsError):
        return


def check_artifacts(home: Path, trial_id: str) -> None:
    """Raise HarnessError if the artifacts of a trial were not written completely."""
    folder = artifact_folder(home, trial_id)
    if not (folder / checksums.SEAL).is_file():
        free = shutil.disk_usage(home).free
        raise HarnessError(f"{folder} could not be written; the disk has {free:,} bytes left. {GOES_ON}")


def _write_artifacts(
    folder: Path, users: np.ndarray, ranks: Ranks, spectra: dict[str, np.ndarray], weights: bytes
) -> None:
    if len(ranks):
        columns = {"user": users, "low": ranks.low, "high": ranks.high}
        frame = pl.DataFrame({name: values.astype(np.int32) for name, values in columns.items()})
        with atomic(folder / RANKS) as path:
            frame.write_parquet(path)
    if spectra:
        values = {name: [round(float(v), 9) for v in spectrum] for name, spectrum in spectra.items()}
        write_json(folder / SPECTRUM, values)
    if weights:
        with atomic(folder / WEIGHTS) as path:
            path.write_bytes(weights)


def lists_frame(users: np.ndarray, lists: TopLists) -> pl.DataFrame:
    """Return lists as a frame with one row per place, in the order of the test queries.

    users: (q,). Columns: `query` i32 (row of the ranks, from 0), `user` i32, `rank` i32 from 1, `item` i32 (row of the
    catalogue, from 0), `score` f32.
    """
    q, k = lists.items.shape
    frame = pl.DataFrame(
        {
            "query": np.repeat(np.arange(q, dtype=np.int32), k),
            "user": np.repeat(users.astype(np.int32), k),
            "rank": np.tile(np.arange(1, k + 1, dtype=np.int32), q),
            "item": lists.items.ravel(),
            "score": lists.scores.ravel(),
        }
    )
    return frame.filter(pl.col("item") != NOTHING)


def load_lists(home: Path, trial_id: str) -> pl.DataFrame | None:
    """Return the stored lists of a confirmed trial (`lists_frame`), or None if the file is missing or damaged."""
    if fault(home, trial_id, LISTS):
        return None
    try:
        return parquet.read(artifact_folder(home, trial_id) / LISTS)
    except (OSError, pl.exceptions.PolarsError):
        return None


def list_length(home: Path, trial_id: str) -> int:
    """Return the length of the longest stored list of a trial; 0 if it has none."""
    file = artifact_folder(home, trial_id) / LISTS
    try:
        return int(parquet.scan(file).select(pl.col("rank").max()).collect().item() or 0)
    except (OSError, pl.exceptions.PolarsError):
        return 0


def fetch(home: Path, trial_id: str, name: str) -> Path:
    """Return the path of an artifact, after it was copied into the home if it lies in a place. Nothing is there if it
    is missing in both.

    Raises checksums.Damaged if it is damaged in the place, HarnessError if the place is away.
    """
    folder = artifact_folder(home, trial_id)
    if (folder / name).is_file() or (pointer := _elsewhere(folder).get(name)) is None:
        return folder / name
    try:
        content = places.read(pointer)
    except FileNotFoundError:
        return folder / name
    except places.DamagedFile as error:
        raise checksums.Damaged(folder, error) from error
    except OSError as error:
        raise HarnessError(f"{name} of trial {trial_id} is in {pointer['place']}, which is away: {error}") from error
    with atomic(folder / name) as path:
        path.write_bytes(content)
    return folder / name


def _elsewhere(folder: Path) -> Json:
    """Return file name -> pointer of the files of a trial that lie in a place."""
    try:
        return json.loads((folder / ELSEWHERE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def fault(home: Path, trial_id: str, name: str) -> str:
    """Return the fault of an artifact: '' for none, 'missing', or 'damaged' (it does not match its checksum). One in a
    place is fetched first.

    Artifacts from older versions have no checksums and are accepted. Raises HarnessError if a place is away, or if
    there is no permission to read the artifact.
    """
    folder = artifact_folder(home, trial_id)
    try:
        if not fetch(home, trial_id, name).is_file():
            return "missing"
    except checksums.Damaged:
        return "damaged"
    try:
        expected = (checksums.sums(folder) or {}).get(name)
        return "damaged" if expected and sha256(folder / name) != expected else ""
    except PermissionError as error:  # not damaged: a bench would train the trial again
        raise HarnessError(f"{error.filename} cannot be read: {error.strerror}.") from error
    except (OSError, ValueError):
        return "damaged"


def load_weights(home: Path, trial_id: str) -> bytes | None:
    """Return the weights of a confirmed trial, safetensors, or None if they are missing or damaged."""
    if fault(home, trial_id, WEIGHTS):
        return None
    try:
        return (artifact_folder(home, trial_id) / WEIGHTS).read_bytes()
    except OSError:
        return None


def load_ranks(home: Path, trial_id: str) -> pl.DataFrame | None:
    """Return user, low, high (i32) of a confirmed trial, or None if the file is missing or damaged."""
    if fault(home, trial_id, RANKS):
        return None
    try:
        return parse_ranks((artifact_folder(home, trial_id) / RANKS).read_bytes())
    except (OSError, pl.exceptions.PolarsError):
        return None


def parse_ranks(content: bytes) -> pl.DataFrame:
    """Return user, low, high of a ranks file. In older files `rank`, the middle of a tie, becomes both bounds.

    Raises a Polars error if the file is damaged or has no ranks.
    """
    frame = pl.read_parquet(io.BytesIO(content))
    if "rank" in frame.columns:
        return frame.select("user", pl.col("rank").alias("low"), pl.col("rank").alias("high"))
    return frame if frame.columns == ["user", "low", "high"] else frame.select("user", "low", "high")


def of_folds(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return the rows of all folds, earliest first, with users as keys of fold and user (`folds.FOLD`), i64.

    A single frame stays as it is.
    """
    if len(frames) == 1:
        return frames[0]
    key = pl.col("user").cast(pl.Int64)
    return pl.concat([frame.with_columns(key + fold * FOLD) for fold, frame in enumerate(frames)])


def bounds(frame: pl.DataFrame) -> Ranks:
    """Return the ranks of such a frame, float64."""
    return Ranks(*(frame[name].cast(pl.Float64).to_numpy() for name in ("low", "high")))


def mid_ranked(trial: Trial) -> bool:
    """Whether a trial was recorded by a version that stored the middle of a tie as its rank."""
    return int(trial.inputs.versions["core"]) < TIES_KEPT


def load_spectra(home: Path, trial_id: str) -> dict[str, list[float]] | None:
    """Return the singular values of a confirmed trial's item table over the largest one, at `start` and `end` of
    training; None if the file is missing, damaged or from before both were stored."""
    if fault(home, trial_id, SPECTRUM):
        return None
    try:
        return parse_spectra((artifact_folder(home, trial_id) / SPECTRUM).read_bytes())
    except OSError:
        return None


def parse_spectra(text: bytes) -> dict[str, list[float]] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and set(value) == {"start", "end"} else None


def queries_key(prepared: str, protocol: Json) -> str:
    """Return the key of the target facts of prepared data (hash) under a protocol (identity)."""
    return digest({"prepared": prepared, "protocol": protocol, "version": QUERIES_VERSION})


def queries_path(home: Path, key: str) -> Path:
    return home / "queries" / f"{key}.parquet"


def save_queries(home: Path, key: str, queries: Callable[[], pl.DataFrame]) -> None:
    """Write the facts about test targets unless they exist."""
    if load_queries(home, key) is None:
        with atomic(queries_path(home, key)) as path:
            queries().write_parquet(path)


def load_queries(home: Path, key: str) -> pl.DataFrame | None:
    """Return the facts, one row per test target, or None if the file is missing or damaged."""
    try:
        return parquet.read(queries_path(home, key))
    except (FileNotFoundError, pl.exceptions.PolarsError):
        return None

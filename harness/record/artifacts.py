"""Where a home folder keeps what trials leave: checkpoints while they run, artifacts when they end.

home/checkpoints/<trial>.checkpoint    home/artifacts/<trial>/{ranks.parquet, spectrum.json, model.safetensors}
home/queries/<key>.parquet             what is known of the test targets of a prepared data set under a protocol

A checkpoint is safetensors and behind it their sha256; `seal.json` beside artifacts holds theirs.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.metrics._ties import Ranks
from harness.system import checksums
from harness.system.files import GOES_ON, atomic, sha256, write_json
from harness.types import HarnessError, Trial, digest

QUERIES_VERSION = 1  # raised when what is recorded of a test target changes
TIES_KEPT = 3  # core version since which ranks are kept as the bounds of their ties; before, as their middle


FrameOf = Callable[[str], pl.DataFrame | None]


@dataclass(frozen=True)
class ArtifactSources:
    """What of a bench lies beside its ledger, each None where it is missing: `ranks` and `spectra` of a trial by its
    id, `queries` by `queries_key`. `page`: the tracking server's page of runs."""

    ranks: FrameOf
    queries: FrameOf = lambda key: None
    spectra: Callable[[str], dict[str, list[float]] | None] = lambda trial_id: None
    page: str | None = None


def sources(home: Path) -> ArtifactSources:
    """Those of a home folder."""
    return ArtifactSources(
        lambda trial_id: load_ranks(home, trial_id),
        lambda key: load_queries(home, key),
        lambda trial_id: load_spectra(home, trial_id),
    )


def check_home(home: Path) -> Path:
    """The home folder, made and writable, as an absolute path. Raises HarnessError if it cannot be."""
    home = _absolute(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HarnessError(
            f"The home folder {home} cannot be written ({error.strerror}); name another with --home or HARNESS_HOME."
        ) from error
    return home


def find_home(home: Path) -> Path:
    """The home folder as an absolute path, for what only reads: nothing is made, and there may be none. Raises
    HarnessError if it cannot be read."""
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
        return home.expanduser().absolute()
    except RuntimeError as error:  # no HOME, and the system knows no such user
        raise HarnessError(
            f"The home folder {home} has no place: HOME is not set; name another with --home or HARNESS_HOME."
        ) from error


def checkpoint_path(home: Path, trial_id: str) -> Path:
    return home / "checkpoints" / f"{trial_id}.checkpoint"


def artifact_folder(home: Path, trial_id: str) -> Path:
    return home / "artifacts" / trial_id


def save_checkpoint(home: Path, trial_id: str, data: bytes) -> bool:
    """Keep a trial's state; False if the disk refuses it. A trial goes on without: it only costs time if it dies."""
    try:
        with atomic(checkpoint_path(home, trial_id)) as path:
            path.write_bytes(data + hashlib.sha256(data).digest())
    except OSError:
        return False
    return True


def load_checkpoint(home: Path, trial_id: str) -> bytes | None:
    """A trial's state, None if there is none; a damaged one is set aside."""
    path = checkpoint_path(home, trial_id)
    try:
        found = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(found[:-32]).digest() == found[-32:]:
        return found[:-32]
    checksums.set_aside(path, "its checksum is wrong; the trial begins anew")
    return None


def drop_checkpoint(home: Path, trial_id: str) -> None:
    checkpoint_path(home, trial_id).unlink(missing_ok=True)


def save_artifacts(
    home: Path, trial_id: str, *, users: np.ndarray, ranks: Ranks, spectra: dict[str, np.ndarray], weights: bytes
) -> None:
    """Write a finished trial's artifacts and, last, their seal; empty ones are left out. Where the disk refuses one,
    there is no seal, which `check_artifacts` tells."""
    folder = artifact_folder(home, trial_id)
    try:
        (folder / checksums.SEAL).unlink(missing_ok=True)
        _write_artifacts(folder, users, ranks, spectra, weights)
        checksums.seal(folder)
    except (OSError, pl.exceptions.PolarsError):
        return


def check_artifacts(home: Path, trial_id: str) -> None:
    """Raises HarnessError if what a trial left could not be written whole."""
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
        with atomic(folder / "ranks.parquet") as path:
            frame.write_parquet(path)
    if spectra:
        values = {name: [round(float(v), 9) for v in spectrum] for name, spectrum in spectra.items()}
        write_json(folder / "spectrum.json", values)
    if weights:
        with atomic(folder / "model.safetensors") as path:
            path.write_bytes(weights)


def fault(home: Path, trial_id: str, name: str) -> str:
    """What is wrong with an artifact: '' if nothing is, 'missing', or 'damaged' (it is not what was written).

    What an earlier harness left has no seal and counts as right.
    """
    folder = artifact_folder(home, trial_id)
    if not (folder / name).is_file():
        return "missing"
    try:
        was = (checksums.sums(folder) or {}).get(name)
        return "damaged" if was and sha256(folder / name) != was else ""
    except (OSError, ValueError):
        return "damaged"


def load_ranks(home: Path, trial_id: str) -> pl.DataFrame | None:
    """user, low, high (i32) of one confirmed trial, or None if the file is gone or damaged."""
    if fault(home, trial_id, "ranks.parquet"):
        return None
    try:
        return parse_ranks((artifact_folder(home, trial_id) / "ranks.parquet").read_bytes())
    except (OSError, pl.exceptions.PolarsError):
        return None


def parse_ranks(content: bytes) -> pl.DataFrame:
    """user, low, high of a file of ranks. Earlier versions kept `rank`, the middle of a tie, which becomes both bounds.

    Raises a Polars error if the file is damaged or holds no ranks.
    """
    frame = pl.read_parquet(io.BytesIO(content))
    if "rank" in frame.columns:
        return frame.select("user", pl.col("rank").alias("low"), pl.col("rank").alias("high"))
    return frame.select("user", "low", "high")


def bounds(frame: pl.DataFrame) -> Ranks:
    """The ranks of such a frame, float64."""
    return Ranks(*(frame[name].cast(pl.Float64).to_numpy() for name in ("low", "high")))


def mid_ranked(trial: Trial) -> bool:
    """Whether a trial was recorded by a version that kept the middle of a tie as its rank."""
    return trial.inputs.versions["core"] < TIES_KEPT


def load_spectra(home: Path, trial_id: str) -> dict[str, list[float]] | None:
    """Singular values over the largest of a confirmed trial's item table, `start` and `end` (of training), or None if
    they are gone, damaged or of before both were kept."""
    try:
        return parse_spectra((artifact_folder(home, trial_id) / "spectrum.json").read_bytes())
    except OSError:
        return None


def parse_spectra(text: bytes) -> dict[str, list[float]] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) and set(value) == {"start", "end"} else None


def queries_key(prepared: str, protocol: dict[str, Any]) -> str:
    """Names what is known of the test targets of prepared data (its hash) under a protocol (its identity)."""
    return digest({"prepared": prepared, "protocol": protocol, "version": QUERIES_VERSION})


def queries_path(home: Path, key: str) -> Path:
    return home / "queries" / f"{key}.parquet"


def save_queries(home: Path, key: str, queries: Callable[[], pl.DataFrame]) -> None:
    """Write what is known of test targets, unless it is there and whole."""
    if load_queries(home, key) is None:
        with atomic(queries_path(home, key)) as path:
            queries().write_parquet(path)


def load_queries(home: Path, key: str) -> pl.DataFrame | None:
    """One row a test target, or None if the file is not there or damaged."""
    try:
        return pl.read_parquet(queries_path(home, key))
    except (OSError, pl.exceptions.PolarsError):
        return None

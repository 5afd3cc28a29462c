"""Where a home folder keeps what trials leave: checkpoints while they run, artifacts when they end.

home/checkpoints/<trial>.safetensors    home/artifacts/<trial>/{ranks.parquet, spectrum.json, model.safetensors}
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import polars as pl

from harness.files import atomic, write_json
from harness.types import HarnessError


def check_home(home: Path) -> Path:
    """The home folder, made and writable, as an absolute path. Raises HarnessError if it cannot be."""
    home = home.expanduser().absolute()
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


def checkpoint_path(home: Path, trial_id: str) -> Path:
    return home / "checkpoints" / f"{trial_id}.safetensors"


def artifact_folder(home: Path, trial_id: str) -> Path:
    return home / "artifacts" / trial_id


def save_checkpoint(home: Path, trial_id: str, data: bytes) -> None:
    with atomic(checkpoint_path(home, trial_id)) as path:
        path.write_bytes(data)


def load_checkpoint(home: Path, trial_id: str) -> bytes | None:
    try:
        return checkpoint_path(home, trial_id).read_bytes()
    except FileNotFoundError:
        return None


def drop_checkpoint(home: Path, trial_id: str) -> None:
    checkpoint_path(home, trial_id).unlink(missing_ok=True)


def save_artifacts(
    home: Path, trial_id: str, *, users: np.ndarray, ranks: np.ndarray, spectrum: np.ndarray, weights: bytes
) -> None:
    """Write a finished trial's artifacts; empty ones are left out."""
    folder = artifact_folder(home, trial_id)
    if len(ranks):
        frame = pl.DataFrame({"user": users.astype(np.int32), "rank": ranks.astype(np.float64)})
        with atomic(folder / "ranks.parquet") as path:
            frame.write_parquet(path)
    if len(spectrum):
        write_json(folder / "spectrum.json", [round(float(v), 9) for v in spectrum])
    if weights:
        with atomic(folder / "model.safetensors") as path:
            path.write_bytes(weights)


def load_ranks(home: Path, trial_id: str) -> pl.DataFrame | None:
    """user i32, rank f64 of one confirmed trial, or None if the file is gone or damaged."""
    try:
        return pl.read_parquet(artifact_folder(home, trial_id) / "ranks.parquet")
    except (OSError, pl.exceptions.PolarsError):
        return None

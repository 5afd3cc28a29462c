"""Where a home folder keeps what trials leave: checkpoints while they run, artifacts when they end.

home/checkpoints/<trial>.checkpoint    home/artifacts/<trial>/{ranks.parquet, spectrum.json, model.safetensors}

A checkpoint is safetensors and behind it their sha256; `seal.json` beside artifacts holds theirs.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import polars as pl

from harness import sealed
from harness.files import GOES_ON, atomic, sha256, write_json
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
    sealed.set_aside(path, "its checksum is wrong; the trial begins anew")
    return None


def drop_checkpoint(home: Path, trial_id: str) -> None:
    checkpoint_path(home, trial_id).unlink(missing_ok=True)


def save_artifacts(
    home: Path, trial_id: str, *, users: np.ndarray, ranks: np.ndarray, spectrum: np.ndarray, weights: bytes
) -> None:
    """Write a finished trial's artifacts and, last, their seal; empty ones are left out. Where the disk refuses one,
    there is no seal, which `check_artifacts` tells."""
    folder = artifact_folder(home, trial_id)
    try:
        (folder / sealed.SEAL).unlink(missing_ok=True)
        _write_artifacts(folder, users, ranks, spectrum, weights)
        sealed.seal(folder)
    except (OSError, pl.exceptions.PolarsError):
        return


def check_artifacts(home: Path, trial_id: str) -> None:
    """Raises HarnessError if what a trial left could not be written whole."""
    folder = artifact_folder(home, trial_id)
    if not (folder / sealed.SEAL).is_file():
        free = shutil.disk_usage(home).free
        raise HarnessError(f"{folder} could not be written; the disk has {free:,} bytes left. {GOES_ON}")


def _write_artifacts(folder: Path, users: np.ndarray, ranks: np.ndarray, spectrum: np.ndarray, weights: bytes) -> None:
    if len(ranks):
        frame = pl.DataFrame({"user": users.astype(np.int32), "rank": ranks.astype(np.float64)})
        with atomic(folder / "ranks.parquet") as path:
            frame.write_parquet(path)
    if len(spectrum):
        write_json(folder / "spectrum.json", [round(float(v), 9) for v in spectrum])
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
        was = (sealed.sums(folder) or {}).get(name)
        return "damaged" if was and sha256(folder / name) != was else ""
    except (OSError, ValueError):
        return "damaged"


def load_ranks(home: Path, trial_id: str) -> pl.DataFrame | None:
    """user i32, rank f64 of one confirmed trial, or None if the file is gone or damaged."""
    if fault(home, trial_id, "ranks.parquet"):
        return None
    try:
        return pl.read_parquet(io.BytesIO((artifact_folder(home, trial_id) / "ranks.parquet").read_bytes()))
    except (OSError, pl.exceptions.PolarsError):
        return None

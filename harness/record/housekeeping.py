"""What a home folder holds, by kind and size, and what of it nobody needs any more."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record.ledger import Ledger
from harness.system import checksums

KINDS = {
    "ledger": "what happened; the truth",
    "artifacts": "ranks, spectra and weights of finished runs",
    "checkpoints": "states of runs under way",
    "cache/prepared": "data sets as sequences; made again when needed",
    "cache/embeddings": "text embeddings; made again, or paid again, when needed",
    "cache/bases": "spectral bases; made again when needed",
    "data": "data sets as they were fetched",
    "downloads": "archives as they were fetched",
    "models": "text encoders",
    "mlflow": "the mirror; `harness sync` makes it again",
    "queries": "what is known of test targets; made again when needed",
    "calibrations": "what an epoch takes here, for `harness plan --deadline`; measured again when needed",
    "forecast.json": "what `harness plan --deadline` said last, for the bench that follows",
    "reports": "tables of past benches",
    "leases": "what running benches hold",
}
DAY = 86_400.0


@dataclass(frozen=True)
class Removable:
    """A file or folder that can go, with the reason."""

    path: Path
    why: str
    size: int  # bytes


def survey(home: Path) -> list[dict[str, Any]]:
    """`kind`, `files`, `bytes` and `what` it is, of every kind there is in a home, and of what belongs to none."""
    found, known = [], {}
    for kind in KINDS:
        files = list(_files(home / kind))
        known |= dict.fromkeys(files)
        found.append(_row(kind, files, KINDS[kind]))
    found.append(_row("other", [path for path in _files(home) if path not in known], ""))
    return [row for row in found if row["files"]]


def _row(kind: str, files: list[Path], what: str) -> dict[str, Any]:
    return {"kind": kind, "files": len(files), "bytes": sum(map(_size, files)), "what": what}


def waste(home: Path, days: float) -> list[Removable]:
    """Checkpoints of runs that are over or unknown, half-made files older than a day, and, of more than `days` ago,
    what was set aside as damaged, calibrations and the forecast.

    Raises HarnessError for a ledger that cannot be read: then nobody knows what is over.
    """
    found = list(_checkpoints(home))
    for path in [*(home / "calibrations").glob("*.json"), home / "forecast.json"]:
        if path.is_file() and _age(path) >= days * DAY:
            found.append(Removable(path, f"measured more than {days:g} days ago", size(path)))
    for path in _walk(home):
        if checksums.ASIDE in path.name and _age(path) >= days * DAY:
            found.append(Removable(path, f"set aside as damaged more than {days:g} days ago", size(path)))
        elif path.name.startswith(".") and checksums.ASIDE not in path.name and _age(path) >= DAY:
            found.append(Removable(path, "half-made, more than a day ago", size(path)))
    return sorted(found, key=lambda item: item.path)


def _checkpoints(home: Path) -> Iterator[Removable]:
    folder = home / "checkpoints"
    if not folder.is_dir():
        return
    trials = Ledger.open(home).trials
    for path in folder.iterdir():
        name, _, suffix = path.name.partition(".")
        if suffix not in ("checkpoint", "safetensors"):
            continue
        entry = trials.get(name)
        if suffix == "safetensors":
            yield Removable(path, "of an earlier harness", size(path))
        elif entry is None or entry.status is not None:
            yield Removable(path, "its run is over" if entry else "its run is in no ledger", size(path))


def remove(found: list[Removable]) -> int:
    """Delete; returns the bytes that came free. What is gone already is no fault."""
    freed = 0
    for item in found:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
        freed += 0 if item.path.exists() else item.size
    return freed


def _walk(folder: Path) -> Iterator[Path]:
    """Files and folders below a folder; what may go as a whole is not entered."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        yield path
        if (
            path.is_dir()
            and not path.is_symlink()
            and checksums.ASIDE not in path.name
            and not path.name.startswith(".")
        ):
            yield from _walk(path)


def _files(folder: Path) -> Iterator[Path]:
    """Those below a folder, or the file itself."""
    if folder.is_file():
        yield folder
    for root, _, names in os.walk(folder):
        for name in names:
            yield Path(root) / name


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    return sum(map(_size, _files(path))) if path.is_dir() else _size(path)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:  # gone meanwhile
        return 0


def _age(path: Path) -> float:
    """Seconds since a file was last written or renamed, 0 if that lies ahead of the clock."""
    try:
        stat = path.lstat()
    except OSError:
        return 0.0
    return max(0.0, time.time() - max(stat.st_mtime, stat.st_ctime))

"""Disk use of a home folder by kind, and files that can be deleted."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from harness.record.ledger import Ledger
from harness.system import checksums
from harness.types import Json

KINDS = {
    "ledger": "recorded events; the source of truth",
    "artifacts": "ranks, spectra and weights of finished runs",
    "checkpoints": "states of running trials",
    "cache/prepared": "data sets as sequences; rebuilt when needed",
    "cache/embeddings": "text embeddings; recomputed (or paid for) when needed",
    "cache/bases": "spectral bases; recomputed when needed",
    "cache/ledger": "indexes of the ledger; rewritten when needed",
    "data": "downloaded data sets",
    "downloads": "downloaded archives",
    "models": "text encoders",
    "mlflow": "mirror of the ledger; `harness sync` rebuilds it",
    "queries": "facts about test targets; recomputed when needed",
    "calibrations": "epoch times for `harness plan --deadline`; measured when needed",
    "forecast.json": "last forecast of `harness plan --deadline`",
    "reports": "tables of past benches",
    "logs": "output of benches in the background",
    "leases": "locks of running benches",
}
HOUR, DAY = 3600.0, 86_400.0  # seconds
PARTIAL = re.compile(  # names of unfinished files and folders; of wheels with the letters that tempfile uses
    r"\..+\.[0-9a-f]{8}(\.\w+)?|\..+\.whl\.[0-9a-z_]{8}|\.lease-\w+|\.probe-\d+(-[0-9a-f]{8})?"
)
DAMAGED = re.compile(rf".+{re.escape(checksums.ASIDE)}\d+")
CHECKPOINT = re.compile(r"([0-9a-f]{24})\.(checkpoint|safetensors)")  # safetensors: from an older version


@dataclass(frozen=True)
class Removable:
    """A file or folder that can be deleted, with the reason."""

    path: Path
    why: str
    size: int  # bytes


def survey(home: Path) -> list[Json]:
    """Return `kind`, `files`, `bytes` and `what` (a description) of each kind of file in a home, and of other files."""
    rows, listed = [], {}
    for kind in KINDS:
        files = list(_files(home / kind))
        listed |= dict.fromkeys(files)
        rows.append(_row(kind, files, KINDS[kind]))
    rows.append(_row("other", [path for path in _files(home) if path not in listed], ""))
    return [row for row in rows if row["files"]]


def _row(kind: str, files: list[Path], what: str) -> Json:
    return {"kind": kind, "files": len(files), "bytes": sum(map(_size, files)), "what": what}


def waste(home: Path, days: float) -> list[Removable]:
    """Return checkpoints of finished or unknown trials, partial files older than a day, and quarantined files,
    calibrations and forecasts older than `days`.

    Only names that harness gives, in the folders of `KINDS`: a home may lie in a folder with other files. Raises
    HarnessError if the ledger cannot be read, since finished trials are then unknown.
    """
    removable = list(_checkpoints(home))
    ours = (home / "ledger").is_dir() or (home / "cache").is_dir()
    for path in [*(home / "calibrations").glob("*.json"), home / "forecast.json"] if ours else []:
        if path.is_file() and age(path) >= days * DAY:
            removable.append(Removable(path, f"measured more than {days:g} days ago", size(path)))
    for path in chain(home.glob(".*"), *(_walk(home / kind) for kind in KINDS)):
        if DAMAGED.fullmatch(path.name) and age(path) >= days * DAY:
            removable.append(Removable(path, f"quarantined as damaged more than {days:g} days ago", size(path)))
        elif _partial(path) and age(path) >= DAY and not _in_work(path, home):
            removable.append(Removable(path, "partial file older than a day", size(path)))
    return sorted(removable, key=lambda item: item.path)


def _partial(path: Path) -> bool:
    return bool(PARTIAL.fullmatch(path.name)) and not DAMAGED.fullmatch(path.name)


def _in_work(path: Path, home: Path) -> bool:
    """Whether the folder of an embedding is being computed, which can take days: its process holds a lock."""
    lock = home / "cache" / "locks" / f"{path.name[1:].rpartition('.')[0]}.lock"
    if not lock.is_file():
        return False
    from filelock import FileLock, Timeout

    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return True


def _checkpoints(home: Path) -> Iterator[Removable]:
    folder = home / "checkpoints"
    found = sorted(folder.iterdir()) if folder.is_dir() else []  # before the ledger: a trial is recorded first
    named = [(path, match) for path in found if (match := CHECKPOINT.fullmatch(path.name))]
    trials = Ledger.open(home).trials if named else {}
    for path, match in named:
        entry = trials.get(match[1])
        if match[2] == "safetensors":
            yield Removable(path, "from an older version", size(path))
        elif entry is None and age(path) >= HOUR:
            yield Removable(path, "its trial is in no ledger", size(path))
        elif entry is not None and entry.status is not None:
            yield Removable(path, "its trial has ended", size(path))


def remove(removable: list[Removable]) -> int:
    """Delete files and return the bytes freed; missing files are ignored."""
    freed = 0
    for item in removable:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
        freed += 0 if item.path.exists() else item.size
    return freed


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files and folders below a folder, without entering folders that are removed as a whole."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        yield path
        left = _partial(path) or DAMAGED.fullmatch(path.name)
        if path.is_dir() and not path.is_symlink() and not left:
            yield from _walk(path)


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, or the file itself."""
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
    except OSError:  # deleted meanwhile
        return 0


def age(path: Path) -> float:
    """Seconds since a file was last written or renamed; 0 if that time is in the future."""
    try:
        stat = path.lstat()
    except OSError:
        return 0.0
    return max(0.0, time.time() - max(stat.st_mtime, stat.st_ctime))

"""Whether a machine is fit for a bench: versions, cores, memory, disk, the home folder, file modes of secrets."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from importlib import metadata, util
from pathlib import Path
from typing import Any

from harness.engine import ray_head
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.system import tempdirs
from harness.types import HarnessError

PACKAGES = ("torch", "ray", "optuna", "mlflow", "polars", "numpy", "sentence-transformers", "safetensors")
LEAST_DISK = 2 * 2**30  # bytes: embeddings, checkpoints and artifacts of a small grid
LEAST_MEMORY = 2 * 2**30


def examine(home: Path) -> dict[str, Any]:
    """`checks`: each with `name`, `ok`, `found`, and `remedy` where it is not ok."""
    return {"checks": [*_versions(), _shadow(), _cores(), _memory(), *_home(home), _sockets(), *_tokens()]}


def _check(name: str, ok: bool, found: str, remedy: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "found": found, "remedy": "" if ok else remedy}


def _versions() -> list[dict[str, Any]]:
    checks = [_check("python", True, platform.python_version())]
    for name in PACKAGES:
        try:
            checks.append(_check(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append(_check(name, False, "not installed", "install harness again with the constraints file"))
    return checks


def _shadow() -> dict[str, Any]:
    spec = util.find_spec("mlflow")
    ok = spec is not None and spec.origin is not None
    return _check("mlflow import", ok, "the installed package" if ok else "shadowed", "no .py file in mlflow/")


def _cores() -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return _check("cores", True, f"{usable} usable of {os.cpu_count()}")


def _memory() -> dict[str, Any]:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _check("memory", size >= LEAST_MEMORY, f"{size / 2**30:.1f} GiB", f"at least {LEAST_MEMORY >> 30} GiB")


def _home(home: Path) -> list[dict[str, Any]]:
    remedy = "name another with --home or HARNESS_HOME"
    try:
        folder = artifacts.find_home(home)
    except HarnessError as error:
        return [_check("home", False, str(error), remedy)]
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not tempdirs.writable(there):
        return [_check("home", False, f"{folder}: {there} cannot be written", remedy)]
    free = shutil.disk_usage(there).free
    ledger = Ledger.open(folder)
    damaged = [str(damage) for damage in ledger.damages if not damage.torn]
    ended = sum(entry.status is not None for entry in ledger.trials.values())
    need = max(LEAST_DISK, _room(ledger))
    return [
        _check("home", True, str(folder) + ("" if there == folder else ", not made yet")),
        _check("disk", free >= need, f"{free / 2**30:.1f} GiB free", f"at least {need / 2**30:.1f} GiB"),
        _check("ledger", not damaged, "; ".join(damaged) or f"{ended} trials ended", "those events are not counted"),
    ]


def _room(ledger: Ledger) -> int:
    """Bytes that the newest bench will write, as it reckoned when it began; 0 if it is over."""
    run = ledger.newest
    return 0 if run is None or run in ledger.finished else ledger.launches[run].disk_bytes


def _sockets() -> dict[str, Any]:
    """Where a bench puts Ray's sockets, and which variable's folder it passes over for that."""
    try:
        found = tempdirs.short_root(ray_head.PARENT_LONGEST)
    except HarnessError as error:
        return _check("ray sockets", False, str(error), "name a folder with a short path with RAY_TMPDIR")
    passed = [
        f"{name} is passed over: {why}"
        for name in ("RAY_TMPDIR", "TMPDIR")
        if (own := os.environ.get(name)) and Path(own).absolute() != found
        if (why := tempdirs.unfit(Path(own), ray_head.PARENT_LONGEST))
    ]
    return _check("ray sockets", True, "; ".join([f"below {found}", *passed]))


def _tokens() -> list[dict[str, Any]]:
    """Files with a token of Ray. A bench's own cluster has a token of its own; these are for clusters elsewhere."""
    own = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return [_token("ray token", "~/.ray/auth_token"), *([_token("RAY_AUTH_TOKEN_PATH", own)] if own else [])]


def _token(name: str, place: str) -> dict[str, Any]:
    try:
        path = Path(place).expanduser()
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, RuntimeError):  # none, not for us to look at, or no HOME
        return _check(name, True, "none")
    return _check(name, not mode & 0o077, f"mode {mode:04o}", f"chmod 600 {path}")


def text(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{'ok ' if c['ok'] else 'BAD'} {c['name']:22s} {c['found']}" + (f"  -> {c['remedy']}" if c["remedy"] else "")
        for c in found["checks"]
    )

"""Whether a machine is fit for a bench: versions, cores, memory, disk, the home folder, file modes of secrets."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from importlib import metadata, util
from pathlib import Path
from typing import Any

from harness import store
from harness.ledger import Ledger
from harness.types import HarnessError

PACKAGES = ("torch", "ray", "optuna", "mlflow", "polars", "numpy", "sentence-transformers", "safetensors")
LEAST_DISK = 2 * 2**30  # bytes: embeddings, checkpoints and artifacts of a small grid
LEAST_MEMORY = 2 * 2**30


def examine(home: Path) -> dict[str, Any]:
    """`checks`: each with `name`, `ok`, `found`, and `remedy` where it is not ok."""
    return {"checks": [*_versions(), _shadow(), _cores(), _memory(), *_home(home), _token()]}


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
    try:
        folder = store.check_home(home)
    except HarnessError as error:
        return [_check("home", False, str(error), "name another with --home or HARNESS_HOME")]
    free = shutil.disk_usage(folder).free
    ledger = Ledger.open(folder)
    damaged = [str(damage) for damage in ledger.damages if not damage.torn]
    ended = sum(entry.status is not None for entry in ledger.trials.values())
    need = max(LEAST_DISK, _room(ledger))
    return [
        _check("home", True, str(folder)),
        _check("disk", free >= need, f"{free / 2**30:.1f} GiB free", f"at least {need / 2**30:.1f} GiB"),
        _check("ledger", not damaged, "; ".join(damaged) or f"{ended} trials ended", "those events are not counted"),
    ]


def _room(ledger: Ledger) -> int:
    """Bytes that the newest bench will write, as it reckoned when it began; 0 if it is over."""
    run = ledger.newest
    return 0 if run is None or run in ledger.finished else ledger.launches[run].get("room", 0)


def _token() -> dict[str, Any]:
    path = Path("~/.ray/auth_token").expanduser()
    if not path.exists():
        return _check("ray token", True, "none")
    mode = stat.S_IMODE(path.stat().st_mode)
    return _check("ray token", not mode & 0o077, f"mode {mode:04o}", f"chmod 600 {path}")


def text(found: dict[str, Any]) -> str:
    return "\n".join(
        f"{'ok ' if c['ok'] else 'BAD'} {c['name']:22s} {c['found']}" + (f"  -> {c['remedy']}" if c["remedy"] else "")
        for c in found["checks"]
    )

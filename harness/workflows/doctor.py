"""Check this machine's setup: versions, cores, memory, disk, the home folder and its config, variables, file modes of
secrets."""

from __future__ import annotations

import os
import platform
import shutil
import stat
from importlib import metadata, util
from pathlib import Path

from harness import overlay
from harness.data import library
from harness.engine import ray_access, ray_head
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.system import cores, tempdirs
from harness.types import HarnessError, Json

PACKAGES = ("torch", "ray", "optuna", "mlflow", "polars", "numpy", "sentence-transformers", "safetensors")
LEAST_DISK = 2 * 2**30  # bytes: embeddings, checkpoints and artifacts of a small grid
LEAST_MEMORY = 2 * 2**30


def examine(home: Path) -> Json:
    """Return `checks`, each with `name`, `ok`, `found`, and `remedy` if it is not ok."""
    here = [*_versions(), _shadow(), _cores(), _memory(), *_home(home), _sockets(), *_tokens()]
    return {"checks": [*here, _variables(), _components(), _cluster()]}


def _check(name: str, ok: bool, observed: str, remedy: str = "") -> Json:
    return {"name": name, "ok": ok, "found": observed, "remedy": "" if ok else remedy}


def _versions() -> list[Json]:
    checks = [_check("python", True, platform.python_version())]
    for name in PACKAGES:
        try:
            checks.append(_check(name, True, metadata.version(name)))
        except metadata.PackageNotFoundError:
            checks.append(_check(name, False, "not installed", "reinstall harness with the constraints file"))
    return checks


def _shadow() -> Json:
    spec = util.find_spec("mlflow")
    ok = spec is not None and spec.origin is not None
    return _check("mlflow import", ok, "the installed package" if ok else "shadowed", "remove .py files from mlflow/")


def _cores() -> Json:
    return _check("cores", True, f"{cores.usable()} usable of {os.cpu_count()}")


def _memory() -> Json:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return _check(
        "memory",
        size >= LEAST_MEMORY,
        f"{size / 2**30:.1f} GiB",
        f"use a machine with at least {LEAST_MEMORY >> 30} GiB",
    )


def _home(home: Path) -> list[Json]:
    remedy = "choose another with --home or HARNESS_HOME"
    try:
        folder = artifacts.find_home(home)
    except HarnessError as error:
        return [_check("home", False, str(error), remedy)]
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not tempdirs.writable(existing):
        return [_check("home", False, f"{folder}: {existing} is not writable", remedy)]
    free = shutil.disk_usage(existing).free
    ledger = Ledger.open(folder)
    damaged = [str(damage) for damage in ledger.damages if not damage.torn]
    ended = sum(entry.status is not None for entry in ledger.trials.values())
    need = max(LEAST_DISK, _space_needed(ledger))
    return [
        _check("home", True, str(folder) + ("" if existing == folder else ", not created yet")),
        _config(folder),
        _check("disk", free >= need, f"{free / 2**30:.1f} GiB free", f"free at least {need / 2**30:.1f} GiB"),
        _check("ledger", not damaged, "; ".join(damaged) or f"{ended} trials ended", "these events are ignored"),
    ]


def _config(folder: Path) -> Json:
    """Check the home's config: commands that name data sets end at a fault in it."""
    try:
        library.matrices(folder)
        count = len(library.folders(folder))
    except HarnessError as error:
        return _check("config", False, str(error), "correct this file")
    path = library.config_file(folder)
    return _check("config", True, f"{path}, {count} data set(s)" if path.exists() else "none")


def _space_needed(ledger: Ledger) -> int:
    """Bytes that the newest bench expected to write when it started; 0 if it has finished."""
    run = ledger.newest
    return 0 if run is None or ledger.over.get(run, {}).get("kind") == "finished" else ledger.launches[run].disk_bytes


def _sockets() -> Json:
    """Check the folder for Ray's sockets, and report the environment variables whose folders are unsuitable."""
    try:
        root = tempdirs.short_root(ray_head.PARENT_LONGEST)
    except HarnessError as error:
        return _check("ray sockets", False, str(error), "set RAY_TMPDIR to a folder with a short path")
    ignored = [
        f"{name} is ignored: {why}"
        for name in ("RAY_TMPDIR", "TMPDIR")
        if (folder := os.environ.get(name)) and Path(folder).absolute() != root
        if (why := tempdirs.unfit(Path(folder), ray_head.PARENT_LONGEST))
    ]
    return _check("ray sockets", True, "; ".join([f"below {root}", *ignored]))


def _tokens() -> list[Json]:
    """Check the file modes of Ray tokens for other clusters; a bench creates a token for the cluster it starts."""
    path = os.environ.get(ray_access.TOKEN_PATH)
    return [_token("ray token", ray_access.DEFAULT_FILE), *([_token(ray_access.TOKEN_PATH, path)] if path else [])]


def _token(name: str, place: str) -> Json:
    try:
        path = Path(place).expanduser()
        mode = stat.S_IMODE(path.stat().st_mode)
    except (OSError, RuntimeError):  # missing, not readable, or HOME is not set
        return _check(name, True, "none")
    return _check(name, not mode & 0o077, f"mode {mode:04o}", f"chmod 600 {path}")


def _variables() -> Json:
    """Name the variables that change commands; values may be secrets."""
    names = sorted(name for name in os.environ if name.startswith("HARNESS_") or name == "RAY_ADDRESS")
    return _check("variables", True, f"set: {', '.join(names)}" if names else "none of harness is set")


def _components() -> Json:
    try:
        found = overlay.read(overlay.folders_of_environment()).components
    except (HarnessError, OSError) as error:
        return _check("components", False, str(error), f"correct or unset {overlay.VARIABLE}, or remove the package")
    return _check("components", True, f"{len(found)} of your own" if found else "only the built-in ones")


def _cluster() -> Json:
    """Check that the cluster at RAY_ADDRESS, which benches join, answers and is not open to others."""
    try:
        address = ray_head.address_of(None)
    except HarnessError as error:
        return _check("cluster", False, str(error), "correct or unset RAY_ADDRESS")
    return _check("cluster", True, f"benches join {address}" if address else "benches start their own")


def text(report: Json) -> str:
    return "\n".join(
        f"{'ok ' if c['ok'] else 'BAD'} {c['name']:22s} {c['found']}" + (f"  -> {c['remedy']}" if c["remedy"] else "")
        for c in report["checks"]
    )

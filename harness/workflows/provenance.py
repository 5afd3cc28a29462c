"""Provenance of a bench: code, versions and machine, and the launch record that contains them."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from harness import overlay, registry
from harness.data import splits
from harness.record.launches import LaunchRecord, SkippedCell, StudyRecord
from harness.search.plan import Plan
from harness.system.code_hash import code_hash
from harness.types import EXPECTED, Json, Protocol


def launch(grid: Plan, run: Json, disk_bytes: int = 0) -> LaunchRecord:
    """Return the launch record of a grid.

    `run`: slots, threads, GPU share and resources, added to the provenance; `disk_bytes`: estimated disk use.
    """
    request, (studies, skipped) = grid.request, _cells(grid)
    return LaunchRecord(
        table=request.table_key,
        protocol=request.protocol,
        ties=EXPECTED,
        prep=request.prep,
        budget=request.budget,
        engine=request.engine,
        warm_cells=grid.warm_cells(),
        drawn_at_random=grid.drawn_at_random(),
        studies=studies,
        skipped=skipped,
        data={name: _card(m.prepared, request.protocol) for name, m in grid.encoded_datasets.items()},
        provenance=provenance() | run,
        disk_bytes=disk_bytes,
        suite=_suite(grid),
        study=request.study,
    )


def names_grid(launch: LaunchRecord, grid: Plan) -> bool:
    """Return whether a launch recorded exactly this grid and suite, including its skipped cells."""
    recorded = (launch.table, launch.suite, (launch.studies, launch.skipped))
    return recorded == (grid.request.table_key, _suite(grid), _cells(grid))


def _suite(grid: Plan) -> Json:
    return grid.request.suite.to_json() if grid.request.suite else {}


def _cells(grid: Plan) -> tuple[tuple[StudyRecord, ...], tuple[SkippedCell, ...]]:
    """Return a grid's studies and skipped cells as a launch records them."""
    skipped = tuple(SkippedCell(cell, reason) for cell, reason in grid.skipped)
    return tuple(study.record() for study in grid.studies), skipped


def _card(prepared: splits.Prepared, protocol: Protocol) -> Json:
    """Return a data set's card with the facts that depend on the protocol."""
    counts = splits.counts_of_folds([splits.target_counts(splits.split(prepared, part)) for part in protocol.parts])
    return replace(prepared.card, **counts, hash=prepared.hash).to_json()


def provenance() -> Json:
    """Return code, versions and machine; no paths, host name or environment."""
    root = registry.folder_of("harness").parent
    git = ["git", "-C", str(root)]
    sha = _output([*git, "rev-parse", "HEAD"]) if (root / ".git").exists() else ""
    packages = ("torch", "ray", "optuna", "mlflow", "polars", "numpy", "sentence-transformers")
    return {
        **({"components": registry.own_revisions()} if overlay.current().components else {}),
        "harness": metadata.version("harness-bench"),
        "git": sha,
        "code": code_hash(),
        "dirty": bool(sha and _output([*git, "status", "--porcelain", "--untracked-files=no"])),
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in packages},
        "machine": machine() | {"vectors": vectors()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def vectors() -> str:
    """Return the vector instructions of PyTorch's kernels here, such as AVX2: others sum in another order."""
    import torch

    return torch.backends.cpu.get_cpu_capability()


def machine() -> Json:
    return {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count()}


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout.strip()
    except OSError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()

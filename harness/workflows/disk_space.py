"""How much disk a plan will take, roughly: enough to say so before anything is trained."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

from harness.search.plan import Plan, Study

WIDTH = 1024  # of an embedding that is not there yet
TRIAL, EPOCH = 6_000, 150  # bytes of ledger: a trial's start and end, an epoch
MIRROR = 60_000  # bytes of a trial in a local MLflow store


def needed(grid: Plan) -> int:
    """Bytes that what is still to run will write: ledger and mirror, embeddings and bases that are not there, the
    artifacts of the confirmed runs (in the home and in the mirror), a checkpoint a core."""
    pending = grid.pending
    if not pending:
        return 0
    trials = sum(study.to_run() * (TRIAL + MIRROR + EPOCH * study.epochs) for study in pending)
    artifacts = sum(2 * study.seeds * (_weights(grid, study) + 12 * _users(grid, study)) for study in pending)
    checkpoints = (os.cpu_count() or 1) * 4 * max(_weights(grid, study) for study in pending)
    return trials + artifacts + checkpoints + _vectors(grid, pending)


def _weights(grid: Plan, study: Study) -> int:
    """Bytes of a model: its item table, and as much again for all else."""
    items = grid.encoded_datasets[study.cell.dataset].prepared.catalogue.height
    return 2 * 4 * items * int(study.space.default.get("train.d", 0))


def _users(grid: Plan, study: Study) -> int:
    return len(grid.encoded_datasets[study.cell.dataset].prepared.offsets) - 1


def _vectors(grid: Plan, pending: list[Study]) -> int:
    cache = grid.request.home / "cache" / "embeddings"
    keys = {(study.cell.dataset, study.inputs.embedding) for study in pending if study.inputs.embedding}
    absent = [dataset for dataset, key in keys if not (cache / key).is_dir()]
    return sum(2 * 4 * WIDTH * grid.encoded_datasets[dataset].prepared.catalogue.height for dataset in absent)


def warn(grid: Plan, tell: Callable[[str], None]) -> None:
    """Say so if the disk has less room than the plan will take."""
    free, need = shutil.disk_usage(grid.request.home).free, needed(grid)
    if free < need:
        tell(
            f"Warning: this plan writes about {amount(need)} to {grid.request.home}, where {amount(free)} are free. If "
            "the disk fills up, what ended is kept, and the same command goes on once there is room."
        )


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(1_234), amount(5_600_000_000)
    ('1 kB', '5.6 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"

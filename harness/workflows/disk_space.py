"""Estimate the disk use of a plan, to warn before training starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from harness.search.plan import Plan
from harness.search.study import Study
from harness.system import cores
from harness.text import embeddings
from harness.types import Cell

WIDTH = 1024  # assumed width of an embedding that is not cached yet
TRIAL, EPOCH = 6_000, 150  # bytes in the ledger: start and end of a trial; an epoch
LISTED = 8  # bytes per place of a list
MIRROR = 60_000  # bytes per trial in a local MLflow store


def needed(grid: Plan, top_k: int = 0) -> int:
    """Estimate the bytes that the pending trials will write: ledger and mirror, embeddings and bases that are not
    cached, artifacts of the confirmations (in the home and in the mirror), one checkpoint per core.

    top_k: length of the stored lists.
    """
    pending = grid.pending
    if not pending:
        return 0
    trials = sum(study.to_run() * (TRIAL + MIRROR + EPOCH * study.epochs) for study in pending)
    user = 12 + LISTED * top_k
    artifacts = sum(2 * study.runs * (_weights(grid, study) + user * _users(grid, study)) for study in pending)
    checkpoints = cores.usable() * 4 * max(_weights(grid, study) for study in pending)
    return trials + artifacts + checkpoints + _vectors(grid, pending)


def _weights(grid: Plan, study: Study) -> int:
    """Bytes of a model: its item table, doubled for all other weights."""
    items = grid.encoded_datasets[study.cell.dataset].prepared.catalogue.height
    return 2 * 4 * items * int(study.space.default.get("train.d", 0))


def _users(grid: Plan, study: Study) -> int:
    return len(grid.encoded_datasets[study.cell.dataset].prepared.offsets) - 1


def _vectors(grid: Plan, pending: list[Study]) -> int:
    cache = grid.request.home / "cache" / "embeddings"
    cells = {study.inputs.embedding: study.cell for study in pending if study.inputs.embedding}
    absent = [cell for key, cell in cells.items() if not (cache / key).is_dir()]
    return sum(4 * WIDTH * _matrices(grid, cell) for cell in absent)


def _matrices(grid: Plan, cell: Cell) -> int:
    """Rows that the encoder of a cell writes: embedding and basis, with several texts an item also each text twice."""
    encoded = grid.encoded_datasets[cell.dataset]
    texts = len(embeddings.sources(encoded.encoders[cell.encoder]))
    return encoded.prepared.catalogue.height * (2 if texts == 1 else 2 + 2 * texts)


def warn(grid: Plan, log: Callable[[str], None], top_k: int = 0) -> None:
    """Log a warning if the disk has less free space than the plan needs."""
    free, need = shutil.disk_usage(grid.request.home).free, needed(grid, top_k)
    if free < need:
        log(
            f"Warning: this plan writes about {amount(need)} to {grid.request.home}, where {amount(free)} are free. If "
            "the disk fills up, finished trials are kept; free some space and run the same command to continue."
        )


def amount(size: int) -> str:
    """Format bytes for people.

    >>> amount(1_234), amount(5_600_000_000)
    ('1 kB', '5.6 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"

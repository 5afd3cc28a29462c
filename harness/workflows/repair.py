"""Void finished runs whose ranks are missing or damaged on disk, so that the bench reruns them."""

from __future__ import annotations

from collections.abc import Callable

from harness.record import artifacts
from harness.record import ledger as events
from harness.record.segments import Segment
from harness.search.plan import Plan
from harness.system import checksums

RANKS = "ranks.parquet"


def void_lost(grid: Plan, log: Callable[[str], None]) -> int:
    """Void the grid's finished runs that have no ranks, so that they are rerun; return their number.

    Damaged files are quarantined. Raises HarnessError if the ledger cannot be written.
    """
    home = grid.request.home
    lost = {trial_id: fault for trial_id in sorted(_confirmed(grid)) if (fault := _fault(grid, trial_id))}
    if not lost:
        return 0
    log(f"The ranks of {len(lost)} finished run(s) are missing or damaged; these runs are repeated.")
    segment = Segment(home)
    try:
        for trial_id, fault in lost.items():
            if fault == "damaged":
                checksums.set_aside(artifacts.artifact_folder(home, trial_id), f"{RANKS} does not match its checksum")
            event = events.voided(segment, trial_id, f"{RANKS} is {fault}")
            grid.studies[0].ledger.take(segment.run, event)
    finally:
        segment.close()
    return len(lost)


def _confirmed(grid: Plan) -> set[str]:
    confirmed = set()
    for study in grid.studies:
        ids = study.ledger.confirmations(study.record())
        confirmed |= {i for i in ids if i in study.ledger.trials and study.ledger.trials[i].status == "done"}
    return confirmed


def _fault(grid: Plan, trial_id: str) -> str:
    """Return the fault of a run's ranks, "" if intact. Ranks from older versions have no checksum: try to read them."""
    fault = artifacts.fault(grid.request.home, trial_id, RANKS)
    if not fault and artifacts.load_ranks(grid.request.home, trial_id) is None:
        return "damaged"
    return fault

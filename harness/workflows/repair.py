"""What a bench makes again: runs that are done by the ledger, but whose ranks are lost or damaged on disk."""

from __future__ import annotations

from collections.abc import Callable

from harness.record import artifacts
from harness.record import ledger as events
from harness.record.segments import Segment
from harness.search.plan import Plan
from harness.system import checksums

RANKS = "ranks.parquet"


def void_lost(grid: Plan, tell: Callable[[str], None]) -> int:
    """Record that runs of the grid without ranks no longer count, so that they are run again; returns how many.

    A damaged file is set aside. Raises HarnessError if the ledger cannot be written.
    """
    home = grid.request.home
    lost = {trial_id: fault for trial_id in sorted(_confirmed(grid)) if (fault := _fault(grid, trial_id))}
    if not lost:
        return 0
    tell(f"The ranks of {len(lost)} finished run(s) are missing or damaged; they are made again.")
    segment = Segment(home)
    try:
        for trial_id, fault in lost.items():
            if fault == "damaged":
                checksums.set_aside(artifacts.artifact_folder(home, trial_id), f"{RANKS} is not what was written")
            event = events.voided(segment, trial_id, f"{RANKS} is {fault}")
            grid.studies[0].ledger.take(segment.run, event)
    finally:
        segment.close()
    return len(lost)


def _confirmed(grid: Plan) -> set[str]:
    found = set()
    for study in grid.studies:
        ids = study.ledger.confirmations(study.record())
        found |= {i for i in ids if i in study.ledger.trials and study.ledger.trials[i].status == "done"}
    return found


def _fault(grid: Plan, trial_id: str) -> str:
    """What is wrong with a run's ranks; those of an earlier harness, which have no seal, are read."""
    fault = artifacts.fault(grid.request.home, trial_id, RANKS)
    if not fault and artifacts.load_ranks(grid.request.home, trial_id) is None:
        return "damaged"
    return fault

"""Void finished runs whose files are missing or damaged on disk, so that the bench reruns them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.record import artifacts, events
from harness.record.segments import Segment
from harness.search.ensembles import EnsembleStudy
from harness.search.plan import Plan
from harness.search.study import Study
from harness.system import checksums


def void_lost(grid: Plan, log: Callable[[str], None]) -> int:
    """Void the grid's finished runs that lost a file the grid needs, so that they are rerun; return their number.

    Every run needs its ranks; a part of a pending ensemble also needs its weights. Damaged files are quarantined.
    Raises HarnessError if the ledger cannot be written.
    """
    home = grid.request.home
    needed = [(trial_id, artifacts.RANKS) for trial_id in sorted(_confirmed(grid.studies))]
    needed += [(trial_id, artifacts.WEIGHTS) for trial_id in sorted(_confirmed(_sources(grid)))]
    faults = [(trial_id, name, _fault(home, trial_id, name)) for trial_id, name in needed]
    lost = {trial_id: (name, fault) for trial_id, name, fault in reversed(faults) if fault}
    if not lost:
        return 0
    names = " or ".join(sorted({"ranks" if name == artifacts.RANKS else "weights" for name, _ in lost.values()}))
    log(f"The {names} of {len(lost)} finished run(s) are missing or damaged; these runs are repeated.")
    segment, ledger = Segment(home), grid.studies[0].ledger
    try:
        for trial_id, (name, fault) in lost.items():
            if fault == "damaged":
                checksums.set_aside(artifacts.artifact_folder(home, trial_id), f"{name} does not match its checksum")
            event = events.voided(segment, trial_id, f"{name} is {fault}", ledger.trials[trial_id].run)
            ledger.take(segment.run, event)
    finally:
        segment.close()
    return len(lost)


def _sources(grid: Plan) -> list[Study]:
    """Return the studies of the rows that pending ensembles combine."""
    pending = [study for study in grid.pending if isinstance(study, EnsembleStudy)]
    return [source for study in pending for source in study.sources]


def _confirmed(studies: list[Study]) -> set[str]:
    confirmed = set()
    for study in studies:
        ids = study.ledger.confirmations(study.record())
        confirmed |= {i for i in ids if i in study.ledger.trials and study.ledger.trials[i].status == "done"}
    return confirmed


def _fault(home: Path, trial_id: str, name: str) -> str:
    """Return the fault of a run's file, "" if intact. Ranks of older versions have no checksum: try to read them."""
    fault = artifacts.fault(home, trial_id, name)
    if fault or name != artifacts.RANKS or name in (checksums.sums(artifacts.artifact_folder(home, trial_id)) or {}):
        return fault
    return "" if artifacts.load_ranks(home, trial_id) is not None else "damaged"

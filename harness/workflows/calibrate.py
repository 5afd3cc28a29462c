"""Calibration: measure the seconds per epoch of each cell on this machine, under the conditions of the bench.

The default configuration of each cell trains for three epochs (four if its backbone has a pace above 1) with the
cluster, slots and threads of the bench, so that slots slow each other down as they do in the bench. Nothing enters the
ledger; the home caches the paces by study, machine and layout.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

from harness.engine.slots import Layout
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import studies
from harness.search.plan import Plan
from harness.search.study import Study
from harness.system import interpreter, tempdirs
from harness.system.console import log
from harness.system.files import write_text
from harness.system.signals import Stop
from harness.types import Budget, Json, digest
from harness.workflows import forecast, provenance, shared_data
from harness.workflows.forecast import Pace

EPOCHS = 3  # the second is timed: it includes neither the warm-up of the first nor the work after the last


def paces(grid: Plan, wanted: list[Study], layout: Layout, cluster: Json | None) -> dict[str, Pace]:
    """Return the paces of the wanted studies by study id; measure those that the home has not cached.

    Needs an open Ray session. cluster: resources of a cluster of other machines, None for this machine. Cells that
    cannot be built are removed from the grid, as in a bench. Raises Interrupted if stopped; paces measured before are
    cached.
    """
    home = grid.request.home
    files = {s.id: _file(home, s, layout, cluster) for s in wanted}
    paces_by_study = {study_id: pace for study_id, file in files.items() if (pace := _cached(file)) is not None}
    if len(paces_by_study) < len(files):
        with Stop() as stop:
            fresh = _measure(grid, [s for s in wanted if s.id not in paces_by_study], layout, stop)
            for study_id, pace in fresh.items():
                write_text(files[study_id], json.dumps(asdict(pace)))
        stop.check()  # without the other cells, a forecast would be too short
        paces_by_study |= fresh
    return paces_by_study


def _file(home: Path, study: Study, layout: Layout, cluster: Json | None) -> Path:
    key = [study.id, provenance.machine(), layout.slots, layout.threads]
    key += [layout.gpu, cluster] if layout.gpu or cluster else []
    key += [2] if study.pace > 1 else []  # their first version counted further epochs as work after the last
    return home / forecast.CALIBRATED / f"{digest(key)}.json"


def _cached(file: Path) -> Pace | None:
    try:
        return Pace(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _measure(grid: Plan, wanted: list[Study], layout: Layout, stop: Stop) -> dict[str, Pace]:
    """Return the paces of the studies whose calibration succeeded, before a request to stop if there is one."""
    interpreter.check()
    from harness.engine import ray_tune

    log(f"Calibrating {len(wanted)} cells: {EPOCHS} epochs of each default configuration.")
    bases = shared_data.prepare(grid)
    ids = {study.id for study in grid.studies}
    wanted = [study for study in wanted if study.id in ids]
    with tempdirs.folder("calibrate") as home:
        ledger = Ledger()
        probes = {s.id: replace(s, budget=_budget(s), ledger=ledger, starts=()) for s in wanted}
        clock, segment = _Clock(), Segment(home)
        try:
            running = studies.TrialQueue(list(probes.values()), segment, clock)
            ray_tune.run(running, shared_data.collect(grid, wanted, bases), home, layout, 0.0, stop, log)
        finally:
            segment.close()
        paced = {study_id: clock.pace(probe) for study_id, probe in probes.items()}
        return {study_id: pace for study_id, pace in paced.items() if pace is not None}


def _budget(study: Study) -> Budget:
    """The budget of a probe: at least `EPOCHS` epochs, which the pace of the backbone multiplies."""
    return Budget("calibration", trials=1, epochs=math.ceil(EPOCHS / study.pace), patience=0, seeds=0)


class _Clock:
    """Records the times at which each study's epochs end."""

    def __init__(self) -> None:
        self.epoch_times: dict[str, list[float]] = {}

    def __call__(self, event: studies.GridEvent) -> None:
        if event.kind == "epoch":
            self.epoch_times.setdefault(event.assignment.study.id, []).append(time.monotonic())

    def pace(self, probe: Study) -> Pace | None:
        """Return the pace of the probe's only trial; None if it failed or reported fewer than two epochs."""
        done = [r for r in probe.ended() if r.status == "done"]
        times = self.epoch_times.get(probe.id, [])
        if not done or len(times) < 2:
            return None
        epoch = times[1] - times[0]
        return Pace(epoch, max(done[0].info.get("seconds", 0.0) - len(done[0].curve) * epoch, 0.0))

"""Status of the newest bench, running or finished, read from the ledger, and of benches in the background."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import get_args

from harness.record import leases
from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger, TrialEntry
from harness.report import table_scope
from harness.types import Cell, Json, Status
from harness.workflows import detached, eta
from harness.workflows.progress import clock


def of(home: Path) -> Json:
    """Return the state of the newest launch.

    `run`; `state`: running, finished, or stopped (by a signal, or killed); `over`: it is not running; `since`: seconds
    it has been running, or ran; `cells` in the order of the grid: trials `ended` / `planned`, `done`, `pruned`,
    `failed`, `confirmed` / `seeds`, `best` validation NDCG@10 or None, `eta` seconds or None; `in_flight`: trials that
    run, or were interrupted; `failures` of this run by reason; `trials` ended / planned; `eta` seconds of the grid or
    None; `skipped`; `damages`; `background`: the running benches that `--detach` started, else the last one, with
    `pid`, `log`, `running` and `last_line`. Before the first launch, `run` is "" and only `background` has entries.
    """
    ledger, background = Ledger.open(home), [bench.to_json() for bench in detached.newest(home)]
    if background and not ledger.launches and not ledger.damages:
        return NO_LAUNCH | {"background": background}
    launch = table_scope.newest(ledger)
    run = max(ledger.launches)
    ledger.read_epochs(run)
    cells = [_cell(ledger, study) for study in launch.studies]
    flying = ledger.entries(run, None)
    planned, ended = sum(c["planned"] for c in cells), sum(c["ended"] for c in cells)
    since = _running(ledger, run)
    state = "finished" if ended >= planned else _state(ledger, run)
    ends = None if state == "finished" else _ends(ledger, run, since)
    for place, cell in enumerate(cells):
        cell["eta"] = round(ends[place]) if ends else None
    return {
        "run": run,
        "state": state,
        "over": state != "running",
        "since": round(since),
        "trials": {"ended": ended, "planned": planned},
        "eta": round(max(ends)) if ends else None,
        "cells": cells,
        "skipped": [cell.to_json() for cell in launch.skipped],
        "in_flight": [] if state == "finished" else [_flight(e) for e in flying.values()],
        "failures": _failures(ledger.entries(run, "failed").values()),
        "damages": [str(damage) for damage in ledger.damages],
        "background": background,
    }


NO_LAUNCH: Json = {"run": "", "state": "finished", "over": True, "since": 0, "trials": {"ended": 0, "planned": 0}}
NO_LAUNCH |= {"eta": None, "cells": [], "skipped": [], "in_flight": [], "failures": {}, "damages": []}


def _state(ledger: Ledger, run: str) -> str:
    if run in ledger.over:
        return str(ledger.over[run]["kind"])
    assert ledger.home is not None
    if leases.alive(ledger.home, run):
        return "running"
    started = ledger.trials.code(run) in ledger.trials.run  # leases come before the first start
    return "stopped" if started or time.time() - ledger.times(run)[-1] > leases.SILENT else "running"


def _running(ledger: Ledger, run: str) -> float:
    """Return the seconds a run has been running.

    By this machine's monotonic clock while it runs here, else by the times of its events. Only steps forward count, so
    a clock that is set back subtracts nothing.
    """
    assert ledger.home is not None
    if (since := leases.running(ledger.home, run)) is not None:
        return since
    times = ledger.times(run)
    return sum(max(later - earlier, 0.0) for earlier, later in pairwise(times))


def _ends(ledger: Ledger, run: str, elapsed: float) -> list[float] | None:
    """Return the seconds from now to each cell's end; None until a trial has ended. `elapsed`: seconds of the run."""
    epochs = {i: e.epochs for i, e in ledger.entries(run, None).items() if e.epochs}
    launch = ledger.launches[run]
    works = [eta.work(ledger, study, epochs) for study in launch.studies]
    ran = [e.seconds for status in get_args(Status) for e in ledger.entries(run, status).values()]
    needed = eta.needs(works)
    if not ran or needed is None:
        return None
    slots = int(launch.provenance.get("slots", 1))
    return eta.finishes(needed, slots, eta.pace(works, ran, elapsed, slots))


def _cell(ledger: Ledger, study: StudyRecord) -> Json:
    planned = ledger.planned(study)
    searched = [e for _, _, e in ledger.searched(study.id, planned) if e.status is not None]
    started = [ledger.trials[i] for i in ledger.confirmations(study) if i in ledger.trials]
    confirmed = [e for e in started if e.status is not None]
    count = Counter(e.status for e in [*searched, *confirmed])
    return {
        "cell": str(study.cell),
        "ended": len(searched) + len(confirmed),
        "planned": planned + study.runs,
        **{status: count[status] for status in ("done", "pruned", "failed")},
        "confirmed": len(confirmed),
        "seeds": study.runs,
        "best": max((e.best for e in searched or confirmed if e.status == "done"), default=None),
    }


def _failures(failed: Iterable[TrialEntry]) -> dict[str, int]:
    """Count failed trials by reason, most frequent first; numbers in a reason (epochs, steps, sizes) are ignored."""
    reasons = [re.sub(r"\d+(\.\d+)?", "N", e.reason) for e in failed]
    return dict(Counter(reasons).most_common())


def _flight(entry: TrialEntry) -> Json:
    return {"cell": str(entry.trial.cell), "role": entry.trial.role, "epoch": entry.epochs, "of": entry.trial.epochs}


def text(report: Json) -> str:
    """Format the report for a terminal."""
    ended, planned = report["trials"]["ended"], report["trials"]["planned"]
    head = f"Launch {report['run']}: {ended} of {planned} trials ended"
    if not report["run"]:
        lines = ["No trial has started yet."]
    elif report["state"] == "finished":
        lines = [head + ", finished."]
    else:
        left = f", about {clock(report['eta'])} left" if report["eta"] is not None else ""
        stopped = report["state"] == "stopped"
        lines = [f"{head}, {'stopped after' if stopped else 'running for'} {clock(report['since'])}{left}."]
        lines += ["  To resume, run the command again."] if stopped else []
    lines += [f"  {_line(cell)}" for cell in report["cells"]]
    word = "interrupted" if report["state"] == "stopped" else "running"
    lines += [f"  {word}: {f['cell']} ({f['role']}, epoch {f['epoch']} of {f['of']})" for f in report["in_flight"]]
    lines += [f"  failed {count}x: {reason}" for reason, count in report["failures"].items()]
    lines += [f"  skipped {Cell(**s['cell'])}: {s['reason']}" for s in report["skipped"]]
    lines += [f"  Warning: {damage}" for damage in report["damages"]]
    return "\n".join(lines + [_background(bench) for bench in report["background"]])


def _background(bench: Json) -> str:
    states = {True: "running", False: "ended", None: "started on another machine"}
    state = f"{states[bench['running']]}: {bench['last_line']}"
    return f"Bench in the background (pid {bench['pid']}), log {bench['log']}: {state}"


def _line(cell: Json) -> str:
    odd = [f"{cell[status]} {status}" for status in ("pruned", "failed") if cell[status]]
    parts = [f"best {cell['best']:.4f}"] if cell["best"] is not None else []
    parts += [f"({', '.join(odd)})"] if odd else []
    parts += [f"done in {clock(cell['eta'])}"] if cell["eta"] and cell["ended"] < cell["planned"] else []
    return f"{cell['ended']:3d}/{cell['planned']:<3d} {cell['cell']}  {'  '.join(parts)}".rstrip()

"""Where the newest bench stands, read from the ledger alone, while it runs or after."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from harness import results
from harness.ledger import Ledger
from harness.progress import clock
from harness.types import Cell


def of(home: Path) -> dict[str, Any]:
    """State of the newest launch: `run`, `since` seconds, `over`, `cells` (trials ended, best validation NDCG@10,
    state), `in_flight`, `failures` by reason, `trials` ended / planned, `eta` seconds or None."""
    ledger = Ledger.open(home, epochs=True)
    launch = results.newest(ledger)
    run = max(ledger.launches)
    cells = [_cell(ledger, described) for described in launch["studies"]]
    flying = [_flight(e) for e in ledger.trials.values() if e.result is None and e.run == run]
    mine = [e for e in ledger.trials.values() if e.run == run and e.result is not None]
    planned, ended = sum(c["planned"] for c in cells), sum(c["ended"] for c in cells)
    since = max(0.0, time.time() - launch["time"])  # a clock that went back is no negative time
    over = run in ledger.finished or ended >= planned
    failures: dict[str, int] = {}
    for entry in mine:
        if entry.result is not None and entry.result.status == "failed":
            failures[entry.result.reason] = failures.get(entry.result.reason, 0) + 1
    return {
        "run": run,
        "since": round(since),
        "over": over,
        "trials": {"ended": ended, "planned": planned},
        "eta": None if over or not mine else round(since / len(mine) * (planned - ended)),
        "cells": cells,
        "skipped": launch["skipped"],
        "in_flight": [] if over else flying,
        "failures": failures,
        "damages": [str(damage) for damage in ledger.damages],
    }


def _cell(ledger: Ledger, described: dict[str, Any]) -> dict[str, Any]:
    trials = ledger.planned(described)
    history = ledger.history(described["study"], trials)
    searched = [result for _, result in history.values() if result is not None]
    confirmed = [i for i in results.confirmations(ledger, described) if ledger.result(i) is not None]
    return {
        "cell": str(Cell(**described["cell"])),
        "ended": len(searched) + len(confirmed),
        "planned": trials + described["seeds"],
        "best": max((r.best for r in searched), default=None),
    }


def _flight(entry: Any) -> dict[str, Any]:
    return {"cell": str(entry.trial.cell), "role": entry.trial.role, "epoch": entry.epochs, "of": entry.trial.epochs}


def text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    ended, planned = report["trials"]["ended"], report["trials"]["planned"]
    head = f"Run {report['run']}: {ended} of {planned} trials ended"
    if report["over"]:
        lines = [head + ", over."]
    else:
        eta = f", about {clock(report['eta'])} to go" if report["eta"] is not None else ""
        lines = [f"{head}, {clock(report['since'])} since its start{eta}."]
    for cell in report["cells"]:
        best = f"best {cell['best']:.4f}" if cell["best"] is not None else ""
        lines.append(f"  {cell['ended']:3d}/{cell['planned']:<3d} {cell['cell']}  {best}".rstrip())
    lines += [f"  running: {f['cell']} ({f['role']}, epoch {f['epoch']} of {f['of']})" for f in report["in_flight"]]
    lines += [f"  failed {count}x: {reason}" for reason, count in report["failures"].items()]
    lines += [f"  skipped {Cell(**s['cell'])}: {s['reason']}" for s in report["skipped"]]
    return "\n".join(lines + [f"  Warning: {damage}" for damage in report["damages"]])

"""The confirmed runs of a table as rows: what one training cost and what its model is like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean

from harness.record.ledger import Ledger
from harness.report.tables._frames import KEY
from harness.types import Cell, Json

# How the costs of several trials make one.
COMBINED = dict.fromkeys(("seconds", "energy_wh", "gpu_seconds"), sum) | {"peak_mb": max, "peak_vram_mb": max}


def run_row(ledger: Ledger, cell: Cell, ids: Sequence[str]) -> Json:
    """Return the row of a run: of its trial or, with folds, over the trials of all folds."""
    entries = [ledger.trials[trial_id] for trial_id in ids]
    results = [result for entry in entries if (result := entry.result) is not None]
    trials = [entry.trial for entry in entries]
    infos = [
        _with_parts(ledger, result.info, trial.inputs.parts) for result, trial in zip(results, trials, strict=True)
    ]
    info = infos[0] if len(infos) == 1 else _over_folds(infos)
    return {key: getattr(cell, key) for key in KEY} | {
        "trial": ids[0],
        "seed": trials[0].seed,
        "params": json.dumps(trials[0].params, sort_keys=True),
        "best_valid": sum(result.best for result in results) / len(results),
        "seconds": info.get("seconds", 0.0),
        "parameters": int(info.get("parameters", 0)),
        "effective_rank": info.get("effective_rank"),
        "info": json.dumps(info, sort_keys=True),
    }


def _over_folds(infos: list[dict[str, float]]) -> dict[str, float]:
    """Return the info of a run over folds: sums of seconds and energy, the highest memory use, else means."""
    combine = COMBINED | {"epochs": sum}
    names = dict.fromkeys(name for info in infos for name in info)
    values = {name: [info[name] for info in infos if name in info] for name in names}
    return {name: combine.get(name, fmean)(several) for name, several in values.items()}


def _with_parts(ledger: Ledger, info: dict[str, float], parts: Sequence[str]) -> dict[str, float]:
    """Return the info of a run with the costs of the trials that it combines: sums, and the highest memory use."""
    infos = [info, *(result.info for part in parts if (result := ledger.result(part)) is not None)]
    costs = COMBINED if parts else {}
    known = {name: combine for name, combine in costs.items() if all(name in one for one in infos)}
    return info | {name: combine(one[name] for one in infos) for name, combine in known.items()}

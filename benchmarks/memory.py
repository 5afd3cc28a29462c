"""Peak memory on Beauty of a whole harness trial and of training steps of RecTools and RecBole.

Each model runs in a separate process. The trial includes data set, basis, two epochs with validation, and result;
RecTools also recommends.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _measure
import peers

DATASET = "amazon2014-beauty"
FOLDER = _measure.HERE.parent.parent / "shared" / "data"
EPOCHS = 2
BOX, WARM_UP = 8.0, 2  # CPU seconds and warm-up steps of the peers; all their steps have the same size
GOAL = 1e9  # bytes
EXPORT = "export"
OURS = {"harness": "id", "harness, linear on text": "linear", "harness, spectran on text": "spectran"}


def child(task: str, folder: Path, home: Path) -> Any:
    """Run in a child process: return the request for the peers, or the peak memory in bytes of an adapter's trial."""
    import cases  # imported here to keep the parent small

    whole = cases.prepared(DATASET, folder, home)
    if whole is None:
        raise SystemExit(f"{folder / DATASET} is not there.")
    split = cases.shortened(whole, cases.MODEL["max_len"])
    if task == EXPORT:
        settings = {"model": cases.MODEL, "train": cases.TRAIN, "batch": cases.SEQUENCES}
        return settings | {"interactions": cases.export(split, home / "events.npz")}
    arrays = {} if task == "id" else cases.text(whole, folder, home)
    trial = cases.make_trial(whole.name, task, "sasrec", {"train.batch_size": cases.batch_size(split)})
    training = cases.training(trial, split, arrays)
    before = _measure.peak_memory()
    for _ in range(EPOCHS):
        training.epoch()
    training.finish()
    return {"before": before, "peak": _measure.peak_memory()}


def in_child(task: str, folder: Path, home: Path) -> Any:
    command = [sys.executable, __file__, "--data", str(folder), "--child", task, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{task}: {(done.stderr.strip().splitlines() or ['no error output'])[-1]}")
    return json.loads(done.stdout)


def peer(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    request = settings | {"seed": 0, "box": BOX, "warm_up": WARM_UP}
    request |= {"layers": "sasrec", "recommend": True} if name == "rectools" else {}
    return peers.run(name, f"peers_{name}.py", request)


def row(name: str, peak: int, goal: bool, before: int | None = None) -> dict[str, object]:
    verdict = ("met" if peak < GOAL else "missed") if goal else ""
    start = "" if before is None else f"{before / 1e6:,.0f}"
    return {"model": name, "peak MB": f"{peak / 1e6:,.0f}", "of which before training": start, "under 1 GB": verdict}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of data set folders")
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "HOME"), help="for internal use")
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child[0], options.data, Path(options.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = in_child(EXPORT, options.data, home)
        rows = []
        for name, adapter in OURS.items():
            memory = in_child(adapter, options.data, home)
            rows.append(row(name, memory["peak"], True, memory["before"]))
        rows += [row(peers.title(name), peer(name, settings)["peak"], False) for name in peers.NEEDS]
    about = (
        f"Peak resident memory of a process on {DATASET}, MB of 10⁶ bytes. harness: read, prepare, spectral basis, "
        f"{EPOCHS} epochs each with validation of all users, result. RecTools and RecBole: steps for {BOX:.0f} CPU "
        "seconds; RecTools then recommends to all users. Same model, 128 sequences per step."
    )
    _measure.write("memory", "Memory", about, _measure.table(rows))


if __name__ == "__main__":
    main()

"""Peak memory on Beauty, each model in a process of its own: of a whole trial of harness (data set, basis, two epochs
with validation, result), and of training steps of RecTools (which also recommends) and RecBole.
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
BOX, WARM_UP = 8.0, 2  # CPU seconds and steps of the peers: all their steps are of one size
GOAL = 1e9  # bytes
EXPORT = "export"
OURS = {"harness": "id", "harness, linear on text": "linear", "harness, spectran on text": "spectran"}


def child(what: str, folder: Path, home: Path) -> Any:
    """What one process is for: what the peers are asked, or the peak, in bytes, of a trial of an adapter."""
    import cases  # only here: the parent stays small

    whole = cases.prepared(DATASET, folder, home)
    if whole is None:
        raise SystemExit(f"{folder / DATASET} is not there.")
    split = cases.shortened(whole, cases.MODEL["max_len"])
    if what == EXPORT:
        settings = {"model": cases.MODEL, "train": cases.TRAIN, "batch": cases.SEQUENCES}
        return settings | {"interactions": cases.export(split, home / "events.npz")}
    arrays = {} if what == "id" else cases.text(whole, folder, home)
    made = cases.make_trial(whole.name, what, "sasrec", {"train.batch_size": cases.batch_size(split)})
    training = cases.training(made, split, arrays)
    before = _measure.peak_memory()
    for _ in range(EPOCHS):
        training.epoch()
    training.finish()
    return {"before": before, "peak": _measure.peak_memory()}


def in_child(what: str, folder: Path, home: Path) -> Any:
    command = [sys.executable, __file__, "--data", str(folder), "--child", what, str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{what}: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}")
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
    parser.add_argument("--child", nargs=2, metavar=("WHAT", "HOME"), help="used by this script itself")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(asked.child[0], asked.data, Path(asked.child[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = in_child(EXPORT, asked.data, home)
        rows = []
        for name, adapter in OURS.items():
            found = in_child(adapter, asked.data, home)
            rows.append(row(name, found["peak"], True, found["before"]))
        rows += [row(peers.title(name), peer(name, settings)["peak"], False) for name in peers.NEEDS]
    about = (
        f"Peak resident memory of a process on {DATASET}, MB of 10⁶ bytes. harness: read, prepare, spectral basis, "
        f"{EPOCHS} epochs each with validation of all users, result. RecTools and RecBole: steps until {BOX:.0f} CPU "
        "seconds are over; RecTools then recommends to all users. Same model, 128 sequences a step."
    )
    _measure.write("memory", "Memory", about, _measure.table(rows))


if __name__ == "__main__":
    main()

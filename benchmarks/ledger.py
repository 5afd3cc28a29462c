"""Cost of a large ledger for the commands that read it: `harness plan`, `leaderboard` and the bench of a finished grid.

The home is synthetic: every adapter under every backbone on a data set of MovieLens-100K's size, every trial finished,
with its epochs, as a bench would write it, but with random results. Each command is a separate process, as a user
starts it. The goals include Python's start and imports and are in CPU seconds, which equal wall seconds on a free core
and remain comparable on a busy machine. For reference, a reader that parses every line of the ledger is timed too.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure
import numpy as np
import polars as pl

SIZES = (1_000, 10_000, 100_000)
SEEDS, EPOCHS = 2, 10
ROUNDS = 5  # of each command, of which the median is reported; a report is written once
BACKBONES = "sasrec,gru4rec,bert4rec,hstu,esasrec,fmlp,mamba4rec"
VERBS = {  # command: goal in seconds at the largest size
    "plan": 2.0,
    "leaderboard": 2.0,
    "bench of a finished grid, its report written": 8.0,
    "bench of a finished grid, its report kept": 3.0,
}
NAIVE = """
import json, sys
from pathlib import Path
trials = {}
for file in Path(sys.argv[1], "ledger").glob("*.jsonl"):
    for line in file.read_text().splitlines():
        event = json.loads(line)
        if event["kind"] in ("started", "ended"):
            trials.setdefault(event["id"], []).append(event)
"""
WATCH = """
import atexit, runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import _measure
atexit.register(lambda: print("peak", _measure.peak_memory(), file=sys.stderr))
"""


def words(folder: Path, trials: int) -> list[str]:
    options = {"datasets": folder, "encoders": "noise", "backbones": BACKBONES, "adapters": "all", "kcore": 0}
    options |= {"trials": trials, "epochs": EPOCHS, "seeds": SEEDS, "sampler": "random"}
    return [word for key, value in options.items() for word in (f"--{key}", str(value))]


def dataset(folder: Path) -> Path:
    """A data set of 943 users with 60 events each over 1,682 items."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(943), 60)
    items = rng.integers(0, 1682, len(users))
    columns = {"user_id": users, "item_id": items, "timestamp": np.arange(len(users))}
    folder.mkdir()
    pl.DataFrame(columns).with_columns(pl.col("user_id", "item_id").cast(pl.String)).write_parquet(
        folder / "interactions.parquet"
    )
    names = [str(i) for i in range(1682)]
    pl.DataFrame({"item_id": names, "title": [f"item {i}" for i in names]}).write_parquet(folder / "items.parquet")
    return folder


def fill(home: Path, folder: Path, trials: int) -> int:
    """Write a home in which the grid of `words` is finished; returns its number of trials."""
    from dataclasses import replace

    from harness.record import ensembles, ledger, segments
    from harness.search import plan, spaces
    from harness.search.ensembles import EnsembleStudy
    from harness.system import checksums
    from harness.types import BUDGETS, Engine, PrepSpec
    from harness.workflows import provenance

    budget = replace(BUDGETS["quick"], trials=trials, epochs=EPOCHS, seeds=SEEDS)
    request = plan.Request(
        home,
        str(folder),
        "all",
        BACKBONES,
        "noise",
        budget=budget,
        prep=PrepSpec(kcore=0),
        engine=Engine("random", "median"),
        spaces=spaces.SpaceSource().under(budget.name),
    )
    grid = plan.make(request, ledger.Ledger())
    os.fsync = lambda handle: None  # a synthetic ledger need not survive a power failure
    segment = segments.Segment(home)
    segment.append("launched", **provenance.launch(grid, {}).to_json())
    rng, count = np.random.default_rng(1), 0
    confirmed: dict[Any, list[Any]] = {}  # by cell, for the ensembles, which come after their parts
    for study in grid.studies:
        searched = [study.trial("search", 0, study.space.default | {"train.lr": x}) for x in rng.random(study.trials)]
        values = rng.random(len(searched))
        for number, (trial, value) in enumerate(zip(searched, values, strict=True)):
            record(segment, trial, study.id, number, float(value))
        if isinstance(study, EnsembleStudy):
            parts = {source.cell.adapter: confirmed[source.cell] for source in study.sources}
            confirmed[study.cell] = ensembles.trials(study.cell, parts)
        else:
            winner = study.trial("confirm", 0, {}) if study.cell.is_baseline else searched[int(values.argmax())]
            confirmed[study.cell] = study.confirmations(winner)
        for number, trial in enumerate(confirmed[study.cell]):
            record(segment, trial, study.id, number, float(rng.random()))
            place = rng.integers(1, 1682, 943).astype(np.int32)
            ranks = {"user": np.arange(943, dtype=np.int32), "low": place, "high": place}
            artifacts = home / "artifacts" / trial.id
            artifacts.mkdir(parents=True)
            pl.DataFrame(ranks).write_parquet(artifacts / "ranks.parquet")
            checksums.seal(artifacts)
        count += len(searched) + len(confirmed[study.cell])
    segment.append("finished", ran=count)
    segment.close()
    return count


def record(segment: Any, trial: Any, study: str, number: int, best: float) -> None:
    from harness.record import events
    from harness.types import TrialResult

    curve = [round(best * (1 - 0.5**epoch), 8) for epoch in range(1, EPOCHS + 1)]
    names = [f"{name}@{k}" for name in ("NDCG", "HR", "MRR") for k in (5, 10, 20)]
    metrics = {name: best / (1 + i) for i, name in enumerate(names)}
    facts = ("parameters", "effective_rank", "isotropy", "alignment", "state_uniformity", "mean_cosine", "epochs")
    info = {"seconds": 12.5} | dict.fromkeys(facts, best * 100)
    events.started(segment, trial, study, number)
    for epoch, value in enumerate(curve):
        segment.append("epoch", id=trial.id, epoch=epoch, value=value)
    test = metrics if trial.role == "confirm" else {}
    events.ended(segment, trial.id, TrialResult("done", "", best, EPOCHS - 1, curve, metrics, test, info))


def measure(home: Path, code: str, arguments: list[str]) -> tuple[float, float, int]:
    """CPU seconds, wall seconds and peak bytes of a process. Raises SystemExit if it fails or trains anything."""
    command = [sys.executable, "-c", WATCH + code, str(_measure.HERE), *arguments]
    environment = {**os.environ, "HARNESS_HOME": str(home)}
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or "Running on" in done.stderr:  # the second is that of a bench that trains
        raise SystemExit(f"The grid that `fill` wrote is not that of the command.\n{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall, int(done.stderr.rpartition("peak ")[2])


def rows_of(size: int, cells: int, root: Path) -> list[dict[str, object]]:
    trials = max(1, size // cells - SEEDS + 1)
    home, folder = root / f"home-{size}", root / "data"
    if not (home / "count").exists():
        fill_it = [sys.executable, __file__, "--fill", str(home), str(folder), str(trials)]
        (home / "count").write_bytes(subprocess.check_output(fill_it))
    count = int((home / "count").read_text())
    megabytes = sum(file.stat().st_size for file in (home / "ledger").iterdir()) / 1e6
    cli = "runpy.run_module('harness.cli', run_name='__main__')"
    options = words(folder, trials)
    (home / "reports").mkdir(exist_ok=True)
    for report in (home / "reports").iterdir():  # left by an earlier call
        shutil.rmtree(report)
    commands = ["plan", *options], ["leaderboard", "--format", "csv"], ["bench", *options], ["bench", *options]
    verbs = dict(zip(VERBS, commands, strict=True))
    sides = {"every line parsed": (NAIVE, [str(home)])} | {name: (cli, command) for name, command in verbs.items()}
    rows: list[dict[str, object]] = []
    naive = 0.0
    for name, (code, command) in sides.items():
        once = measure(home, code, command)
        more = [] if "written" in name else [measure(home, code, command) for _ in range(ROUNDS - 1)]
        cpu, wall, peak = sorted([once, *more])[len(more) // 2]
        naive = naive or cpu
        row = {
            "trials": count,
            "ledger MB": round(megabytes),
            "command": name,
            "CPU s": cpu,
            "of parsing all": cpu / naive,
        }
        goal = VERBS.get(name) if size == SIZES[-1] else None
        verdict = "" if goal is None else f"{goal:g} s: {'met' if cpu < goal else 'missed'}"
        rows.append(row | {"wall s": wall, "peak MB": peak // 10**6, "goal": verdict})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--fill", nargs=3, metavar=("HOME", "DATA", "TRIALS"), help="for internal use")
    parser.add_argument("--root", type=Path, help="keep the synthetic homes in this folder and reuse them")
    options = parser.parse_args()
    if options.fill:
        home, folder, trials = options.fill
        return print(fill(Path(home), Path(folder), int(trials)))
    from harness import registry

    cells = len(BACKBONES.split(",")) * len(registry.select(registry.ADAPTERS, "all"))
    with tempfile.TemporaryDirectory() as scratch:
        root = options.root or Path(scratch)
        if not (root / "data").exists():
            dataset(root / "data")
        rows = [row for size in options.sizes for row in rows_of(size, cells, root)]
    about = f"{cells} cells and the baselines, {SEEDS} seeds each, {EPOCHS} epochs per trial."
    about += f" Medians of {ROUNDS} rounds by CPU time; the report is written once."
    about += f" Load of the machine: {os.getloadavg()[0]:.0f}."
    _measure.write("ledger", "A large ledger", about, _measure.table(rows))


if __name__ == "__main__":
    main()

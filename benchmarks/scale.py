"""Large grids by simulation: what the driver costs when 1,000 slots ask it for trials, and what gives way first.

Searcher, pruner, ledger and the order of trials are the real ones; trials are not. A trial is a number of seconds,
drawn from a lognormal distribution around a median, and reports one random value an epoch. The driver is a single
server in virtual time: each of its calls (`TrialQueue.next`, `epoch`, `ended`) lasts as long as it really took here,
and slots that need it meanwhile wait. `slots busy` is the share of slot time in which a trial ran, up to the last
start. Not in it: Ray's own part of an event (`engine.py` measures that on a real cluster), leases of a shared home,
checkpoints, artifacts, progress lines and the mirror. The median of 60 s is an assumption. The ledger of `--large` is
in memory, because it is synced twice a trial; how long that takes on the disk is measured beside it. It then gives
every confirmation random ranks of 1,000 users, and times `harness leaderboard` and `harness status` of that home.

    python benchmarks/scale.py [--large]      # --large: 1,000 slots, 10,000 cells, a million trials, about an hour
"""

from __future__ import annotations

import _measure  # before numpy: sets the threads
import ledger as ledgers

# isort: split

import argparse
import heapq
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness import registry
from harness.record import artifacts
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import spaces
from harness.search.plan import versions
from harness.search.studies import TrialQueue
from harness.search.study import Study
from harness.system import checksums
from harness.types import BUDGETS, Cell, Engine, Inputs, PrepSpec, Protocol, TrialResult, digest

EPOCHS, SEEDS = 10, 5
SPREAD = 0.5  # of the logarithm of a trial's seconds; an assumption
BACKBONES = ("sasrec", "gru4rec", "bert4rec", "hstu", "esasrec", "fmlp", "mamba4rec")
GOALS = {"ms": 5.0, "busy": 0.97, "peak": 2_000}
CASES = [  # slots, cells, trials of a cell, sampler, median seconds of a trial
    *((100, cells, 10, "random", 60.0) for cells in (100, 1_000)),
    *((1_000, cells, trials, "random", 60.0) for cells, trials in ((1_000, 10), (10_000, 2))),
    (1_000, 10_000, 2, "random", 20.0),
    *((slots, 100, 100, "random", 60.0) for slots in (10, 100)),
    *((100, 100, trials, "tpe", 60.0) for trials in (10, 30, 100)),
    *((20, 20, trials, "gp", 60.0) for trials in (10, 20)),
]
LARGE = [(1_000, 10_000, 95, "random", 60.0)]
MEMORY = "/dev/shm"
LARGEST, USERS = 500_000, 1_000  # trials from which commands are timed; users of their ranks
COMMANDS = (["leaderboard", "--format", "csv"], ["status"])


def studies(number: int, trials: int, sampler: str, ledger: Ledger) -> list[Study]:
    """That many cells: all adapters under all backbones, on as many data sets as it takes."""
    source = spaces.SpaceSource()
    kinds = list(itertools.product(BACKBONES, registry.select(registry.ADAPTERS, "all")))
    budget = BUDGETS["standard"].__class__("scale", trials, EPOCHS, 5, SEEDS)
    engine, spaces_of = Engine(sampler, "median"), {}
    found = []
    for index in range(number):
        backbone, adapter = kinds[index % len(kinds)]
        cell = Cell(f"set{index // len(kinds)}", "noise", backbone, adapter)
        space = spaces_of.setdefault((backbone, adapter), spaces.of_cell(cell, source))
        inputs = Inputs(data=digest(cell.dataset), embedding="e", versions=versions(cell, source.loss()))
        found.append(Study(cell, space, budget, Protocol(), engine, inputs, ledger))
    return found


class Driver:
    """The driver's clock in virtual seconds, and the CPU seconds of its calls."""

    def __init__(self) -> None:
        self.now, self.spent = 0.0, 0.0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        start, cpu = time.perf_counter(), time.process_time()
        answer = function(*arguments)
        self.now += time.perf_counter() - start  # with the wait for the disk: every start and end is synced
        self.spent += time.process_time() - cpu
        return answer


class Slots:
    """Slots in virtual time: which trials run, and the next event of each. An event is (time, order, trial, epoch)."""

    def __init__(self, number: int, median: float) -> None:
        self.free, self.median = number, median
        self.rng, self.order = np.random.default_rng(0), itertools.count()
        self.events: list[tuple[float, int, str, int]] = []
        self.running: dict[str, tuple[float, float, list[float]]] = {}  # start, seconds, curve
        self.spans: list[tuple[float, float]] = []  # of ended trials

    def start(self, trial_id: str, now: float) -> None:
        seconds = self.median * float(self.rng.lognormal(0.0, SPREAD))
        curve = [round(float(value), 8) for value in np.sort(self.rng.random(EPOCHS))]
        self.running[trial_id] = now, seconds, curve
        self.free -= 1
        self.expect(trial_id, 1)

    def expect(self, trial_id: str, epoch: int) -> None:
        start, seconds, _ = self.running[trial_id]
        heapq.heappush(self.events, (start + seconds * epoch / EPOCHS, next(self.order), trial_id, epoch))

    def end(self, trial_id: str, epoch: int) -> TrialResult:
        start, seconds, curve = self.running.pop(trial_id)
        self.free += 1
        self.spans.append((start, start + seconds * epoch / EPOCHS))
        status = "done" if epoch == EPOCHS else "pruned"
        info = {"seconds": seconds * epoch / EPOCHS, "epochs": float(epoch)}
        return TrialResult(status, "", max(curve[:epoch]), epoch - 1, curve[:epoch], info=info)

    def busy(self, slots: int, until: float) -> float:
        """Share of the slots' time up to `until` in which a trial ran."""
        return sum(max(min(end, until) - start, 0.0) for start, end in self.spans) / (slots * until)


def run(queue: TrialQueue, slots: Slots) -> tuple[Driver, float]:
    """Run a queue to its end; return the driver and the virtual time of the last start."""
    driver, nothing_due, last = Driver(), False, 0.0
    while True:
        arrived = slots.events and slots.events[0][0] <= driver.now
        if slots.free and not nothing_due and not arrived:
            assignment = driver.call(queue.next)
            if assignment is None:
                nothing_due = True
            else:
                last = driver.now
                slots.start(assignment.trial.id, driver.now)
            continue
        if not slots.events:
            return driver, last
        at, _, trial_id, epoch = heapq.heappop(slots.events)
        driver.now = max(driver.now, at)
        pruned = driver.call(queue.epoch, trial_id, epoch - 1, slots.running[trial_id][2][epoch - 1])
        if pruned or epoch == EPOCHS:
            driver.call(queue.ended, trial_id, slots.end(trial_id, epoch))
            nothing_due = False
        else:
            slots.expect(trial_id, epoch + 1)


def simulate(slots: int, cells: int, trials: int, sampler: str, median: float) -> dict[str, Any]:
    """Run a grid in virtual time; return its figures."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        segment, made = Segment(home), studies(cells, trials, sampler, Ledger.open(home))
        segment.append("launched", **launch(made).to_json())
        start = time.perf_counter()
        queue = TrialQueue(made, segment, lambda event: None)
        opened, virtual = time.perf_counter() - start, Slots(slots, median)
        driver, last = run(queue, virtual)
        if not queue.over:
            raise AssertionError("the simulation stopped before the grid was over")
        segment.close()
        size = sum(file.stat().st_size for file in (home / "ledger").iterdir())
        peak = _measure.peak_memory() / 1e6
        read = reading(home) if cells * trials > LARGEST else {}
    count = len(virtual.spans)
    figures = {"trials": count, "opening": opened, "ms": 1000 * driver.spent / count, "hours": driver.now / 3600}
    return figures | {"busy": virtual.busy(slots, last), "peak": peak, "mb": size / 1e6, "read": read}


def launch(made: list[Study]) -> LaunchRecord:
    """The launch of a grid, without data cards and provenance."""
    first, records = made[0], tuple(study.record() for study in made)
    return LaunchRecord("scale", first.protocol, PrepSpec(), first.budget, first.engine, records, (), {}, {})


def reading(home: Path) -> dict[str, tuple[float, float, int]]:
    """CPU seconds, wall seconds and peak bytes of commands that read a finished home."""
    rng = np.random.default_rng(1)
    trials = Ledger.open(home).trials
    for trial_id in (name for name, row in trials.rows.items() if trials.words[trials.role[row]] == "confirm"):
        place = rng.integers(1, 10_000, USERS).astype(np.int32)
        folder = artifacts.artifact_folder(home, trial_id)
        folder.mkdir(parents=True)
        ranks = {"user": np.arange(USERS, dtype=np.int32), "low": place, "high": place}
        pl.DataFrame(ranks).write_parquet(folder / artifacts.RANKS)
        checksums.seal(folder)
    cli = "runpy.run_module('harness.cli', run_name='__main__')"
    return {" ".join(words): ledgers.measure(home, cli, words) for words in COMMANDS}


def sync_milliseconds(times: int = 200) -> float:
    """Median milliseconds of a synced write of 1 kB to the folder for temporary files."""
    seconds = []
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(times):
            start = time.perf_counter()
            file.write(bytes(1000))
            os.fsync(file.fileno())
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds)


def measured(case: tuple[int, int, int, str, float], scratch: str) -> dict[str, Any]:
    """The figures of `simulate`, from a process of its own whose ledger is in `scratch`."""
    command, environment = [sys.executable, __file__, "--case", json.dumps(case)], os.environ | {"TMPDIR": scratch}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def row(case: tuple[int, int, int, str, float], found: dict[str, Any]) -> dict[str, object]:
    """A row of the table."""
    slots, cells, trials, sampler, median = case
    met = [found["ms"] <= GOALS["ms"], found["busy"] >= GOALS["busy"], found["peak"] <= GOALS["peak"]]
    return {
        "slots": slots,
        "cells": cells,
        "trials a cell": trials,
        "sampler": sampler,
        "s a trial": median,
        "trials": found["trials"],
        "queue made, s": found["opening"],
        "driver, CPU ms a trial": found["ms"],
        "slots busy": f"{100 * found['busy']:.1f} %",
        "virtual hours": found["hours"],
        "peak MB": round(found["peak"]),
        "ledger MB": round(found["mb"]),
        "goals": "met" if all(met) else "missed: " + ", ".join(n for n, m in zip(GOALS, met, strict=True) if not m),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--case", help="for internal use")
    options = parser.parse_args()
    if options.case:
        return print(json.dumps(simulate(*json.loads(options.case))))
    scratch = MEMORY if options.large else tempfile.gettempdir()
    found = {case: measured(case, scratch) for case in (LARGE if options.large else CASES)}
    about = (
        f"{EPOCHS} epochs of a trial, {SEEDS} confirmations of a cell, median pruner. Goals: {GOALS['ms']:g} CPU ms of "
        f"the driver for a trial, {100 * GOALS['busy']:g} % of slot time busy until the last start, {GOALS['peak']:,} "
        f"MB. Load of the machine: {os.getloadavg()[0]:.0f}."
    )
    if options.large:
        about += f" The ledger is in memory; a synced write to the disk takes {sync_milliseconds():.1f} ms here."
    read = [
        {"command": f"harness {words}", "CPU s": cpu, "wall s": wall, "peak MB": peak // 10**6}
        for figures in found.values()
        for words, (cpu, wall, peak) in figures["read"].items()
    ]
    parts = [
        _measure.table([row(case, figures) for case, figures in found.items()]),
        *([_measure.table(read)] if read else []),
    ]
    _measure.write("scale_large" if options.large else "scale", "Large grids by simulation", about, *parts)


if __name__ == "__main__":
    main()

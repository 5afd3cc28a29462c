"""Overhead of the engine: seconds per trial, idle slots, and a bench with nothing left to do.

The trials only sleep, so all other time is the engine's. It runs them like real ones (`ray_tune.run`: ledger, Optuna,
Tune), in actors whose training is replaced; the other sides use plain Tune, in the same run:

    python benchmarks/engine.py --home FOLDER      (keeps a small finished bench between calls)
"""

from __future__ import annotations

import _measure  # isort: skip  (sets the threads before torch is imported)

import argparse
import contextlib
import io
import itertools
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import ray
from ray import tune

from harness.engine import ray_tune
from harness.engine.slots import Layout
from harness.engine.worker_reports import Ended
from harness.metrics._ties import Ranks
from harness.record.ledger import Ledger
from harness.record.segments import Segment
from harness.search import axes, spaces
from harness.search.studies import GridEvent, TrialQueue
from harness.search.study import Study
from harness.system.signals import Stop
from harness.types import Budget, Cell, Engine, Inputs, Protocol, TrialResult

SLOTS = 2
TRIVIAL = 100  # trials that take no time, for each side that reuses processes
FRESH = 16  # trials of the side that starts a process per trial
MANY, STEP = 3000, 500  # trials of one long run, and between two measurements of it
CELLS = (0.3, 1.2, 0.6, 2.0, 0.4, 0.9, 0.2, 0.8)  # seconds per trial, cell by cell
LONGER = 2.5  # factor for a grid whose trials are longer than the start of a process
BUDGET = Budget("engine", trials=8, epochs=1, patience=0, seeds=2)
TPE = Engine("tpe", "median")
Span = tuple[float, float]  # begin and end of a trial's work


class Sleeper(ray_tune.TrialActor):
    """An actor whose trials sleep for the seconds given by their parameters."""

    def setup(self, config: dict[str, Any], shared: Any) -> None:
        super().setup(config, shared)
        self.worker._step = lambda: sleep(self.worker)


def sleep(worker: Any) -> Ended:
    """A trial of one epoch that exchanges the same messages with the driver as a real one."""
    worker.post("begin", worker.trial.id, *worker.place)
    begin, params = time.time(), worker.trial.params
    time.sleep(params["seconds"])
    info = {"seconds": params["seconds"], "begin": begin, "end": time.time()}
    empty = {"ranks": Ranks(np.ones(1), np.ones(1)), "users": np.zeros(1, np.int32), "spectra": {}, "weights": b""}
    return worker._finish(TrialResult("done", "", params["x"], 0, [params["x"]], info=info), SimpleNamespace(**empty))


ray_tune.TrialActor = Sleeper  # pyright: ignore[reportAttributeAccessIssue]


def study(number: int, seconds: float, ledger: Ledger, budget: Budget = BUDGET, engine: Engine = TPE) -> Study:
    cell = Cell("toy", "none", "sasrec", f"cell{number}")
    axis = axes.Range(0.0, 1.0)
    space = spaces.Space({"seconds": seconds}, {"x": axis}, {"seconds": seconds, "x": 0.5})
    return Study(cell, space, budget, Protocol(), engine, Inputs(data=f"toy {number}"), ledger)


def ours(seconds: list[float], budget: Budget = BUDGET, apart: bool = False) -> list[Span]:
    """Spans of all trials of a grid of such cells, in one Tune run or (`apart`) in one run per cell."""
    spans: list[Span] = []

    def listen(event: GridEvent) -> None:
        if event.kind == "ended" and event.result is not None:
            spans.append((event.result.info["begin"], event.result.info["end"]))

    with tempfile.TemporaryDirectory() as folder:
        home, ledger = Path(folder), Ledger()
        studies = [study(n, s, ledger, budget) for n, s in enumerate(seconds)]
        for part in [[one] for one in studies] if apart else [studies]:
            shared = {"splits": {}, "spectra": {}, "sizes": {}}
            with Stop() as stop:
                ray_tune.run(TrialQueue(part, Segment(home), listen), shared, home, Layout(SLOTS), 0.0, stop, print)
                stop.check()
    return spans


def tunes(count: int, reuse: bool) -> list[Span]:
    """Spans of trivial trials of Tune's function trainable, with default settings or with reused processes."""

    def train(config: dict[str, Any]) -> None:
        begin = time.time()
        tune.report({"begin": begin, "end": time.time()})

    with tempfile.TemporaryDirectory() as folder, quiet():
        results = tune.Tuner(
            train,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=count, reuse_actors=reuse, max_concurrent_trials=SLOTS),
            run_config=tune.RunConfig(storage_path=folder, name="stock", verbose=0),
        ).fit()
        return [(r.metrics["begin"], r.metrics["end"]) for r in results if r.metrics]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def gaps(spans: list[Span]) -> list[float]:
    """Seconds between the work of consecutive trials in a slot; a trial takes the slot that has been free longest."""
    free: list[float] = []
    seconds = []
    for begin, end in sorted(spans):
        if len(free) < SLOTS:
            free.append(end)
            continue
        place = free.index(min(free))
        seconds.append(max(begin - free[place], 0.0))
        free[place] = end
    return seconds


def busy(spans: list[Span]) -> tuple[float, float]:
    """Busy share of the slots, and the wall seconds from the first trial's begin to the last one's end."""
    wall = max(end for _, end in spans) - min(begin for begin, _ in spans)
    return sum(end - begin for begin, end in spans) / (SLOTS * wall), wall


def overhead() -> list[dict[str, object]]:
    many = Budget("engine", trials=TRIVIAL // 4, epochs=1, patience=0, seeds=0)
    sides = {
        "harness": ours([0.0] * 4, many),
        "Tune, function trainable, reused processes": tunes(TRIVIAL, reuse=True),
        "Tune, function trainable, default settings": tunes(FRESH, reuse=False),
    }
    return [
        {
            "side": name,
            "trials": len(spans),
            "median s per trial": statistics.median(gaps(spans)),
            "p90 s": float(np.quantile(gaps(spans), 0.9)),
        }
        for name, spans in sides.items()
    ]


def growth() -> list[dict[str, object]]:
    """CPU and memory of the driver in one long run of trivial trials, by the number of trials that have ended."""
    budget = Budget("engine", trials=10, epochs=1, patience=0, seeds=0)
    marks = [(0, time.process_time(), resident())]

    def listen(event: GridEvent) -> None:
        ended[0] += event.kind == "ended"
        if event.kind == "ended" and ended[0] % STEP == 0:
            marks.append((ended[0], time.process_time(), resident()))

    ended = [0]
    with tempfile.TemporaryDirectory() as folder, Stop() as stop:
        home = Path(folder)
        ledger, shared = Ledger.open(home), {"splits": {}, "spectra": {}, "sizes": {}}
        studies = [study(n, 0.0, ledger, budget, Engine("random", "none")) for n in range(MANY // budget.trials)]
        ray_tune.run(TrialQueue(studies, Segment(home), listen), shared, home, Layout(SLOTS), 0.0, stop, print)
        stop.check()
    return [
        {
            "trials ended": count,
            "driver, CPU ms per trial": 1000 * (cpu - before) / STEP,
            "kB per trial": (memory - less) / 1000 / STEP,
            "MB": round(memory / 1e6),
        }
        for (_, before, less), (count, cpu, memory) in itertools.pairwise(marks)
    ]


def resident() -> int:
    """Bytes of this process in memory."""
    return psutil.Process().memory_info().rss


def slots() -> list[dict[str, object]]:
    rows = []
    for times in (1.0, LONGER):
        cells = [seconds * times for seconds in CELLS]
        sides = {"one run for the grid": ours(cells), "one run per cell": ours(cells, apart=True)}
        for name, spans in sides.items():
            share, wall = busy(spans)
            trials = f"{min(cells):g} to {max(cells):g} s"
            row = {"trials": f"{len(spans)} of {trials}", "slots busy": f"{100 * share:.1f} %", "seconds": wall}
            rows.append({"side": name} | row)
    return rows


def resume(home: Path, data: str, repeats: int = 5) -> tuple[list[float], str]:
    """Seconds of whole `harness bench` processes with every trial in the ledger, and the grid as they print it."""
    words = "bench --max-history 20 --adapters id,linear,mlp,svd --encoders noise --trials 3"
    words += " --epochs 2 --seeds 2 --set train.d=16 --set train.max_len=20 --tracking off --json"
    command = [sys.executable, "-m", "harness.cli", *words.split(), "--datasets", data, "--home", str(home)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds, log = [], ""
    for _ in range(repeats):
        start = time.monotonic()
        log = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stderr
        seconds.append(time.monotonic() - start)
    assert "Nothing is left to do" in log
    return seconds, log.splitlines()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the overhead of the engine")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=_measure.HERE.parent.parent / "shared" / "data")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    seconds, grid = resume(options.home, _measure.ml_100k(options.data))
    silent = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    ray.init(address="local", num_cpus=SLOTS, **silent)
    grown, costs, waits = growth(), overhead(), slots()  # growth first: memory that was freed is used again
    ray.shutdown()
    more = float(str(costs[0]["median s per trial"])) - float(str(costs[2]["median s per trial"]))
    reused = float(str(costs[0]["median s per trial"])) - float(str(costs[1]["median s per trial"]))
    _measure.write(
        "engine",
        "The engine itself",
        f"{SLOTS} slots, trials that sleep; all sides in one process and one Ray session, one after the other.",
        "## Overhead a trial",
        "From the end of a trial's work to the begin of the next one's in the same slot; trivial trials. Ours "
        "includes the ledger (synced to disk three times per trial), Optuna's draw and Tune.",
        _measure.table(costs),
        f"Ours against Tune's function trainable: {more:+.3f} s per trial (goal: at most +0.05); against the same with "
        f"reused processes: {reused:+.3f} s.",
        "## Growth with the number of trials",
        "One run of trivial trials under random search; the first row includes the start.",
        _measure.table(grown),
        "## Slots on a grid of uneven cells",
        f"{len(CELLS)} cells of {', '.join(map(str, CELLS))} s per trial, and {LONGER:g} times those, "
        f"{BUDGET.trials} search trials and {BUDGET.seeds} seeds each, from the first trial's begin to the last one's "
        "end (goal: 97 % busy).",
        _measure.table(waits),
        "## Resume of a finished grid",
        f"`harness bench` on a home with all trials finished ({grid}), whole process: "
        f"median {statistics.median(seconds):.2f} s of {len(seconds)} (goal: under 3 s); "
        f"{', '.join(f'{s:.2f}' for s in seconds)}.",
    )


if __name__ == "__main__":
    main()

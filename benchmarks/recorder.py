"""What one recorder takes: checkpoints and artifacts of all workers go through one actor on the driver's machine.

A real Ray with the real `Recorder` (`ray_tune.start_recorder`). Slots are calls in flight from two client actors, so
that hundreds need no processes. Beside each rate stands the recorder's CPU time, which a busy machine changes less, and
the rate of one process that saves the same checkpoints without Ray.

The second table derives what 1,000 slots ask for. A trial saves its first checkpoint after its first epoch and later
ones only while saving takes at most 5 % of its time (`worker.SAVE_SHARE`), so slots adapt to a slow recorder: they save
less often, and a killed trial loses more.

    python benchmarks/recorder.py
"""

from __future__ import annotations

import _measure  # isort: skip  (sets the threads before torch is imported)

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from harness.engine import ray_cluster, ray_tune, worker
from harness.metrics._ties import Ranks
from harness.record import artifacts

CLIENTS, SLOTS = 2, 1000
SAVES = {0.5: (1, 8, 64), 5.0: (1, 8, 64), 50.0: (1, 8)}  # MB of a checkpoint: slots that save at a time
CALLS = (1, 8, 64)
TOTAL = {0.5: 200, 5.0: 500, 50.0: 1500}  # MB of each row
SECONDS = (60, 600, 3600)  # of a trial, in the second table
EPOCHS = 20
USERS = 20_000


class Client:
    """Sends calls to the recorder, `flight` at a time, each slot its own trial."""

    def send(self, recorder: Any, method: str, size: float, count: int, flight: int) -> None:
        data = np.random.default_rng(0).bytes(int(size * 1e6))
        make = {"save": lambda: (data,), "stopping": tuple, "finish": lambda: (_parts(data),)}[method]
        trials = [f"{os.getpid()}-{slot}" for slot in range(flight)]
        running: dict[Any, str] = {}
        for _ in range(count):
            trial = trials.pop() if trials else running.pop(ray.wait(list(running), num_returns=1)[0][0])
            named = () if method == "stopping" else (trial,)
            running[getattr(recorder, method).remote(*named, *make())] = trial
        ray.get(list(running))


def _parts(weights: bytes) -> dict[str, Any]:
    ranks = np.arange(USERS, dtype=np.float64)
    spectra = {"start": np.linspace(1, 0, 64), "end": np.linspace(1, 0, 64)}
    return {"users": np.arange(USERS), "ranks": Ranks.untied(1 + ranks), "spectra": spectra, "weights": weights}


def cpu_of(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, words[11:13])) / os.sysconf("SC_CLK_TCK")


def through_ray(home: Path) -> list[dict[str, Any]]:
    """Measure the recorder of a home. One row a method, size and number of slots that call at a time."""
    recorder = ray_tune.start_recorder(home)
    pid: Any = ray.get(recorder.__ray_call__.remote(lambda self: os.getpid()))
    client_class: Any = ray.remote(num_cpus=0)(Client)
    clients = [client_class.remote() for _ in range(CLIENTS)]

    def send(method: str, size: float, count: int, flight: int) -> dict[str, Any]:
        used = clients[: min(flight, CLIENTS)]
        each, slots = count // len(used), flight // len(used)
        ray.get([one.send.remote(recorder, method, size, slots, slots) for one in used])  # warm
        before, start = cpu_of(pid), time.monotonic()
        ray.get([one.send.remote(recorder, method, size, each, slots) for one in used])
        seconds, calls = time.monotonic() - start, each * len(used)
        return {
            "call": f"{method} {size:g} MB" if size else method,
            "slots at a time": flight,
            "calls/s": calls / seconds,
            "MB/s": calls * size / seconds if size else "",
            "seconds per call": seconds * flight / calls,
            "CPU ms per call": 1000 * (cpu_of(pid) - before) / calls,
        }

    rows = [send("stopping", 0.0, 4000, flight) for flight in CALLS]
    for size, flights in SAVES.items():
        rows += [send("save", size, max(int(TOTAL[size] / size), 2 * flight), flight) for flight in flights]
    return [*rows, send("finish", 5.0, 100, 8)]


def without_ray(home: Path) -> list[dict[str, Any]]:
    """Save the same checkpoints in this process."""
    rows = []
    for size in SAVES:
        data, count = np.random.default_rng(0).bytes(int(size * 1e6)), int(TOTAL[size] / size)
        before, start = time.process_time(), time.monotonic()
        for number in range(count):
            artifacts.save_checkpoint(home, str(number % 8), data)
        seconds = time.monotonic() - start
        rows.append(
            {
                "call": f"save {size:g} MB",
                "slots at a time": "without Ray",
                "calls/s": count / seconds,
                "MB/s": count * size / seconds,
                "seconds per call": seconds / count,
                "CPU ms per call": 1000 * (time.process_time() - before) / count,
            }
        )
    return rows


def needs(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What 1,000 slots ask of a recorder, against the best rates measured."""
    best = {size: max(row["MB/s"] for row in rows if row["call"] == f"save {size:g} MB") for size in SAVES}
    calls = max(row["calls/s"] for row in rows if row["call"] == "stopping")
    found = []
    for seconds in SECONDS:
        checks = SLOTS * min(1 / worker.STOP_CHECK_EVERY, EPOCHS / seconds)
        for size in SAVES:
            first = SLOTS * size / seconds
            found.append(
                {
                    "seconds of a trial": seconds,
                    "checkpoint MB": size,
                    "small calls/s": checks + 2 * SLOTS / seconds,
                    "calls, % of the best rate": 100 * (checks + 2 * SLOTS / seconds) / calls,
                    "first checkpoints MB/s": first,
                    "checkpoints, % of the best rate": 100 * first / best[size],
                    "seconds between a slot's checkpoints, at least": SLOTS * size / best[size],
                }
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the result instead of writing it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone = without_ray(Path(folder) / "alone")
        with ray_cluster.cluster(None):
            rows = through_ray(Path(folder) / "home")
    about = (
        f"Load of the machine: {os.getloadavg()[0]:.0f}. Four calls are served at a time. A trial has {EPOCHS} epochs."
    )
    parts = about, _measure.table(alone + rows), f"What {SLOTS:,} slots ask for:", _measure.table(needs(rows))
    print("\n\n".join(parts)) if options.print else _measure.write("recorder", "One recorder", *parts)


if __name__ == "__main__":
    main()

"""CPU seconds of training until validation NDCG@10 reaches the best level of RecTools' fast module.

The level is the mean over seeds of the best validation NDCG@10 that RecTools' FlatSASRecNet reaches at its best
learning rate: of the first seed's values, the one from which no neighbour in RATES is better. RecTools' time ends at
each seed's own best epoch and includes no validation; that of harness ends at the first epoch at the level or above and
includes its validations. A best epoch can be a late, lucky one on a flat curve, so the table also has both times to 95
% of the level, with the first epoch there for both. Both sides train on the same events and validate on the same users
with the items of the history excluded.

Seconds are epochs times the seconds of an epoch, which are measured at the end, in alternating rounds: the curves do
not depend on the load of the machine, only the rounds need a quiet one. A curve of RecTools is trained with harness's
loss at real positions and most of the padding cut off: the same loss and gradients in less time. Its epochs are timed
with its own forward. A run of harness ends at the level on the sets of TO_THE_LEVEL.
Finished curves are kept in results/time_to_quality.jsonl, so that another day or machine can go on.

Parameters of a side of harness (learning rate, batch size) are those that reach the level in the fewest seconds with
the first seed: the rate is found as that of RecTools, batches shrink as long as that helps.

    python benchmarks/time_to_quality.py ml-1m          # resumes after the last complete curve
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cases
import peers
import torch

from harness.data.splits import Prepared, Split

SETS = {  # length, sequences in a step of RecTools, most epochs, epochs without a better value before the end
    "ml-100k": (50, 32, 200, 15),
    "amazon2014-office": (20, 64, 200, 20),  # RecTools needs ten epochs to leave the level of popularity
    "amazon2014-beauty": (50, 128, 60, 10),
    "ml-1m": (50, 32, 120, 20),  # with 128 sequences it has not left the level of popularity after 16 epochs
}
TO_THE_LEVEL = ("amazon2014-beauty", "ml-1m")  # where an epoch takes long
GOALS = {"ml-100k": 10, "amazon2014-beauty": 40}  # RecTools' seconds over those of harness
RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
SEEDS = range(1, 6)
ROUNDS, BOX, WARM_UP = 3, 8.0, 2  # as in training.py
NEAR = 0.95  # share of the level
RECTOOLS = "rectools"


@dataclass(frozen=True)
class Side:
    """A side of harness: parameters that differ from `cases`, and batch sizes over the peer's mean targets a step."""

    params: dict[str, Any]
    batches: tuple[float, ...] = (1.0,)


TUNED = (1.0, 0.5, 0.25)
OURS = {
    "harness": Side({}),
    "harness, batch size tuned, moving average of weights": Side({"train.ema": 0.98}, TUNED),
}
if "avx512_bf16" in _measure.vectors():  # elsewhere torch emulates the products
    OURS["the same, logits in bfloat16"] = Side({"train.ema": 0.98, "train.precision": "bfloat16"}, TUNED)


class Runs:
    """Finished curves (validation NDCG@10 by epoch) in a file of JSON lines, one a set, side, parameters and seed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.done: dict[tuple[Any, ...], list[float]] = {
            tuple(run["key"]): run["ndcg"] for run in map(json.loads, lines)
        }

    def get(self, key: tuple[Any, ...], compute: Callable[[], list[float]]) -> list[float]:
        if key not in self.done:
            self.done[key] = compute()
            with self.file.open("a") as file:
                ndcg = [round(value, 6) for value in self.done[key]]
                file.write(json.dumps({"key": key, "ndcg": ndcg, "commit": _measure.commit()}) + "\n")
            best = _best(self.done[key])
            print(" ".join(map(str, key)), f"best {self.done[key][best]:.4f} after {best + 1} epochs", flush=True)
        return self.done[key]


@dataclass(frozen=True)
class Case:
    """One data set: its split, the file of its events for RecTools, and the settings of `SETS`."""

    name: str
    split: Split
    interactions: str
    max_len: int
    sequences: int
    epochs: int
    patience: int

    @classmethod
    def of(cls, whole: Prepared, home: Path) -> Case:
        max_len, *setting = SETS[whole.name]
        split = cases.shortened(whole, max_len)
        return cls(whole.name, split, cases.export(split, home / f"{whole.name}.npz"), max_len, *setting)

    def request(self, lr: float, seed: int, head: str) -> dict[str, Any]:
        model = cases.MODEL | {"max_len": self.max_len}
        train = {"interactions": self.interactions, "model": model, "train": {"lr": lr}}
        return train | {"batch": self.sequences, "seed": seed, "head": head}

    def rectools(self, lr: float, seed: int) -> list[float]:
        more = {"epochs": self.epochs, "patience": self.patience}
        return peers.run(RECTOOLS, "peers_rectools_fast.py", self.request(lr, seed, "blocks") | more)["ndcg"]

    def rectools_epoch(self) -> float:
        """CPU seconds of an epoch of RecTools' own forward."""
        request = self.request(cases.TRAIN["lr"], 0, "all") | {"box": BOX, "warm_up": WARM_UP}
        answer = peers.run(RECTOOLS, "peers_rectools_fast.py", request)
        return answer["cpu_seconds"] / answer["targets"] * cases.targets(self.split)

    def training(self, side: Side, lr: float, batch: float, seed: int) -> Any:
        size = round(batch * cases.batch_size(self.split, self.sequences))
        params = {"train.max_len": self.max_len, "train.lr": lr, "train.batch_size": size} | side.params
        return cases.training(cases.make_trial(self.name, "id", "sasrec", params, seed), self.split, {})

    def ours(self, side: Side, lr: float, batch: float, seed: int) -> list[float]:
        run, values = self.training(side, lr, batch, seed), []
        while len(values) < self.epochs and len(values) - 1 - _best(values) < self.patience:
            values.append(run.epoch())
        return values

    def fastest(self, side: Side, level: float, runs: Runs) -> tuple[float, float]:
        """Learning rate and batch size that reach the level in the fewest epochs with the first seed, by `best_rate` at
        one batch size after the other: an epoch takes as long at every rate, and nearly so at every batch size."""
        tried: dict[tuple[float, float], int] = {}

        def epochs(lr: float, batch: float) -> int:
            limit = min([self.epochs, *tried.values()])  # a run that takes longer counts as one that never gets there
            key = (self.name, "to the level", *side.params.values(), lr, batch)
            curve = runs.get(key, lambda: self.until(level, limit, side, lr, batch, SEEDS[0]))
            tried[lr, batch] = reached(curve, level) or self.epochs + 1
            return tried[lr, batch]

        found, fewest = (RATES[0], side.batches[0]), self.epochs + 2
        for batch in side.batches:
            rate = best_rate(lambda lr, batch=batch: -epochs(lr, batch))
            if tried[rate, batch] >= fewest:  # smaller steps no longer help
                break
            found, fewest = (rate, batch), tried[rate, batch]
        return found

    def until(self, level: float, most: int, side: Side, lr: float, batch: float, seed: int) -> list[float]:
        run, values = self.training(side, lr, batch, seed), []
        while len(values) < most and max(values, default=0.0) < level:
            values.append(run.epoch())
        return values


def _best(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__, default=0)


def reached(values: list[float], level: float) -> int | None:
    """Number of epochs until the first at the level."""
    return next((epoch for epoch, value in enumerate(values, 1) if value >= level), None)


def epoch_seconds(case: Case, found: dict[str, tuple[float, float]]) -> dict[str, float]:
    """Median CPU seconds of an epoch of RecTools and of every side of harness, validation included, at the rate and
    batch size of `found`; rounds alternate."""
    runs = {name: case.training(OURS[name], *chosen, seed=0) for name, chosen in found.items()}
    for run in runs.values():
        run.epoch()
    rounds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        rounds.setdefault(RECTOOLS, []).append(case.rectools_epoch())
        for name, run in runs.items():
            start = time.process_time()
            run.epoch()
            rounds.setdefault(name, []).append(time.process_time() - start)
    return {name: statistics.median(seconds) for name, seconds in rounds.items()}


def ours(case: Case, side: Side, chosen: tuple[float, float], seed: int, level: float, runs: Runs) -> list[float]:
    if case.name in TO_THE_LEVEL and seed == SEEDS[0]:  # trained by the search
        return runs.done[case.name, "to the level", *side.params.values(), *chosen]
    key = (case.name, "harness", *side.params.values(), *chosen, seed)
    if case.name in TO_THE_LEVEL:
        return runs.get((*key, "to the level"), lambda: case.until(level, case.epochs, side, *chosen, seed))
    return runs.get(key, lambda: case.ours(side, *chosen, seed))


def best_rate(value: Callable[[float], float]) -> float:
    """The rate of RATES that is better than its neighbours, climbing from the middle one, upwards first."""
    now = len(RATES) // 2
    while True:
        near = [at for at in (now + 1, now - 1) if 0 <= at < len(RATES)]
        better = next((at for at in near if value(RATES[at]) > value(RATES[now])), None)
        if better is None:
            return RATES[now]
        now = better


def measure(case: Case, runs: Runs) -> str:
    def peer(lr: float, seed: int) -> list[float]:
        return runs.get((case.name, RECTOOLS, lr, 1.0, seed), lambda: case.rectools(lr, seed))

    rate = best_rate(lambda lr: max(peer(lr, SEEDS[0])))
    peers_runs = [peer(rate, seed) for seed in SEEDS]
    level = statistics.mean(map(max, peers_runs))
    found = {name: case.fastest(side, level, runs) for name, side in OURS.items()}
    curves = {name: [ours(case, side, found[name], seed, level, runs) for seed in SEEDS] for name, side in OURS.items()}
    seconds = epoch_seconds(case, found)
    best = [_best(values) + 1 for values in peers_runs]
    title = f"{peers.title(RECTOOLS)}, fast module"
    base = Times.of(peers_runs, best, level, seconds[RECTOOLS])
    rows = [_row(title, (rate, 1.0), base, base, None)]
    for name, values in curves.items():
        times = Times.of(values, [reached(curve, level) for curve in values], level, seconds[name])
        rows.append(_row(name, found[name], times, base, GOALS.get(case.name)))
    about = (
        f"{len(case.split.valid.users):,} users, {case.split.n_items:,} items, {cases.targets(case.split):,} targets "
        f"per epoch; length {case.max_len}, patience {case.patience} epochs; {case.sequences} sequences per step of "
        "RecTools, which have "
        f"{cases.batch_size(case.split, case.sequences):,} targets on average. Level: {level:.4f}."
        + (
            " Runs of harness end at the level, so their best NDCG@10 is that of their last epoch."
            if case.name in TO_THE_LEVEL
            else ""
        )
    )
    return "\n\n".join([about, _measure.table(rows)])


@dataclass(frozen=True)
class Times:
    """Best values of the seeds, the CPU seconds of an epoch, and each seed's epochs to the level and near it."""

    best: list[float]
    epoch: float
    epochs: list[int | None]
    near: list[int | None]

    @classmethod
    def of(cls, curves: list[list[float]], epochs: list[Any], level: float, epoch: float) -> Times:
        return cls(list(map(max, curves)), epoch, epochs, [reached(curve, NEAR * level) for curve in curves])

    def median(self, epochs: list[int | None]) -> float:
        """Median seconds; a seed that never reaches the level counts as infinite."""
        return statistics.median(float("inf") if n is None else n * self.epoch for n in epochs)


def _row(name: str, chosen: tuple[float, float], times: Times, peer: Times, goal: float | None) -> dict[str, object]:
    ratio = peer.median(peer.epochs) / times.median(times.epochs)
    near = peer.median(peer.near) / times.median(times.near)
    return {
        "model": name,
        "learning rate": f"{chosen[0]:g}",
        "batch": f"{chosen[1]:g}",
        "best NDCG@10": f"{statistics.mean(times.best):.4f} (sd {statistics.stdev(times.best):.4f})",
        "CPU s of an epoch": times.epoch,
        "epochs to the level": ", ".join("-" if n is None else str(n) for n in times.epochs),
        "CPU s to the level": times.median(times.epochs),
        "RecTools takes": f"{ratio:.3g} x",
        "CPU s to 95 %": times.median(times.near),
        "RecTools takes, to 95 %": f"{near:.3g} x",
        "goal": "" if goal is None else f"{goal:g} x: {'met' if ratio >= goal else 'missed'}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(_measure.HERE / "results" / "time_to_quality.jsonl")
    with tempfile.TemporaryDirectory() as scratch:
        whole = cases.prepared(options.set, options.data, Path(scratch))
        if whole is None:
            raise SystemExit(f"{options.data} has no folder {options.set}.")
        result = measure(Case.of(whole, Path(scratch)), runs)
    how = (
        f"SASRec, {cases.MODEL}, full softmax, one thread, {len(SEEDS)} seeds. Learning "
        f"rates: of {', '.join(f'{rate:g}' for rate in RATES)} the one that beats its neighbours with the first seed; "
        "batch: over the mean targets of a step of RecTools. Feed-forward width d (harness), 4 d (RecTools). Medians "
        f"over seeds; seconds of an epoch: medians of {ROUNDS} alternating rounds."
    )
    _measure.write(f"time_to_quality_{options.set}", f"Time to quality, {options.set}", how, result)


if __name__ == "__main__":
    main()

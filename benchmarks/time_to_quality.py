"""CPU seconds of training until validation NDCG@10 reaches the best level of RecTools' fast module.

The level is the mean over seeds of the best validation NDCG@10 that RecTools' FlatSASRecNet reaches at its best
learning rate (the one with the best value of the first seed). Its time is that until each seed's own best epoch,
without any validation. harness pays for its validations, and its time is that until the first epoch at the level or
above, at the rate that reaches it first with the first seed; a seed that never does is counted as such. Both sides
train on the same events and validate on the same users with the items of the history excluded.

A seed's curve of RecTools is trained with logits at real positions only: the same loss and gradients in less time. Its
seconds are then multiplied by what its own forward takes more per target, measured in the same run.

    python benchmarks/time_to_quality.py --home HOME          # resumes after the last complete run
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cases
import peers
import torch

from harness.data.splits import Prepared, Split

SETS = {  # length, sequences in a step, most epochs
    "ml-100k": (50, 128, 120),
    "amazon2014-office": (20, 128, 60),
    "amazon2014-beauty": (50, 128, 60),
    "ml-1m": (50, 128, 120),
}
GOALS = {"ml-100k": 10, "amazon2014-beauty": 40}  # RecTools' seconds over those of harness
RATES = (5e-4, 1e-3, 2e-3, 4e-3)
SEEDS, PATIENCE = 5, 8
BOX, WARM_UP = 8.0, 2  # as in training.py
RECTOOLS = "rectools"
OURS = {  # side: parameters that differ from the defaults of `cases`
    "harness": {},
    "harness, logits in bfloat16": {"train.precision": "bfloat16"},
}


class Runs:
    """Finished runs in a file of JSON lines, one a set, side, rate and seed."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.file = home / "time_to_quality.jsonl"
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.done = {tuple(run["key"]): run for run in map(json.loads, lines)}

    def get(self, key: tuple[Any, ...], compute: Any) -> dict[str, Any]:
        if key not in self.done:
            self.done[key] = {"key": list(key), **compute()}
            with self.file.open("a") as file:
                file.write(json.dumps(self.done[key]) + "\n")
            print(" ".join(map(str, key)), f"best {max(self.done[key]['ndcg'], default=0):.4f}", flush=True)
        return self.done[key]


def rectools(interactions: str, max_len: int, sequences: int, epochs: int, lr: float, seed: int) -> dict[str, Any]:
    request = {"interactions": interactions, "model": cases.MODEL | {"max_len": max_len}, "train": {"lr": lr}}
    request |= {"batch": sequences, "seed": seed, "epochs": epochs, "patience": PATIENCE, "head": "real"}
    answer = peers.run(RECTOOLS, "peers_rectools_fast.py", request)
    return {name: answer[name] for name in ("seconds", "ndcg")}


def factor(interactions: str, max_len: int, sequences: int) -> float:
    """CPU seconds per target of the module's own forward, over those with logits at real positions only."""
    request = {"interactions": interactions, "model": cases.MODEL | {"max_len": max_len}, "train": cases.TRAIN}
    request |= {"batch": sequences, "seed": 0, "box": BOX, "warm_up": WARM_UP}
    rates = []
    for head in ("all", "real"):
        answers = [peers.run(RECTOOLS, "peers_rectools_fast.py", request | {"head": head}) for _ in range(3)]
        rates.append(statistics.median(answer["targets"] / answer["cpu_seconds"] for answer in answers))
    return rates[1] / rates[0]


def ours(split: Split, name: str, params: dict[str, Any], epochs: int, seed: int) -> dict[str, Any]:
    """One run of harness, validation included in its seconds."""
    run = cases.training(cases.make_trial(name, "id", "sasrec", params, seed), split, {})
    values: list[float] = []
    seconds: list[float] = []
    start = time.process_time()
    while len(values) < epochs and len(values) - 1 - _best(values) < PATIENCE:
        values.append(run.epoch())
        seconds.append(time.process_time() - start)
    return {"seconds": seconds, "ndcg": values}


def _best(values: list[float]) -> int:
    return max(range(len(values)), key=values.__getitem__, default=0)


def reached(run: dict[str, Any], level: float) -> float | None:
    """CPU seconds until the first epoch at the level."""
    return next((s for s, value in zip(run["seconds"], run["ndcg"], strict=True) if value >= level), None)


def measure(whole: Prepared, home: Path, runs: Runs) -> str:
    max_len, sequences, epochs = SETS[whole.name]
    split = cases.shortened(whole, max_len)
    interactions = cases.export(split, home / f"{whole.name}.npz")

    def peer(lr: float, seed: int) -> dict[str, Any]:
        key = (whole.name, RECTOOLS, lr, seed)
        return runs.get(key, lambda: rectools(interactions, max_len, sequences, epochs, lr, seed))

    rate = max(RATES, key=lambda lr: max(peer(lr, 1)["ndcg"]))
    peers_runs = [peer(rate, seed) for seed in range(1, SEEDS + 1)]
    level = statistics.mean(max(run["ndcg"]) for run in peers_runs)
    slower = runs.get(
        (whole.name, "forward", 0, 0), lambda: {"ndcg": [], "factor": factor(interactions, max_len, sequences)}
    )["factor"]
    times = [slower * run["seconds"][_best(run["ndcg"])] for run in peers_runs]
    title = f"{peers.title(RECTOOLS)}, fast module"
    rows = [_row(title, rate, [max(run["ndcg"]) for run in peers_runs], times, times, None)]
    for side, overrides in OURS.items():
        found = _ours(whole.name, split, side, overrides, (max_len, sequences, epochs), runs, level)
        best, mine = [max(run["ndcg"]) for run in found[1]], [reached(run, level) for run in found[1]]
        rows.append(_row(side, found[0], best, mine, times, GOALS.get(whole.name)))
    about = (
        f"{len(split.valid.users):,} users, {split.n_items:,} items, {cases.targets(split):,} targets per epoch; "
        f"length {max_len}, {sequences} sequences per step (harness: their average number of targets). "
        f"Level: {level:.4f}. "
        f"RecTools' own forward takes {slower:.2f} times as long per target as one with logits at real positions only."
    )
    return "\n\n".join([f"## {whole.name}", about, _measure.table(rows)])


def _ours(
    name: str, split: Split, side: str, overrides: dict, setting: tuple[int, int, int], runs: Runs, level: float
) -> tuple[float, list[dict[str, Any]]]:
    """The rate of one side of harness and its runs, one a seed."""
    max_len, sequences, epochs = setting

    def run(lr: float, seed: int) -> dict[str, Any]:
        params = {"train.max_len": max_len, "train.lr": lr, "train.batch_size": cases.batch_size(split, sequences)}
        return runs.get((name, side, lr, seed), lambda: ours(split, name, params | overrides, epochs, seed))

    rate = min(RATES, key=lambda lr: reached(run(lr, 1), level) or float("inf"))
    return rate, [run(rate, seed) for seed in range(1, SEEDS + 1)]


def _row(
    name: str, rate: float, best: list[float], times: list[float | None], peer: list[float], goal: float | None
) -> dict[str, object]:
    found = [seconds for seconds in times if seconds is not None]
    ratio = statistics.median(peer) / statistics.median(found) if found else 0.0
    return {
        "model": name,
        "learning rate": f"{rate:g}",
        "best NDCG@10": f"{statistics.mean(best):.4f} (sd {statistics.stdev(best):.4f})",
        "seeds at the level": f"{len(found)} of {len(times)}",
        "CPU s to the level, median": statistics.median(found) if found else "",
        "all seeds": ", ".join("-" if seconds is None else f"{seconds:.1f}" for seconds in times),
        "RecTools takes": f"{ratio:.3g} x" if found else "",
        "goal": "" if goal is None else f"{goal:g} x: {'met' if ratio >= goal else 'missed'}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    parser.add_argument("--home", type=Path, required=True, help="folder of finished runs")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = Runs(options.home)
    with tempfile.TemporaryDirectory() as scratch:
        sets = {name: cases.prepared(name, options.data, Path(scratch)) for name in options.sets}
        parts = [measure(whole, Path(scratch), runs) for whole in sets.values() if whole]
    left_out = [f"Left out because it is missing: {name}." for name, whole in sets.items() if not whole]
    how = (
        f"SASRec, {cases.MODEL}, full softmax, one thread, {SEEDS} seeds, patience {PATIENCE} epochs. Learning rates "
        f"tried with the first seed: {', '.join(f'{rate:g}' for rate in RATES)}. Feed-forward width d (harness), 4 d "
        "(RecTools)."
    )
    _measure.write("time_to_quality", "Time to quality", how, *parts, *left_out)


if __name__ == "__main__":
    main()

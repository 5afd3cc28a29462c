"""Trained targets per CPU second: harness against RecTools and RecBole, on the same events, one thread.

RecTools has two implementations: `SASRecModel` and, in `fast_transformers`, FlatSASRecNet. The goals compare with the
faster one. Its feed-forward layers have width 4 d, so one row of harness has that width too.

A target is a real (not padding) next-item position that enters the loss. Peers are timed over whole steps after a
warm-up, each round in a separate process; harness over whole epochs (`trial.Training.epoch`) after an untimed one.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import peers
import torch

from harness.data.splits import Prepared, Queries, Split
from harness.training import trial

DATASETS = ("ml-100k", "amazon2014-beauty")
FAST, REAL = "fast module", "fast module, logits at real positions only"  # of RecTools; its API has only the first
GOALS = {("amazon2014-beauty", FAST): 20, ("ml-100k", FAST): 2.5}  # rate of harness over rate of the peer
HEADS = {FAST: "all", REAL: "real"}
BOX, WARM_UP = 8.0, 2  # CPU seconds for which a peer is timed, and untimed steps before
ROUNDS = 3
HARNESS, HALF = "harness", "harness, logits in bfloat16"
SAMPLE = 30_000  # targets in a harness epoch that is timed without validation

Side = Callable[[], float]  # one round: targets per CPU second


def peer(name: str, interactions: str) -> Side:
    request = {"interactions": interactions, "model": cases.MODEL, "train": cases.TRAIN, "batch": cases.SEQUENCES}
    request |= {"seed": 0, "box": BOX, "warm_up": WARM_UP}
    request |= {"layers": "sasrec", "recommend": False} if name == "rectools" else {}

    def once() -> float:
        answer = peers.run(name, f"peers_{name}.py", request)
        return answer["targets"] / answer["cpu_seconds"]

    return once


def fast(head: str, interactions: str) -> Side:
    """RecTools' fast module."""
    request = {"interactions": interactions, "model": cases.MODEL, "train": cases.TRAIN, "batch": cases.SEQUENCES}
    request |= {"seed": 0, "box": BOX, "warm_up": WARM_UP, "head": head}

    def once() -> float:
        answer = peers.run("rectools", "peers_rectools_fast.py", request)
        return answer["targets"] / answer["cpu_seconds"]

    return once


def ours(training: trial.Training) -> Side:
    count = cases.targets(training.split)

    def once() -> float:
        start = time.process_time()
        training.epoch()
        return count / (time.process_time() - start)

    once()
    return once


def without_validation(split: Split) -> Split:
    """Random users with SAMPLE targets together; one query, since an epoch ends with validation."""
    order = np.random.default_rng(0).permutation(len(split.train_ends))
    before = np.cumsum(np.maximum(split.train_ends[order] - 1, 0))
    ends = np.zeros_like(split.train_ends)
    kept = order[: np.searchsorted(before, SAMPLE) + 1]
    ends[kept] = split.train_ends[kept]
    one = Queries(split.valid.users[:1], split.valid.ends[:1])
    return dataclasses.replace(split, train_ends=ends, valid=one)


def sides(whole: Prepared, split: Split, folder: Path, home: Path) -> dict[str, Side]:
    """The sides that alternate on a data set, peers first."""
    sample, batch = without_validation(split), {"train.batch_size": cases.batch_size(split)}
    arrays = cases.text(whole, folder, home)

    def side(adapter: str, backbone: str = "sasrec", on: Split = sample, plain: bool = False, **params: Any) -> Side:
        own = batch | {name.replace("_", ".", 1): value for name, value in params.items()}
        return ours(cases.training(cases.make_trial(whole.name, adapter, backbone, own), on, arrays, plain=plain))

    interactions = cases.export(split, home / f"{whole.name}.npz")
    named = {peers.title(name): peer(name, interactions) for name in peers.NEEDS}
    named |= {f"{peers.title('rectools')}, {name}": fast(head, interactions) for name, head in HEADS.items()}
    return named | {
        HARNESS: side("id"),
        "harness, epochs with validation": side("id", on=split),
        "harness with F.cross_entropy": side("id", plain=True),
        HALF: side("id", train_precision="bfloat16"),
        "harness, feed-forward width 4 d": side("id", backbone_ffn_mult=4),
        "harness, gru4rec": side("id", "gru4rec"),
        "harness, linear on text": side("linear"),
        "harness, spectran on text": side("spectran"),
    }


def measure(whole: Prepared, folder: Path, home: Path) -> str:
    split = cases.shortened(whole, cases.MODEL["max_len"])
    rounds: dict[str, list[float]] = {}
    alternating = sides(whole, split, folder, home)
    for _ in range(ROUNDS):
        for name, side in alternating.items():
            rounds.setdefault(name, []).append(side())
    medians = {name: statistics.median(rates) for name, rates in rounds.items()}
    rectools = peers.title("rectools")
    goals = {f"{rectools}, {name}": goal for (dataset, name), goal in GOALS.items() if dataset == whole.name}
    rows = [row(name, rounds[name], medians, goals.get(name)) for name in alternating]
    about = (
        f"{len(split.train_ends):,} users, {split.n_items:,} items, {cases.targets(split):,} targets per epoch. "
        f"Steps of {cases.SEQUENCES} sequences; for harness, of their average number of targets "
        f"({cases.batch_size(split):,}). RecBole's sequences are prefixes of histories with one target each."
    )
    return "\n\n".join([f"## {whole.name}", about, _measure.table(rows)])


def row(name: str, rates: list[float], medians: dict[str, float], goal: float | None) -> dict[str, object]:
    ratios = [medians[side] / medians[name] for side in (HARNESS, HALF)]
    verdicts = ["met" if goal and ratio >= goal else "missed" for ratio in ratios]
    return {
        "model": name,
        "targets per CPU second": medians[name],
        "rounds": ", ".join(f"{rate:,.0f}" for rate in rates),
        "harness is faster by": ratios[0],
        "with logits in bfloat16 by": ratios[1],
        "goal": "" if goal is None else f"{goal:g}: {verdicts[0]}; bfloat16: {verdicts[1]}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    folder = parser.parse_args().data
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        sets = {name: cases.prepared(name, folder, Path(home)) for name in DATASETS}
        parts = [measure(whole, folder, Path(home)) for whole in sets.values() if whole]
    left_out = [f"Left out because it is missing: {name}." for name, whole in sets.items() if not whole]
    setting = f"SASRec, {cases.MODEL}, feed-forward width d, full softmax, {cases.TRAIN}, one thread, medians of "
    how = (
        f"{ROUNDS} alternating rounds. All train on the last {cases.MODEL['max_len'] + 1} training events of each user."
    )
    _measure.write("training", "Training speed", setting + how, *parts, *left_out)


if __name__ == "__main__":
    main()

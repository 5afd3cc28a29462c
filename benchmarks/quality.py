"""NDCG@10 after equal epochs, over seeds: fast training must reach the same quality.

harness with its fused loss against harness with F.cross_entropy (same seeds, same batches) and against RecTools, on the
same events, validated on the same users with their training items excluded. Ranks above ten count as zero.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import cases
import numpy as np
import peers
import torch

from harness.data.splits import Prepared, Split
from harness.metrics._all import HEADLINE, means

SETTINGS = {  # past the steep part of the curve; all rows over five seeds take 25 minutes on one core
    "ml-100k": {"max_len": 50, "sequences": 32, "lr": 1e-3, "epochs": 15},
    "amazon2014-office": {"max_len": 20, "sequences": 64, "lr": 3e-3, "epochs": 8},
}
SEEDS = 5
T_95 = 2.31  # two-sided 95 % point of Student's t with 2 (SEEDS - 1) = 8 degrees of freedom
OURS = {  # row: parameters that differ from the first row; `plain`: with F.cross_entropy
    "harness": {},
    "harness with F.cross_entropy": {"plain": True},
    "harness, logits in bfloat16": {"train.precision": "bfloat16"},
    "harness, item vectors not scaled": {"backbone.emb_scale": "one"},
}
RECTOOLS = {"default layers": "sasrec", "pre-norm layers": "pre_ln"}
DIFFERENCES = (
    "Differences of RecTools, at equal data, width, blocks, heads, length, dropout rate, learning rate, steps and "
    "epochs: Adam with betas (0.9, 0.98), not (0.9, 0.999); all matrices start Xavier-normal, not N(0, 0.02²); "
    "positions are counted from the end; attention weights and the inner feed-forward layer have dropout too. Its "
    "default layers follow Kang & McAuley's code: layer norm only on the query, to which the residual is added, and "
    "ReLU; its pre-norm layers are those of harness except for another dropout after each block and no norm after the "
    "last. Its fast module has pre-norm layers with GELU, a feed-forward width of 4 d, item vectors and positions from "
    "N(0, 1) and PyTorch's own starts elsewhere, betas (0.9, 0.999), and ranks only items with a training event."
)

Run = Callable[[int], float]  # seed -> NDCG@10


def ours(whole: Prepared, split: Split, setting: dict, overrides: dict) -> Run:
    params = {"train.max_len": setting["max_len"], "train.lr": setting["lr"], "train.clip_norm": 1e9}
    params |= {"train.batch_size": cases.batch_size(split, setting["sequences"])}
    params |= {name: value for name, value in overrides.items() if name != "plain"}

    def once(seed: int) -> float:
        trial = cases.make_trial(whole.name, "id", "sasrec", params, seed)
        training = cases.training(trial, split, {}, plain=overrides.get("plain", False))
        return [training.epoch() for _ in range(setting["epochs"])][-1]

    return once


def rectools(interactions: str, setting: dict, layers: str) -> Run:
    model = cases.MODEL | {"max_len": setting["max_len"]}
    request = {"interactions": interactions, "model": model, "train": {"lr": setting["lr"]}, "layers": layers}
    request |= {"batch": setting["sequences"], "epochs": setting["epochs"], "recommend": True}

    def once(seed: int) -> float:
        ranks = np.array(peers.run("rectools", "peers_rectools.py", request | {"seed": seed})["ranks"])
        return means(np.where(ranks > 0, ranks, np.inf))[HEADLINE]

    return once


def fast(interactions: str, setting: dict) -> Run:
    """RecTools' fast module; logits at real positions only, which has the same loss and gradients in less time."""
    model = cases.MODEL | {"max_len": setting["max_len"]}
    request = {"interactions": interactions, "model": model, "train": {"lr": setting["lr"]}, "head": "real"}
    request |= {"batch": setting["sequences"], "epochs": setting["epochs"], "patience": 0}
    return lambda seed: peers.run("rectools", "peers_rectools_fast.py", request | {"seed": seed})["ndcg"][-1]


def measure(whole: Prepared, setting: dict, home: Path, peer: bool) -> str:
    split = cases.shortened(whole, setting["max_len"])
    interactions = cases.export(split, home / f"{whole.name}.npz")
    runs = {name: ours(whole, split, setting, overrides) for name, overrides in OURS.items()}
    title = peers.title("rectools")
    peers_runs = {f"{title}, {name}": rectools(interactions, setting, layers) for name, layers in RECTOOLS.items()}
    peers_runs[f"{title}, fast module"] = fast(interactions, setting)
    runs |= peers_runs if peer else {}
    values = {name: [run(seed) for seed in range(1, SEEDS + 1)] for name, run in runs.items()}
    rows = [row(name, scores, values["harness"]) for name, scores in values.items()]
    batch = cases.batch_size(split, setting["sequences"])
    about = (
        f"{len(split.valid.users):,} users, {split.n_items:,} items; length {setting['max_len']}, "
        f"{setting['sequences']} sequences per step (harness: their average number of targets, "
        f"{batch:,}), learning rate {setting['lr']}, {setting['epochs']} epochs."
    )
    return "\n\n".join([f"## {whole.name}", about, _measure.table(rows)])


def row(name: str, values: list[float], first: list[float]) -> dict[str, object]:
    """Mean and spread over seeds, and the difference from the first row."""
    difference = statistics.mean(values) - statistics.mean(first)
    error = ((statistics.variance(values) + statistics.variance(first)) / len(values)) ** 0.5
    verdict = "yes" if abs(difference) <= T_95 * error else "higher" if difference > 0 else "lower"
    return {
        "model": name,
        "validation NDCG@10": f"{statistics.mean(values):.4f}",
        "sd over seeds": f"{statistics.stdev(values):.4f}",
        "difference from harness": "" if values is first else f"{difference:+.4f} ± {error:.4f}",
        "within seed noise": "" if values is first else verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=cases.FOLDER, help="folder of data set folders")
    parser.add_argument(
        "--alone", action="store_true", help="leave out RecTools: 8 minutes, not 30; writes quality-alone.md"
    )
    options = parser.parse_args()
    folder, peer = options.data, not options.alone
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        sets = {name: cases.prepared(name, folder, Path(home)) for name in SETTINGS}
        parts = [measure(whole, SETTINGS[name], Path(home), peer) for name, whole in sets.items() if whole]
    left_out = [f"Left out because it is missing: {name}." for name, whole in sets.items() if not whole]
    how = (
        f"Means over {SEEDS} seeds, the last epoch, no early stopping; the difference with its standard error. Within "
        f"seed noise: up to {T_95} standard errors (95 %). SASRec, d=64, 2 blocks, 2 heads, dropout 0.2, full softmax; "
        "all sides train on the last length + 1 training events of each user; no weight decay, no clipping."
    )
    name, differences = ("quality", [DIFFERENCES]) if peer else ("quality-alone", [])
    _measure.write(name, "Quality at equal epochs", how, *parts, *left_out, *differences)


if __name__ == "__main__":
    main()

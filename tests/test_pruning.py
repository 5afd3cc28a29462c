"""The `wilcoxon` pruner on the real command line, and what a trial tells of its users."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import make_dataset
from helpers import bench, events
from scipy.stats import wilcoxon

from harness import paired
from harness.metrics._all import means


def test_the_same_users_are_told_of_every_trial_and_at_most_so_many():
    ranks = np.random.default_rng(0).integers(1, 30, 1000).astype(float)
    users = np.arange(1000)
    told = paired.scores(ranks, users, "a" * 24)
    assert len(told) == paired.USERS
    assert told == paired.scores(ranks, users, "a" * 24) != paired.scores(ranks, users, "b" * 24)
    few = paired.scores(ranks[:90], users[:90], "a" * 24)
    assert np.mean(few) / paired.UNIT == pytest.approx(means(ranks[:90])["NDCG@10"], abs=1e-4)


def test_a_bench_with_wilcoxon_stops_exactly_the_trials_that_its_ledger_says_are_worse(home, tmp_path):
    """Decided again from the ledger's lines, with scipy alone; killed half-way, it would find all of it there."""
    folder = make_dataset(tmp_path / "toy")
    words = ["--adapters", "id", "--pruner", "wilcoxon", "--sampler", "random", "--trials", "8", "--epochs", "8"]
    done = bench(home, folder, *words, "--threads", "2", "--tracking", "off")
    assert done.returncode == 0, done.stderr
    told: dict[str, list[list[int]]] = {}
    for event in events(home, "epoch"):
        if "users" in event:
            told.setdefault(event["id"], []).append(event["users"])
    searched = {e["id"] for e in events(home, "started") if e["trial"]["role"] == "search"}
    assert set(told) == searched, "confirming trials tell nothing"
    best, rows, stopped = -1.0, [], 0
    for event in events(home, "ended"):
        trial_id, result = event["id"], event["result"]
        if trial_id not in searched:
            continue
        worse = [
            n >= 3 and _worse(own, other) for n, (own, other) in enumerate(zip(told[trial_id], rows, strict=False))
        ]
        assert True not in worse[:-1], "stopped as soon as it was known"
        assert result["status"] == "done" or worse[-1]
        stopped += result["status"] == "pruned"
        if result["status"] == "done" and result["best"] > best:
            best, rows = result["best"], told[trial_id]
    assert stopped, "a random search has trials that are clearly worse"
    assert events(home, "launched")[0]["engine"]["pruner"] == "wilcoxon"


def _worse(own: list[int], best: list[int]) -> bool:
    gaps = np.subtract(own, best)
    return bool(gaps.any()) and wilcoxon(gaps[gaps != 0], alternative="less").pvalue < 0.1

"""The `wilcoxon` pruner on the real command line, and what a trial tells of its users."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from command_line import bench, events, harness, metrics_of
from dataset_files import make_dataset
from scipy.stats import wilcoxon

from harness.metrics._all import means
from harness.search import wilcoxon_pruner
from harness.training import user_scores

# On two cores one slot: which trial was finished first decides what the next ones are held against.
WORDS = ["--adapters", "id", "--pruner", "wilcoxon", "--sampler", "random", "--trials", "8", "--epochs", "8"]
WORDS += ["--threads", str(os.cpu_count()), "--tracking", "off"]


def test_the_same_users_are_told_of_every_trial_and_at_most_so_many():
    ranks = np.random.default_rng(0).integers(1, 30, 1000).astype(float)
    users = np.arange(1000)
    told = user_scores.scores(ranks, users, "a" * 24)
    assert len(told) == user_scores.USERS
    assert told == user_scores.scores(ranks, users, "a" * 24) != user_scores.scores(ranks, users, "b" * 24)
    few = user_scores.scores(ranks[:90], users[:90], "a" * 24)
    assert np.mean(few) / user_scores.UNIT == pytest.approx(means(ranks[:90])["NDCG@10"], abs=1e-4)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A data set folder, and the home of a bench on it that nothing stops."""
    root = tmp_path_factory.mktemp("undisturbed")
    folder, home = make_dataset(root / "toy"), root / "home"
    done = bench(home, folder, *WORDS)
    assert done.returncode == 0, done.stderr
    return folder, home


@pytest.mark.slow
def test_a_bench_with_wilcoxon_stops_exactly_the_trials_that_its_ledger_says_are_worse(undisturbed):
    """Decided again from the ledger's lines, with scipy alone; killed half-way, it would find all of it there."""
    _, home = undisturbed
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


@pytest.mark.slow
@pytest.mark.timeout(1200)  # three benches on all cores, and that of the fixture
def test_a_bench_with_wilcoxon_that_is_killed_stops_the_trials_that_an_undisturbed_one_stops(
    undisturbed, home, monkeypatch
):
    folder, plain = undisturbed
    for place in ("append:30", "append:12"):  # counted in each process
        monkeypatch.setenv("HARNESS_FAILPOINT", place)
        assert bench(home, folder, *WORDS).returncode == -signal.SIGKILL
    monkeypatch.delenv("HARNESS_FAILPOINT")
    done = bench(home, folder, *WORDS)
    assert done.returncode == 0, done.stderr
    found, expected = ({e["id"]: e["result"] for e in whole(one, "ended")} for one in (home, plain))
    assert {i: r["status"] for i, r in found.items()} == {i: r["status"] for i, r in expected.items()}
    assert {r["status"] for r in found.values()} == {"done", "pruned"}
    tables = [json.loads(harness(one, "leaderboard", "--format", "json").stdout) for one in (home, plain)]
    assert metrics_of(tables[0]) == metrics_of(tables[1])


def whole(home, kind):
    """Events of a kind, of lines that no kill tore."""
    lines = [line for file in (home / "ledger").glob("*.jsonl") for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines if line.startswith(f'{{"kind":"{kind}"')]


def _worse(own: list[int], best: list[int]) -> bool:
    gaps = np.subtract(own, best)
    return bool(gaps.mean() < 0) and wilcoxon(gaps[gaps != 0], alternative="less").pvalue < 0.1


def test_a_higher_mean_is_never_stopped():
    """Most users lose a little and a few win a lot: worse by the signs, better by the metric that ranks trials."""
    best = [5000] * 200
    mine = [4900] * 190 + [9000] * 10
    assert wilcoxon(np.subtract(mine, best), alternative="less").pvalue < 1e-9
    assert not wilcoxon_pruner.worse(mine, best)
    assert wilcoxon_pruner.worse([4900] * 190 + [5100] * 10, best)


@pytest.mark.parametrize(("rate", "least", "most"), [(0.5, 0.9, 1.0), (1.0, 0.15, 0.5), (1.3, 0.0, 0.05)])
def test_over_all_its_epochs_a_worse_trial_is_stopped_and_a_better_one_is_not(rate, least, most):
    """A trial is looked at after every epoch, 17 times here; its users keep nine tenths of their luck from one to the
    next. `rate`: its users' hits over those of the best trial."""
    rng, runs = np.random.default_rng(3), 60
    stopped = [_ever_worse(rng, rate) for _ in range(runs)]
    assert least <= sum(stopped) / runs <= most


def _ever_worse(rng, rate, epochs=20, users=256, hits=0.15):
    likely = rng.beta(0.5, 0.5 * (1 - hits) / hits, users)  # to be hit, of each user
    best, own = (_told(rng, np.clip(likely * times, 0, 1), epochs) for times in (1.0, rate))
    return any(wilcoxon_pruner.worse(mine, theirs) for mine, theirs in list(zip(own, best, strict=True))[3:])


def _told(rng, likely, epochs):
    gains, rows = (user_scores.UNIT / np.log2(np.arange(2, 12))).astype(int), []
    for epoch in range(epochs):
        fresh = np.where(rng.random(len(likely)) < likely, rng.choice(gains, len(likely)), 0)
        kept = epoch > 0 and rng.random(len(likely)) < 0.9
        rows.append(np.where(kept, rows[-1], fresh) if epoch else fresh)
    return [row.tolist() for row in rows]

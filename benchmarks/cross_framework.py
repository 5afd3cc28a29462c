"""Metrics of harness, RecTools and RecBole on the same lists: each scores its own and the others' top ten.

harness benches ml-100k; RecTools and RecBole each train a small SASRec for one epoch on the same events. The lists are
scored against the same test targets and training events by each library's own metric code.
"""

from __future__ import annotations

import _measure  # before torch: sets the threads

# isort: split

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import peers
import polars as pl

from harness.data import splits
from harness.data.splits import Split
from harness.metrics._all import means
from harness.metrics._ties import Ranks
from harness.metrics.lists import _all
from harness.metrics.lists._base import Catalogue, TopLists
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.training import list_scores
from harness.types import Trial

K, GOAL = 10, 1e-9
SCRIPTS = {"rectools": "peers_rectools_lists.py", "recbole": "peers_recbole_lists.py"}
ROWS = ("svd_whiten", "id", "popularity", "content_knn")
BENCH = ["--adapters", "id,svd_whiten", "--budget", "quick", "--epochs", "2", "--seeds", "1", "--tracking", "off"]
THEIRS = {  # our metric -> the library's metric
    "rectools": {
        "NDCG@10": ("NDCG", "NDCG over k"),
        "HR@10": ("HitRate", "Recall"),
        "MRR@10": ("MRR",),
        "coverage@10": ("CatalogCoverage",),
        "novelty@10": ("MeanInvUserFreq",),
        "arp@10": ("AvgRecPopularity",),
        "ild@10": ("IntraListDiversity",),
    },
    "recbole": {
        "NDCG@10": ("ndcg",),
        "HR@10": ("hit", "recall"),
        "MRR@10": ("mrr",),
        "coverage@10": ("itemcoverage",),
        "gini@10": ("giniindex",),
        "arp@10": ("averagepopularity",),
    },
}
DIFFERENCES = (
    "**NDCG of RecTools** divides by the gain of k relevant items by default; with one target it is at most 1 / S, "
    "where S = sum over i <= k of 1 / log2(i + 1), not 1. `NDCG` above is RecTools' with `divide_by_achievable=True`; "
    "`NDCG over k` is the default, times S.",
    "**RecBole's catalogue** has one more item, its padding. Converted: coverage times (N + 1) / N, Gini G to "
    "((N + 1) G - 1) / N.",
    "**RecBole rounds** to `metric_decimal_place`: 4 by default, 15 here.",
    "**RecTools has no Gini index, RecBole no novelty and no distance.** RecTools' `IntraListDiversity` takes the "
    "distance as a parameter: the cosine distance is a class of the benchmark, pairs and means are RecTools'. It gives "
    "a list of one item 0; harness leaves the list out.",
    "**Users or events**: novelty counts users of an item, popularity counts events, in all libraries that have them.",
    "**Ties**: metrics of a list see one order of equal scores. The bench's NDCG, HR and MRR are expectations over all "
    "orders of a tie, so they differ for rows with ties (last table).",
)


def arrays(split: Split, text: np.ndarray, lists: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Input of the peers: `train`, `history` (events, 2) and `targets` (q, 2) of user and item number from 1, each
    user's in order; `text` (N, D); `lists <name>` (q, K) item numbers of the targets' lists."""
    assert split.test is not None
    users = np.repeat(np.arange(len(split.train_ends)), np.diff(split.offsets))
    within = np.arange(len(users)) - split.offsets[users]
    events = np.stack([users, split.items], 1).astype(np.int64)
    at = split.offsets[split.test.users] + split.test.ends
    ends = np.diff(split.offsets)
    ends[split.test.users] = split.test.ends
    named = {f"lists {name}": items.astype(np.int64) for name, items in lists.items()}
    train, history = events[within < split.train_ends[users]], events[within < ends[users]]
    return {"train": train, "history": history, "targets": events[at], "text": text.astype(np.float64), **named}


def bench(home: Path, data: Path, encoder: str) -> None:
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "bench",
        "--datasets",
        _measure.ml_100k(data),
        "--encoders",
        encoder,
    ]
    words = [*command, *BENCH, "--top-k", str(K), "--home", str(home)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"harness bench failed: {done.stderr.splitlines()[-1]}")


def exported(home: Path, row: str, ids: list[str], queries: int) -> np.ndarray:
    """Lists of a row by `harness export --lists`: item numbers from 1 (queries, K)."""
    file = home / f"{row}.parquet"
    words = ["export", row, "--lists", "--top-k", str(K), "--output", str(file), "--home", str(home)]
    subprocess.run([sys.executable, "-m", "harness.cli", *words], check=True, capture_output=True)
    number = {item: place for place, item in enumerate(ids, 1)}
    return np.array([number[item] for item in pl.read_parquet(file)["item_id"]]).reshape(queries, K)


def recommended(home: Path, split: Split, text: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Lists of the peers' models, and RecBole's evaluation of its own."""
    lists, own = {}, {}
    for name, script in SCRIPTS.items():
        answer = peers.run(name, script, {"task": "recommend", "data": saved(home, split, text, {}), "k": K})
        lists[f"{name} SASRec"], own = np.array(answer["lists"]), answer.get("own", own)
    return lists, own


def saved(home: Path, split: Split, text: np.ndarray, lists: dict[str, np.ndarray]) -> str:
    np.savez(home / "lists.npz", allow_pickle=False, **arrays(split, text, lists))
    return str(home / "lists.npz")


def ours(items: np.ndarray, targets: np.ndarray, catalogue: Catalogue) -> dict[str, float]:
    """Our metrics of lists of item numbers (q, K); a target outside its list ranks below it."""
    hits = items == targets[:, None]
    ranks = np.where(hits.any(1), hits.argmax(1) + 1.0, K + 1.0)
    rank_metrics = means(Ranks.untied(ranks))
    places = TopLists((items - 1).astype(np.int32), np.zeros(items.shape, np.float32))
    kept = {name: rank_metrics[name] for name in ("NDCG@10", "HR@10", "MRR@10")}
    return kept | _all.scores(places, catalogue)


def converted(library: str, metric: str, value: float, n_items: int) -> float:
    """A library's value by our definition."""
    if metric == "NDCG over k":
        return value * float((1 / np.log2(np.arange(2, K + 2))).sum())
    if (library, metric) == ("recbole", "itemcoverage"):
        return value * (n_items + 1) / n_items
    if (library, metric) == ("recbole", "giniindex"):
        return ((n_items + 1) * value - 1) / n_items
    return value


def differences(
    found: dict[str, dict[str, float]], peer: dict[str, dict[str, dict[str, float]]], n_items: int
) -> list[dict[str, object]]:
    """A row per metric of a peer: the largest absolute difference from ours over all lists, before and after
    conversion."""
    rows = []
    for library, metrics in THEIRS.items():
        for name, words in metrics.items():
            for word in words:
                values = [(found[lists][name], peer[library][f"lists {lists}"][word]) for lists in found]
                raw = max(abs(a - b) for a, b in values)
                gap = max(abs(a - converted(library, word, b, n_items)) for a, b in values)
                rows.append(
                    {
                        "metric": name,
                        "compared with": f"{peers.title(library)} {word}",
                        "largest difference": f"{gap:.1e}",
                        "before conversion": "" if raw == gap else f"{raw:.1e}",
                        "goal": "met" if gap <= GOAL else "missed",
                    }
                )
    return rows


def recorded(home: Path, found: dict[str, dict[str, float]], runs: dict[str, Trial]) -> list[dict[str, object]]:
    """NDCG@10 of the bench (expectation over ties) and of its lists (one order), and the share of tied targets."""
    ledger, rows = Ledger.open(home), []
    for row, run in runs.items():
        result, frame = ledger.result(run.id), row_lookup.ranks(home, run)
        assert result is not None
        tied = float((frame["low"] != frame["high"]).to_numpy().mean())
        gap = abs(result.test["NDCG@10"] - found[row]["NDCG@10"])
        rows.append({"row": row, "targets with ties": f"{100 * tied:.1f} %", "NDCG@10: difference": f"{gap:.1e}"})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=_measure.HERE.parent.parent / "shared" / "data")
    parser.add_argument("--encoder", default="minilm", help="encoder of the texts, e.g. noise (no download)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        bench(home, options.data, options.encoder)
        ledger = Ledger.open(home)
        rows = {name: row_lookup.find(row_lookup.of(ledger), name) for name in ROWS}
        runs = {name: row_lookup.confirmed(ledger, row)[0] for name, row in rows.items()}
        first = runs["svd_whiten"]
        prepared = row_lookup.sequences(home, rows["svd_whiten"], first.inputs.data)
        text = row_lookup.text(home, rows["svd_whiten"], first.inputs.embedding, prepared)["E"]
        split = splits.split(prepared, first.protocol)
        assert split.test is not None
        ids, queries = prepared.catalogue["item_id"].to_list(), len(split.test.users)
        lists = {name: exported(home, name, ids, queries) for name in ROWS}
        others, own = recommended(home, split, text)
        lists |= others
        targets = split.items[split.offsets[split.test.users] + split.test.ends]
        catalogue = list_scores.catalogue(split, text)
        found = {name: ours(items, targets, catalogue) for name, items in lists.items()}
        request = {"task": "score", "data": saved(home, split, text, lists), "k": K}
        peer = {name: peers.run(name, script, request)["scores"] for name, script in SCRIPTS.items()}
        compared = differences(found, peer, split.n_items)
        of_bench = recorded(home, found, runs)
    about = (
        f"{queries:,} test users and {split.n_items:,} items of ml-100k, leave one out, top {K}; texts by "
        f"`{options.encoder}`. Lists: {', '.join(lists)}. Largest absolute difference over all lists. Goal: {GOAL:g}."
    )
    shown = [{"lists": name, **{metric: f"{value:.4f}" for metric, value in found[name].items()}} for name in lists]
    mine = {"ndcg": "NDCG@10", "hit": "HR@10", "mrr": "MRR@10"}
    gaps = [abs(own[f"{theirs}@{K}"] - found["recbole SASRec"][name]) for theirs, name in mine.items()]
    pipeline = f"RecBole's evaluation of its model in training differs by {max(gaps):.1e} (NDCG, HR, MRR)."
    _measure.write(
        "cross-framework",
        "Metrics of three libraries on the same lists",
        about,
        _measure.table(compared),
        pipeline,
        "## Differences of definition",
        "\n".join(f"- {line}" for line in DIFFERENCES),
        "## Values",
        _measure.table(shown),
        "## The bench and its lists",
        _measure.table(of_bench),
    )


if __name__ == "__main__":
    main()

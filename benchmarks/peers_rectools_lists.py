"""Recommend with RecTools' SASRec, or score lists with RecTools' metrics. Runs in RecTools' environment (see peers.py).

Request: `task` and `data`, an .npz of `cross_framework.arrays`. Task `recommend`: fit one epoch to the histories,
answer `lists`, item numbers (targets, `k`) without seen items. Task `score`: answer `scores`, for each list in the file
the metrics at `k` by RecTools' names.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import (
    MRR,
    NDCG,
    AvgRecPopularity,
    CatalogCoverage,
    HitRate,
    IntraListDiversity,
    MeanInvUserFreq,
    Recall,
    calc_metrics,
)
from rectools.metrics.distances import PairwiseDistanceCalculator
from rectools.models import SASRecModel


class CosineDistance(PairwiseDistanceCalculator):
    """RecTools has no cosine distance; this one only provides distances of pairs. vectors: item i is row i - 1."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def _get_distances_for_item_pairs(self, items_0, items_1) -> np.ndarray:
        return 1 - (self.units[items_0 - 1] * self.units[items_1 - 1]).sum(1)


def trainer() -> Trainer:
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(max_epochs=1, accelerator="cpu", enable_checkpointing=False, **silent)


def dataset(events: np.ndarray) -> Dataset:
    """Return a RecTools data set of events (n, 2), ordered within each user."""
    order = pd.to_datetime(np.arange(len(events)), unit="s")
    columns = {Columns.User: events[:, 0], Columns.Item: events[:, 1], Columns.Weight: 1.0, Columns.Datetime: order}
    return Dataset.construct(pd.DataFrame(columns))


def recommend(arrays: dict[str, np.ndarray], k: int) -> list[list[int]]:
    seed_everything(0)
    model = SASRecModel(n_blocks=1, n_heads=2, n_factors=32, session_max_len=50, get_trainer_func=trainer)
    model.fit(dataset(arrays["history"]))
    users = arrays["targets"][:, 0]
    found = model.recommend(users, dataset(arrays["history"]), k=k, filter_viewed=True)
    lists = found.sort_values(Columns.Rank).groupby(Columns.User)[Columns.Item].agg(list)
    return [lists[user] for user in users]


def score(arrays: dict[str, np.ndarray], k: int) -> dict[str, dict[str, float]]:
    targets = pd.DataFrame(arrays["targets"], columns=[Columns.User, Columns.Item])
    train = pd.DataFrame(arrays["train"], columns=[Columns.User, Columns.Item])
    metrics = {
        "NDCG": NDCG(k, divide_by_achievable=True),
        "NDCG over k": NDCG(k),
        "HitRate": HitRate(k),
        "Recall": Recall(k),
        "MRR": MRR(k),
        "CatalogCoverage": CatalogCoverage(k, normalize=True),
        "MeanInvUserFreq": MeanInvUserFreq(k),
        "AvgRecPopularity": AvgRecPopularity(k),
        "IntraListDiversity": IntraListDiversity(k, distance_calculator=CosineDistance(arrays["text"])),
    }
    catalog = np.arange(1, len(arrays["text"]) + 1)
    scores = {}
    for name in (name for name in arrays if name.startswith("lists ")):
        q, length = arrays[name].shape
        columns = {
            Columns.User: np.repeat(arrays["targets"][:, 0], length),
            Columns.Item: arrays[name].ravel(),
            Columns.Rank: np.tile(np.arange(1, length + 1), q),
        }
        found = calc_metrics(metrics, pd.DataFrame(columns), targets, prev_interactions=train, catalog=catalog)
        scores[name] = {metric: float(value) for metric, value in found.items()}
    return scores


def main(question: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request = json.loads(Path(question).read_text())
    with np.load(request["data"], allow_pickle=False) as file:
        arrays = dict(file)
    if request["task"] == "recommend":
        found = {"lists": [[int(item) for item in items] for items in recommend(arrays, request["k"])]}
    else:
        found = {"scores": score(arrays, request["k"])}
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

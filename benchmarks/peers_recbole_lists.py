"""Recommend with RecBole's SASRec, or score lists with RecBole's metrics. Runs in RecBole's environment (see peers.py).

Request: `task` and `data`, an .npz of `cross_framework.arrays`. Task `recommend`: fit one epoch, answer `lists`, item
numbers (targets, `k`) of RecBole's full ranking of the test, which keeps seen items, and `own`, RecBole's evaluation of
them. Task `score`: answer `scores`, for each list in the file the metrics at `k` by RecBole's names.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed
from recbole.utils.case_study import full_sort_topk

NAME = "lists"
RANKING = ["NDCG", "Hit", "Recall", "MRR"]
COUNTING = ["ItemCoverage", "GiniIndex", "AveragePopularity"]  # RecBole 1.2.1's trainer fails on their numbers of items
PADDING = 1  # RecBole counts its padding as an item of the catalogue


def config(k: int, metrics: list[str]) -> Config:
    settings = {
        "data_path": ".",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "train_neg_sample_args": None,
        "loss_type": "CE",
        "MAX_ITEM_LIST_LENGTH": 20,
        "hidden_size": 32,
        "inner_size": 32,
        "n_layers": 1,
        "n_heads": 2,
        "epochs": 1,
        "eval_step": 0,
        "metrics": metrics,
        "metric_decimal_place": 15,
        "topk": [k],
        "valid_metric": f"NDCG@{k}",
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
        "seed": 1,
    }
    return Config(model="SASRec", dataset=NAME, config_dict=settings)


def write(events: np.ndarray) -> None:
    """Write events (n, 2), ordered within each user, as a RecBole atomic file."""
    lines = [f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(events)]
    Path(NAME).mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float"
    Path(NAME, f"{NAME}.inter").write_text("\n".join([header, *lines]) + "\n")


def recommend(arrays: dict[str, np.ndarray], k: int) -> dict[str, object]:
    write(np.concatenate([arrays["history"], arrays["targets"]]))  # RecBole holds out the last two events of a user
    settings = config(k, RANKING)
    init_seed(settings["seed"], settings["reproducibility"])
    data = create_dataset(settings)
    train, _, test = data_preparation(settings, data)
    model = SASRec(settings, train.dataset)
    trainer = Trainer(settings, model)
    trainer.fit(train, saved=False)
    own = trainer.evaluate(test, load_best_model=False)
    users = data.token2id("user_id", [str(user) for user in arrays["targets"][:, 0]])
    _, items = full_sort_topk(users, model, test, k)
    lists = [[int(item) for item in row] for row in data.id2token("item_id", items.numpy())]
    return {"lists": lists, "own": {name.lower(): float(value) for name, value in own.items()}}


def score(arrays: dict[str, np.ndarray], k: int) -> dict[str, dict[str, float]]:
    write(arrays["history"][:10])  # only to make a configuration
    evaluator = Evaluator(config(k, RANKING + COUNTING))
    targets = arrays["targets"][:, 1]
    scores = {}
    for name in (name for name in arrays if name.startswith("lists ")):
        items = arrays[name][:, :k]
        hits = np.concatenate([items == targets[:, None], np.ones((len(items), 1), bool)], 1)
        collected = DataStruct()
        collected.set("rec.items", torch.from_numpy(items))
        collected.set("rec.topk", torch.from_numpy(hits.astype(np.int32)))
        collected.set("data.num_items", len(arrays["text"]) + PADDING)
        collected.set("data.count_items", Counter(arrays["train"][:, 1].tolist()))
        found = evaluator.evaluate(collected)
        scores[name] = {metric.partition("@")[0]: float(value) for metric, value in found.items()}
    return scores


def main(question: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    request = json.loads(Path(question).read_text())
    with np.load(request["data"], allow_pickle=False) as file:
        arrays = dict(file)
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    recommending = request["task"] == "recommend"
    found = recommend(arrays, request["k"]) if recommending else {"scores": score(arrays, request["k"])}
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

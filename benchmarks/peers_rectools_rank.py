"""RecTools' `recommend` on a SASRec of its own, timed. Runs inside its environment (see peers.py).

Request: `interactions` (an .npz of cases.export), `model` (cases.MODEL), `k`, `repeats`. The model is fitted to one
batch only, since how well it ranks changes nothing in how long that takes.
Answer: `users` (asked for), `cpu_seconds` (of each call after one that is not timed), `rows` (recommendations given).
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pytorch_lightning import Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


def trainer() -> Trainer:
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return Trainer(max_epochs=1, limit_train_batches=1, accelerator="cpu", enable_checkpointing=False, **silent)


def dataset(users: np.ndarray, items: np.ndarray) -> Dataset:
    """Events in the order given."""
    order = pd.to_datetime(np.arange(len(users)), unit="s")
    frame = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: order})
    return Dataset.construct(frame)


def build(model: dict) -> SASRecModel:
    return SASRecModel(
        n_blocks=model["n_blocks"],
        n_heads=model["n_heads"],
        n_factors=model["d"],
        session_max_len=model["max_len"],
        batch_size=16,
        get_trainer_func=trainer,
    )


def main(asked: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request = json.loads(Path(asked).read_text())
    with np.load(request["interactions"], allow_pickle=False) as arrays:
        events, users = arrays["train"], arrays["valid"][:, 0]
    seed_everything(0)
    data, model = dataset(*events.T), build(request["model"])
    model.fit(data)
    taken, found = [], pd.DataFrame()
    for _ in range(1 + request["repeats"]):
        start = time.process_time()
        found = model.recommend(users, data, k=request["k"], filter_viewed=True)
        taken.append(time.process_time() - start)
    Path(answer).write_text(json.dumps({"users": len(users), "cpu_seconds": taken[1:], "rows": len(found)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Time `recommend` of RecTools' SASRec. Runs in RecTools' environment (see peers.py).

Request: `interactions` (an .npz of cases.export), `model` (cases.MODEL), `k`, `repeats`. The model is fitted to only
one batch, since its quality does not affect the time to rank.
Answer: `users` (their number), `cpu_seconds` (of each call after an untimed one), `rows` (number of recommendations).
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
    """A RecTools data set of the events in their given order."""
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


def main(question: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request = json.loads(Path(question).read_text())
    with np.load(request["interactions"], allow_pickle=False) as arrays:
        events, users = arrays["train"], arrays["valid"][:, 0]
    seed_everything(0)
    data, model = dataset(*events.T), build(request["model"])
    model.fit(data)
    seconds, recommended = [], pd.DataFrame()
    for _ in range(1 + request["repeats"]):
        start = time.process_time()
        recommended = model.recommend(users, data, k=request["k"], filter_viewed=True)
        seconds.append(time.process_time() - start)
    Path(answer).write_text(json.dumps({"users": len(users), "cpu_seconds": seconds[1:], "rows": len(recommended)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

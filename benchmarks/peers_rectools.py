"""Train and time RecTools' SASRec and get its recommendations. Runs in RecTools' environment (see peers.py).

Request: `interactions` (an .npz of cases.export), `model` and `train` (cases.MODEL, cases.TRAIN), `layers` (`sasrec`:
RecTools' default, `pre_ln`: its pre-norm blocks with GELU), `batch` (sequences), `seed`, and either `epochs` or
`box` (CPU seconds to measure after `warm_up` steps); `recommend`: whether to rank the validation targets.
Answer: `targets`, `cpu_seconds`, `steps` (measured steps), `peak` (bytes), `ranks` (of the validation targets in user
order, 0 beyond the tenth).
A target is a real (not padding) next-item position that enters the loss.
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
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

TOP = 10
LAYERS = {
    "sasrec": (SASRecTransformerLayers, None),
    "pre_ln": (PreLNTransformerLayers, {"ff_factors_multiplier": 1}),
}


class Clock(Callback):
    """Count targets and CPU seconds of whole steps with data loading after the warm-up; stop after `box` seconds."""

    def __init__(self, warm_up: int, box: float) -> None:
        self.warm_up, self.box = warm_up, box
        self.seen = self.steps = self.targets = 0
        self.start = self.seconds = 0.0

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.seen += 1
        now = time.process_time()
        if self.seen <= self.warm_up:
            self.start = now
            return
        self.steps += 1
        self.targets += int((batch["y"] != 0).sum())
        self.seconds = now - self.start
        trainer.should_stop = self.seconds >= self.box


def trainer(epochs: int, warm_up: int, box: float) -> Trainer:
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    clock = Clock(warm_up, box)
    return Trainer(max_epochs=epochs, callbacks=[clock], accelerator="cpu", enable_checkpointing=False, **silent)


def dataset(users: np.ndarray, items: np.ndarray) -> Dataset:
    """A RecTools data set of the events in their given order."""
    order = pd.to_datetime(np.arange(len(users)), unit="s")
    frame = pd.DataFrame({Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: order})
    return Dataset.construct(frame)


def build(request: dict) -> SASRecModel:
    model, train = request["model"], request["train"]
    limits = {
        "epochs": request.get("epochs", -1),
        "warm_up": request.get("warm_up", 0),
        "box": request.get("box", float("inf")),
    }
    layers, options = LAYERS[request["layers"]]
    return SASRecModel(
        n_blocks=model["n_blocks"],
        n_heads=model["n_heads"],
        n_factors=model["d"],
        dropout_rate=model["dropout"],
        session_max_len=model["max_len"],
        lr=train["lr"],
        batch_size=request["batch"],
        loss="softmax",
        transformer_layers_type=layers,
        transformer_layers_kwargs=options,
        get_trainer_func=trainer,
        get_trainer_func_kwargs=limits,
    )


def ranks(model: SASRecModel, data: Dataset, users: np.ndarray, items: np.ndarray) -> list[int]:
    recommended = model.recommend(users, data, k=TOP, filter_viewed=True)
    targets = pd.DataFrame({Columns.User: users, Columns.Item: items})
    at = targets.merge(recommended, on=[Columns.User, Columns.Item], how="left")[Columns.Rank]
    return at.fillna(0).astype(int).tolist()


def peak() -> int:
    """Peak resident size of this process in bytes; getrusage may report the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(question: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    request = json.loads(Path(question).read_text())
    with np.load(request["interactions"], allow_pickle=False) as arrays:
        events, valid = arrays["train"], arrays["valid"]  # (events, 2), (users, 2): user, item
    seed_everything(request["seed"])
    data, model = dataset(*events.T), build(request)
    model.fit(data)
    clock = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, Clock))
    target_ranks = ranks(model, data, *valid.T) if request["recommend"] else []
    measured = {"targets": clock.targets, "cpu_seconds": clock.seconds, "steps": clock.steps, "peak": peak()}
    Path(answer).write_text(json.dumps({**measured, "ranks": target_ranks}))


if __name__ == "__main__":
    main(*sys.argv[1:])

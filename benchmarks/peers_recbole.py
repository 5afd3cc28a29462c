"""Train and time RecBole's SASRec. Runs in RecBole's environment (see peers.py).

Request: `interactions` (an .npz of cases.export), `model` and `train` (cases.MODEL, cases.TRAIN), `batch` (rows),
`seed`, `box` (CPU seconds to measure after `warm_up` steps).
Answer: `targets`, `cpu_seconds`, `steps` (measured steps), `peak` (bytes).
RecBole turns every prefix of a history into a row, padded to max_len; each row trains one target.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.sequential_recommender import SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed

NAME = "peers"
HELD_OUT = 2  # events per user that RecBole's leave-one-out holds out


class Clock:
    """A data loader that counts rows and CPU seconds of whole steps after the warm-up and stops after `box` seconds."""

    def __init__(self, loader: Any, warm_up: int, box: float) -> None:
        self.loader, self.warm_up, self.box = loader, warm_up, box
        self.steps = self.targets = 0
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        start, rows = 0.0, 0
        for step, batch in enumerate(self._forever()):
            now = time.process_time()  # the previous step has ended
            if step == self.warm_up:
                start = now
            elif step > self.warm_up:
                self.steps, self.targets, self.seconds = self.steps + 1, self.targets + rows, now - start
            if self.seconds >= self.box:
                return
            rows = len(batch)
            yield batch

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.loader


def write(events: np.ndarray, folder: Path) -> None:
    """Write the training events as RecBole's atomic file, each user's followed by two that RecBole holds out."""
    users = np.unique(events[:, 0])
    held = np.stack([np.repeat(users, HELD_OUT), np.ones(HELD_OUT * len(users), np.int64)], 1)
    lines = [f"{user}\t{item}\t{time}" for time, (user, item) in enumerate(np.concatenate([events, held]))]
    folder.mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float"
    (folder / f"{NAME}.inter").write_text("\n".join([header, *lines]) + "\n")


def config(request: dict) -> Config:
    model = request["model"]
    settings = {
        "data_path": ".",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full", "group_by": "user"},
        "train_neg_sample_args": None,
        "MAX_ITEM_LIST_LENGTH": model["max_len"],
        "hidden_size": model["d"],
        "inner_size": model["d"],
        "n_layers": model["n_blocks"],
        "n_heads": model["n_heads"],
        "hidden_dropout_prob": model["dropout"],
        "attn_dropout_prob": model["dropout"],
        "loss_type": "CE",
        "learning_rate": request["train"]["lr"],
        "train_batch_size": request["batch"],
        "seed": request["seed"],
        "use_gpu": False,
        "show_progress": False,
        "state": "ERROR",
    }
    return Config(model="SASRec", dataset=NAME, config_dict=settings)


def peak() -> int:
    """Peak resident size of this process in bytes; getrusage may report the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(question: str, answer: str) -> None:
    warnings.filterwarnings("ignore")
    request = json.loads(Path(question).read_text())
    with np.load(request["interactions"], allow_pickle=False) as arrays:
        write(arrays["train"], Path(NAME))
    sys.argv = sys.argv[:1]  # RecBole reads the command line too
    settings = config(request)
    init_seed(settings["seed"], settings["reproducibility"])
    loader, *_ = data_preparation(settings, create_dataset(settings))
    clock = Clock(loader, request["warm_up"], request["box"])
    Trainer(settings, SASRec(settings, loader.dataset))._train_epoch(clock, 0)
    measured = {"targets": clock.targets, "cpu_seconds": clock.seconds, "steps": clock.steps, "peak": peak()}
    Path(answer).write_text(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])

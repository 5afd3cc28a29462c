"""Inputs shared by both sides of a comparison: data sets, training events, model and optimiser settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _measure
import numpy as np
from torch import Tensor
from torch.nn import functional as F

from harness import registry
from harness.data import preparation, reader, splits
from harness.data.splits import Prepared, Queries, Split
from harness.search import spaces
from harness.text import embeddings
from harness.text.encoders import _base
from harness.training import schedules, trial
from harness.training.losses._base import Loss
from harness.types import Cell, Inputs, PrepSpec, Protocol, Trial

FOLDER = _measure.HERE.parent.parent / "shared" / "data"  # beside the checkout; --data overrides it
MODEL = {"d": 64, "max_len": 50, "n_blocks": 2, "n_heads": 2, "dropout": 0.2}  # feed-forward layers of width d
TRAIN = {"lr": 1e-3}
SEQUENCES = 128  # in a step of the peers


class Plain(Loss):
    """The textbook loss: all logits of the real positions, then F.cross_entropy."""

    def __call__(
        self, h: Tensor, table: Tensor, target: Tensor, negatives: Tensor | None, expected: Tensor | None = None
    ) -> Tensor:
        return F.cross_entropy(h @ table.T, target)


def prepared(name: str, folder: Path, home: Path) -> Prepared | None:
    """Prepare the data set in `folder`/`name`, or fetch the built-in one of that name; None if there is neither."""
    if (folder / name).is_dir():
        return preparation.prepare(reader.open_dataset(str(folder / name), home), PrepSpec(), home)
    if name.replace("-", "_") in registry.names(registry.DATASETS):
        return preparation.prepare(reader.open_dataset(name, home), PrepSpec(), home)
    return None


def shortened(whole: Prepared, max_len: int) -> Split:
    """Leave-one-out with only the last max_len + 1 training events of each user, as RecTools trains on."""
    split = splits.split(whole, Protocol())
    lengths = np.diff(split.offsets)
    cut = np.maximum(split.train_ends - (max_len + 1), 0)
    within = np.arange(len(split.items)) - np.repeat(split.offsets[:-1], lengths)
    offsets = np.concatenate(([0], np.cumsum(lengths - cut)))
    valid = Queries(split.valid.users, split.valid.ends - cut[split.valid.users])
    items = np.asarray(split.items)[within >= np.repeat(cut, lengths)]
    return Split(split.n_items, items, offsets, None, split.train_ends - cut, valid, None)


def targets(split: Split) -> int:
    """Trained positions per epoch: every training event except each user's first."""
    return int(np.maximum(split.train_ends - 1, 0).sum())


def batch_size(split: Split, sequences: int = SEQUENCES) -> int:
    """Average number of targets in this many sequences."""
    return round(sequences * targets(split) / int((split.train_ends > 1).sum()))


def export(split: Split, path: Path) -> str:
    """Write an .npz for the peers: `train` and `valid`, (events, 2) int64 of user and item, each user's in order."""
    lengths = np.diff(split.offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    within = np.arange(len(users)) - split.offsets[users]
    events = np.stack([users, split.items], 1).astype(np.int64)
    validation = split.offsets[split.valid.users] + split.valid.ends
    np.savez(path, train=events[within < split.train_ends[users]], valid=events[validation])
    return str(path)


def make_trial(name: str, adapter: str, backbone: str, params: dict[str, Any], seed: int = 0) -> Trial:
    """A trial with the settings of `MODEL` and `TRAIN` that the cell has, overridden by `params`."""
    cell = Cell(name, "file", backbone, adapter)
    default = spaces.of_cell(cell, spaces.SpaceSource()).default
    shared = {"train.d": MODEL["d"], "train.max_len": MODEL["max_len"], "backbone.ffn_mult": 1}
    shared |= {f"backbone.{key}": MODEL[key] for key in ("n_blocks", "n_heads", "dropout")}
    shared |= {"train.lr": TRAIN["lr"], "train.weight_decay": 0.0}
    menu = {f"train.{name}" for name in schedules.DEFAULTS}  # in no space while they are off
    if unknown := set(params) - set(default) - menu:
        raise ValueError(f"{cell} has no parameter {', '.join(sorted(unknown))}")
    return Trial(
        cell,
        "search",
        seed,
        10_000,
        0,
        default | {k: shared[k] for k in shared if k in default} | params,
        Protocol(),
        Inputs(),
    )


def text(whole: Prepared, folder: Path, home: Path) -> dict[str, np.ndarray]:
    """U, S, V, mean and E of the MiniLM vectors beside the data set, or of noise of the same width if it has none."""
    files = sorted((folder / whole.name).glob("emb_minilm384_*.npy"))
    encoder = _base.encoder(f"file:{files[-1]}" if files else "noise", home)
    texts = embeddings.texts_of(whole)
    E = embeddings.embed(encoder, texts, home)
    basis = embeddings.basis(E, embeddings.embedding_hash(encoder, texts), home)
    return {"U": basis.U, "S": basis.S, "V": basis.V, "mean": basis.mean, "E": E}


def training(spec: Trial, split: Split, arrays: dict[str, np.ndarray], *, plain: bool = False) -> trial.Training:
    """Start a trial; `plain`: with `Plain` instead of the fused loss."""
    run = trial.Training(spec, split, trial.spectrum(arrays, split.n_items))
    if plain:
        run.model.criterion = Plain(split.n_items)
    return run

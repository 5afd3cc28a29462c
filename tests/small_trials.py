"""Trials of a second on a small data set, and a random spectrum for them."""

import numpy as np

from harness.search import spaces
from harness.training import trial
from harness.types import Cell, Inputs, Protocol, Trial

SMALL = {"train.d": 16, "train.max_len": 6, "train.batch_size": 96, "train.lr": 0.01}


def spectrum_of(split, D=24, seed=0):
    E = np.random.default_rng(seed).normal(size=(split.n_items, D)).astype(np.float32)
    mean = E.mean(0)
    U, S, Vt = np.linalg.svd(E - mean, full_matrices=False)
    return trial.spectrum({"U": U, "S": S, "V": np.ascontiguousarray(Vt.T), "mean": mean, "E": E}, 0)


def a_trial(adapter="linear", backbone="sasrec", role="confirm", epochs=4, patience=4, seed=1, **params):
    cell = Cell("toy", "noise", backbone, adapter)
    default = spaces.of_cell(cell, spaces.SpaceSource()).default | SMALL | {"backbone.dropout": 0.1}
    return Trial(cell, role, seed, epochs, patience, default | params, Protocol(), Inputs(data="0123456789ab"))

"""Baselines against plain loops, and against figures on real data where it is at hand."""

from collections import Counter

import numpy as np
import pytest
import torch
from dataset_files import SHARED

from harness.data import preparation, reader, splits
from harness.metrics._all import means
from harness.training import trial
from harness.training.baselines.content_knn import ContentKNN
from harness.training.baselines.popularity import Popularity
from harness.training.baselines.transition_knn import TransitionKNN
from harness.training.ranking import ranks
from harness.types import PrepSpec, Protocol


def train(split):
    return [split.history(u, int(split.train_ends[u])).tolist() for u in range(len(split.train_ends))]


def test_popularity_counts_training_events_only(split):
    counts = Counter(item for history in train(split) for item in history)
    scores = Popularity(split, None).scores(split.test)
    assert scores[0].tolist() == [counts[i] for i in range(1, split.n_items + 1)]


def test_transition_knn_is_the_formula(split):
    weight, count = Counter(), Counter()
    for history in train(split):
        count.update(history)
        for step in (1, 2, 3):
            for a, b in zip(history, history[step:], strict=False):
                weight[a, b] += 1 / step
    scores = TransitionKNN(split, None).scores(split.test)
    for row in (0, 7):
        last = split.history(int(split.test.users[row]), int(split.test.ends[row])).tolist()[-3:][::-1]
        expected = [
            sum(weight[i, j] / count[i] ** 0.5 / back for back, i in enumerate(last, 1) if count[i])
            for j in range(1, split.n_items + 1)
        ]
        assert scores[row].tolist() == pytest.approx(expected, abs=1e-5)


def test_content_knn_is_the_formula(split):
    rng = np.random.default_rng(0)
    E = rng.normal(size=(split.n_items, 8)).astype(np.float32)
    mean = E.mean(0)
    U, S, Vt = np.linalg.svd(E - mean, full_matrices=False)
    spectrum = trial.spectrum({"U": U, "S": S, "V": np.ascontiguousarray(Vt.T), "mean": mean, "E": E}, 0)
    x = (E - mean) / np.linalg.norm(E - mean, axis=1, keepdims=True)
    history = split.history(int(split.test.users[3]), int(split.test.ends[3]))[-5:][::-1]
    profile = sum(0.7**back * x[i - 1] for back, i in enumerate(history))
    expected = x @ (profile / np.linalg.norm(profile))
    assert ContentKNN(split, spectrum).scores(split.test)[3].numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [1e25, 1e-25])
def test_content_knn_does_not_depend_on_the_size_of_the_rows(split, size):
    E = np.random.default_rng(0).normal(size=(split.n_items, 8)).astype(np.float32)
    E[4] = 0

    def scores(E: np.ndarray) -> np.ndarray:
        shapes = {"U": (len(E), 0), "S": 0, "V": (8, 0)}
        arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        arrays |= {"mean": E[E.any(1)].mean(0, dtype=np.float64).astype(np.float32), "E": E}
        return ContentKNN(split, trial.spectrum(arrays, 0)).scores(split.test).numpy()

    found = scores((E * size).astype(np.float32))
    assert np.isfinite(found).all()
    assert found == pytest.approx(scores(E), abs=1e-4)
    assert (found[:, 4] == 0).all()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real data sets are not beside this checkout")
def test_transition_knn_reaches_its_known_level_on_beauty(home):
    """A 3-step transition kNN that also counts validation events was measured at HR@10 .0867 elsewhere."""
    prepared = preparation.prepare(reader.open_dataset(str(SHARED / "amazon2014-beauty"), home), PrepSpec(), home)
    split = splits.split(prepared, Protocol())
    scorer = TransitionKNN(split, None)
    with torch.no_grad():
        found = means(ranks(scorer.scores, split, split.test, filter_seen=True))
    assert 0.08 < found["HR@10"] < 0.095

"""Texts are encoded on a GPU of the cluster where the driver's machine has none."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import small_homes
import tiny_decoder
from dataset_files import WORDS, make_dataset

from harness.engine import ray_cluster
from harness.record.ledger import Ledger
from harness.search import plan
from harness.text import embeddings, remote
from harness.text.encoders import hf
from harness.text.encoders._base import encoder
from harness.types import HarnessError
from harness.workflows import remote_encoding


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return make_dataset(root / "toy"), tiny_decoder.make(root / "model", WORDS)


def grid_of(home, data, word="hf:{}"):
    folder, model = data
    request = small_homes.request(home, folder, "id,linear", encoders=word.format(model))
    return plan.make(request, Ledger.open(home))


def matrix(grid, home):
    """E as a bench reads it."""
    [encoded] = grid.encoded_datasets.values()
    [source] = encoded.encoders.values()
    return embeddings.embed(source, encoded.texts, home)


@pytest.fixture
def cluster(monkeypatch):
    """A cluster with a GPU that is this process; the list of its tasks' first arguments."""
    tasks = []

    @contextmanager
    def opened(address, labels):
        yield {"gpus": 1.0}

    def on_gpu(function, *arguments, labels, timeout):
        tasks.append(arguments[0])
        return function(*arguments)

    monkeypatch.setattr(ray_cluster, "cluster", opened)
    monkeypatch.setattr(ray_cluster, "on_gpu", on_gpu)
    monkeypatch.setattr(remote_encoding.ray_head, "address_of", lambda address: address)
    return tasks


@pytest.mark.parametrize("word", ["hf:{}", "shuffled:hf:{}", "variants:hf:{}+hf:{}[pooling=last]"])
def test_the_cache_gets_what_this_machine_would_have_computed(tmp_path, data, cluster, monkeypatch, word):
    word = word.replace("{}", str(data[1]))
    expected = matrix(grid_of(tmp_path / "here", data, word), tmp_path / "here")
    home = tmp_path / "there"
    grid = grid_of(home, data, word)
    remote_encoding.encode(grid, "auto", {})
    assert len(cluster) == word.count("hf:")

    def load(self):
        raise AssertionError("the model is loaded on the driver's machine")

    monkeypatch.setattr(hf.HuggingFace, "_load", load)
    np.testing.assert_array_equal(matrix(grid, home), expected)
    remote_encoding.encode(grid, "auto", {})
    assert len(cluster) == word.count("hf:"), "what is cached is not encoded again"


@pytest.mark.parametrize("reason", ["no address", "a GPU here", "none there", "an encoder without a model"])
def test_nothing_is_sent_without_need(tmp_path, data, cluster, monkeypatch, reason):
    if reason == "a GPU here":
        monkeypatch.setattr(remote_encoding, "_has_gpu", lambda: True)
    if reason == "none there":

        @contextmanager
        def opened(address, labels):
            yield {"gpus": 0.0}

        monkeypatch.setattr(ray_cluster, "cluster", opened)
    grid = grid_of(tmp_path, data, "noise" if reason == "an encoder without a model" else "hf:{}")
    remote_encoding.encode(grid, None if reason == "no address" else "auto", {})
    assert cluster == []


def test_a_failure_there_is_one_line_and_this_machine_encodes(tmp_path, data, cluster, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("Traceback ...\nOSError: no such folder")

    monkeypatch.setattr(ray_cluster, "on_gpu", fails)
    grid = grid_of(tmp_path, data)
    remote_encoding.encode(grid, "auto", {})
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].endswith("not encoded on the cluster (OSError: no such folder); encoding on this machine.")
    assert matrix(grid, tmp_path).any()


def test_another_model_under_the_same_word_is_refused(tmp_path, data):
    grid = grid_of(tmp_path, data)
    [encoded] = grid.encoded_datasets.values()
    word = f"hf:{data[1]}"
    identity = encoder(word, tmp_path).identity()
    E, counts = remote.encode(word, identity, encoded.texts)
    assert E.shape == (len(encoded.texts), 16)
    assert counts["distinct"] == 40
    with pytest.raises(HarnessError, match="another model"):
        remote.encode(word, identity | {"files": {}}, encoded.texts)


@pytest.mark.slow
def test_a_real_cluster_encodes_on_the_node_with_a_declared_gpu(tmp_path, data, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")
    expected = matrix(grid_of(tmp_path / "here", data), tmp_path / "here")

    def load(self):
        raise AssertionError("the model is loaded on the driver's machine")

    monkeypatch.setattr(hf.HuggingFace, "_load", load)
    grid = grid_of(tmp_path / "there", data)
    ray = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        ray.add_node(num_cpus=1, num_gpus=1)
        ray.wait_for_nodes()
        remote_encoding.encode(grid, ray.address, {})
    finally:
        ray.shutdown()
    np.testing.assert_array_equal(matrix(grid, tmp_path / "there"), expected)

"""What counts as want of memory, and which code a worker may run."""

import numpy as np
import pytest
import torch
from small_trials import a_trial

from harness import registry
from harness.engine import worker
from harness.engine.slots import Layout
from harness.engine.worker import SharedData, Worker, out_of_memory
from harness.engine.worker_reports import Refusal
from harness.system.code_hash import code_hash, libraries


@pytest.mark.parametrize("allocate", [lambda: np.ones(2**52), lambda: torch.ones(2**52)])
def test_a_refused_allocation_is_want_of_memory(allocate):
    with pytest.raises((MemoryError, RuntimeError)) as error:
        allocate()
    assert out_of_memory(error.value)


def test_a_gpu_that_is_full_is_want_of_memory_and_a_wrong_shape_is_not():
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    with pytest.raises(RuntimeError) as error:
        torch.ones(2) @ torch.ones(3)
    assert not out_of_memory(error.value)


def test_the_code_hash_is_that_of_every_source_and_of_nothing_else(tmp_path, monkeypatch):
    for package in ("harness", "adapters", "backbones"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(registry, "folder_of", lambda package: tmp_path / package)
    first = code_hash()
    (tmp_path / "adapters" / "notes.txt").write_text("no code")
    assert code_hash() == first
    (tmp_path / "backbones" / "a.py").write_text("x = 2\n")
    second = code_hash()
    (tmp_path / "backbones" / "a.py").rename(tmp_path / "backbones" / "b.py")
    assert len({first, second, code_hash()}) == 3


@pytest.fixture
def a_node(monkeypatch):
    """A function that makes a worker on a node, from what the driver has."""
    monkeypatch.setattr(worker, "die_with_parent", lambda: None)

    def made(**driver):
        shared = SharedData({}, {}, {}, None, Layout(2), code_hash(), 0.0, **driver)
        found = Worker(shared, lambda value: value, lambda *_: None, ("there", 1), 2)
        found.begin(a_trial("id"))
        return found

    return made


def test_a_node_with_another_torch_takes_no_part_but_its_build_may_differ(a_node, monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu128")
    assert a_node(libraries={"torch": "2.13.0", "numpy": "2.13.0"}).refusal == ""
    assert a_node(libraries={"torch": "2.12.1"}).step() == Refusal("it has torch 2.13.0, the driver 2.12.1")


def test_a_node_that_cannot_import_what_the_driver_could_takes_no_part(a_node, monkeypatch):
    """Else every trial there would fail at once, and be failed for good."""
    load = registry.load

    def lacks(package, name):
        if name == "sasrec":
            raise ModuleNotFoundError("No module named 'einops'")
        return load(package, name)

    used = frozenset(worker.named(a_trial("id").cell, {"train.loss": "full"}))
    there = worker.importable([*used, (registry.ADAPTERS, "no such adapter")])
    assert (registry.BACKBONES, "sasrec") in there
    assert (registry.ADAPTERS, "no such adapter") not in there
    monkeypatch.setattr(registry, "load", lacks)
    said = "it cannot import backbones/sasrec.py (ModuleNotFoundError: No module named 'einops')"
    assert a_node(libraries=libraries(), importable=there).step() == Refusal(said)
    assert a_node()._cannot_import() == "", "the driver could not either: the trial fails, with this error"

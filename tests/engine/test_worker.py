"""What counts as want of memory, and which code a worker may run."""

import numpy as np
import pytest
import torch

from harness import registry
from harness.engine.worker import out_of_memory
from harness.system.code_hash import code_hash


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

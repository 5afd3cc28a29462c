"""TF32 is for the training of trials on a GPU only."""

import numpy as np
import pytest
import torch

from harness.data.splits import Queries, Split, bounds
from harness.training.precision import use_tf32
from harness.training.ranking import ranks


@pytest.fixture
def tf32(monkeypatch):
    """Training in TF32, emulated: where PyTorch may, `torch.mm` reads its inputs with a mantissa of 10 bits."""
    exact = torch.mm

    def short(x):
        return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    def mm(a, b, out=None):
        full = torch.get_float32_matmul_precision() == "highest"
        return exact(a, b, out=out) if full else exact(short(a), short(b), out=out)

    monkeypatch.setattr(torch, "mm", mm)
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_only_a_gpu_gets_tf32(tf32):
    torch.set_float32_matmul_precision("highest")
    assert not use_tf32("cpu")
    assert torch.get_float32_matmul_precision() == "highest"
    assert use_tf32("cuda")
    assert torch.get_float32_matmul_precision() == "high"


def test_ranks_are_exact_where_training_uses_tf32(tf32):
    """Items with equal vectors tie with the target, also if the matrix product rounds and the target's sum does not."""
    users, n, d = 50, 60, 16
    rng = np.random.default_rng(0)
    items = rng.integers(1, n + 1, 4 * users).astype(np.int32)
    ends = np.full(users, 3)
    queries = Queries(np.arange(users, dtype=np.int32), ends)
    split = Split(n, items, bounds(np.full(users, 4)), None, ends - 1, queries, queries)
    table = torch.randn(n // 6, d, generator=torch.Generator().manual_seed(1)).repeat_interleave(6, 0)
    states = torch.randn(users, d, generator=torch.Generator().manual_seed(2))

    def rank():
        return ranks(lambda part: states[torch.from_numpy(part.users)], split, queries, filter_seen=False, table=table)

    torch.set_float32_matmul_precision("highest")
    wanted = rank()
    assert (wanted.high - wanted.low == 5).all()
    torch.set_float32_matmul_precision("high")
    assert rank().equal(wanted).all()
    assert torch.get_float32_matmul_precision() == "high"

"""TF32 and bfloat16 are for the training of trials on a GPU only, not for ranking."""

import numpy as np
import pytest
import torch
from small_trials import a_trial, spectrum_of

from harness.data.splits import Queries, Split, bounds
from harness.training import trial
from harness.training.model import SequenceModel
from harness.training.precision import exact, use_tf32
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


@pytest.mark.parametrize("backbone", ["sasrec", "hstu"])
def test_a_backbone_that_trains_in_bfloat16_is_ranked_in_full_precision(split, backbone, monkeypatch):
    """On a GPU, emulated: autocast of the backbone is switched on for the CPU."""
    own, types = SequenceModel._mixed, {True: set(), False: set()}
    both = lambda model, table, on: own(model, table, ("cpu", "cuda") if on else ())  # noqa: E731
    monkeypatch.setattr(SequenceModel, "_mixed", both)
    made = trial.Training(a_trial("id", backbone, **{"train.precision": "bfloat16"}), split, spectrum_of(split))
    inner = next(layer for layer in made.model.backbone.modules() if isinstance(layer, torch.nn.Linear))
    note = lambda layer, _, out: types[made.model.training].add(out.dtype)  # noqa: E731
    inner.register_forward_hook(note)
    made.epoch()
    assert types == {True: {torch.bfloat16}, False: {torch.float32}}


def test_recurrent_layers_are_exact_where_training_uses_tf32(monkeypatch):
    """cuDNN has a switch of its own, on by default. It has no device here, so the switch is what can be seen."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    with exact():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32

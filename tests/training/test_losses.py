"""The fused loss against cross-entropy on the whole matrix of logits in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from harness import registry
from harness.training.losses import _fused
from harness.training.losses._fused import softmax_loss


def problem(P, N, d, *, scale=1.0, dtype=torch.float64, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = (torch.randn(P, d, generator=g, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    table = torch.randn(N, d, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    return h, table, torch.randint(N, (P,), generator=g)


def oracle(h, table, target, smoothing=0.0):
    """Loss and gradients of the textbook way, in float64."""
    h, table = (t.detach().double().requires_grad_() for t in (h, table))
    loss = F.cross_entropy(h @ table.T, target, label_smoothing=smoothing)
    return loss.detach(), *torch.autograd.grad(loss, (h, table))


def check(h, table, target, smoothing=0.0, **tolerance):
    loss = softmax_loss(h, table, target, smoothing=smoothing)
    found = (loss.detach(), *torch.autograd.grad(loss, (h, table)))
    for value, expected in zip(found, oracle(h, table, target, smoothing), strict=True):
        torch.testing.assert_close(value.double(), expected, **tolerance)


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three rows, so that small problems have many blocks and a last one that is not full."""
    monkeypatch.setattr(_fused, "BLOCK_ELEMENTS", {("cpu", torch.float64): 1})
    monkeypatch.setattr(_fused, "ROWS_OUT_OF_CACHE", 3)


def test_float64_equals_cross_entropy_to_rounding(small_blocks):
    check(*problem(10, 17, 4), rtol=1e-12, atol=1e-14)


def test_float32_equals_cross_entropy_over_many_blocks():
    check(*problem(700, 1349, 64, scale=0.1, dtype=torch.float32), rtol=1e-4, atol=2e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_gradcheck(small_blocks, smoothing):
    h, table, target = problem(7, 5, 3)
    assert torch.autograd.gradcheck(lambda h, table: softmax_loss(h, table, target, smoothing=smoothing), (h, table))


@pytest.mark.parametrize("smoothing", [0.01, 0.1, 0.9])
def test_smoothed_labels_equal_those_of_cross_entropy(small_blocks, smoothing):
    check(*problem(10, 17, 4), smoothing, rtol=1e-12, atol=1e-14)
    check(*problem(9, 1, 4), smoothing, rtol=1e-12, atol=1e-14)


def test_smoothed_labels_in_float32_and_bfloat16_keep_the_precision_of_plain_ones():
    h, table, target = problem(700, 1349, 64, scale=0.1, dtype=torch.float32)
    check(h, table, target, 0.1, rtol=1e-4, atol=2e-8)
    loss = softmax_loss(h, table, target, smoothing=0.1, blocks=torch.bfloat16)
    exact, *gradients = oracle(h, table, target, 0.1)
    assert abs(loss.detach() - exact) < 1e-3 * exact
    for found, expected in zip(torch.autograd.grad(loss, (h, table)), gradients, strict=True):
        assert (found - expected).norm() < 4e-3 * expected.norm()


def test_the_loss_component_smooths_and_refuses_a_share_outside_its_range():
    h, table, target = problem(6, 9, 3)
    smoothed = registry.load(registry.LOSSES, "softmax")(9, label_smoothing=0.2)(h, table, target, None)
    torch.testing.assert_close(smoothed.detach(), oracle(h, table, target, 0.2)[0])
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="label_smoothing is"):
            registry.load(registry.LOSSES, "softmax")(9, label_smoothing=share)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_kernel_of_torch_gives_the_same_loss_and_gradients(smoothing):
    h, table, target = problem(90, 41, 8)
    build = registry.load(registry.LOSSES, "softmax")
    loss = build(41, label_smoothing=smoothing, kernel="torch")(h, table, target, None)
    found = (loss.detach(), *torch.autograd.grad(loss, (h, table)))
    torch.testing.assert_close(found, oracle(h, table, target, smoothing), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="kernel is 'triton'; it must be one of: fused, torch"):
        build(41, kernel="triton")


def test_the_kernel_of_torch_computes_in_the_type_of_autocast():
    h, table, target = problem(90, 41, 8, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = registry.load(registry.LOSSES, "softmax")(41, kernel="torch")(h, table, target, None)
    exact, *_ = oracle(h, table, target)
    assert loss.dtype == torch.float32
    assert 0 < abs(loss.detach().double() - exact) < 0.02 * exact


@settings(max_examples=60, deadline=None)
@given(
    P=st.integers(1, 40),
    N=st.integers(1, 30),
    d=st.integers(1, 6),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e3]),
    seed=st.integers(0, 10_000),
    smoothing=st.sampled_from([0.0, 0.2]),
)
def test_any_shape_and_any_size_of_logits(P, N, d, scale, seed, smoothing):
    check(*problem(P, N, d, scale=scale, seed=seed), smoothing, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("scale", "tolerance"), [(0.01, 4e-3), (0.3, 4e-3), (3.0, 3e-2)], ids=["flat", "as in training", "maximum taken"]
)
@pytest.mark.parametrize(("P", "N"), [(5, 3), (300, 1349), (40, 12_101)])
def test_bfloat16_blocks_keep_the_tolerance_they_promise(P, N, scale, tolerance):
    h, table, target = problem(P, N, 64, scale=scale, dtype=torch.float32)
    loss = softmax_loss(h, table, target, blocks=torch.bfloat16)
    exact, *gradients = oracle(h, table, target)
    assert abs(loss.detach() - exact) < 1e-3 * exact
    for found, expected in zip(torch.autograd.grad(loss, (h, table)), gradients, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < tolerance * expected.norm()


def test_bfloat16_blocks_survive_extreme_logits():
    h, table, target = problem(20, 30, 8, scale=1e4, dtype=torch.float32)
    loss = softmax_loss(h, table, target, blocks=torch.bfloat16)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(loss, (h, table)))


def test_extreme_logits_in_float32_stay_finite():
    h = torch.tensor([[1e4], [-1e4], [3e4]], requires_grad=True)
    table = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    check(h, table, torch.tensor([1, 1, 0]), rtol=1e-5, atol=1e-5)


def test_one_item_costs_nothing():
    h, table, target = problem(4, 1, 3)
    loss = softmax_loss(h, table, target)
    loss.backward()
    assert loss == 0
    assert h.grad.abs().max() < 1e-15


def test_the_incoming_gradient_scales_and_a_graph_can_be_walked_twice():
    h, table, target = problem(6, 9, 3)
    loss = softmax_loss(h, table, target)
    once = torch.autograd.grad(loss, (h, table), retain_graph=True)
    thrice = torch.autograd.grad(3 * loss, (h, table))
    for a, b in zip(once, thrice, strict=True):
        torch.testing.assert_close(3 * a, b)


def test_without_gradients_the_loss_is_the_same_and_states_may_be_frozen():
    h, table, target = problem(6, 9, 3)
    expected, _, grad_table = oracle(h, table, target)
    with torch.no_grad():
        torch.testing.assert_close(softmax_loss(h, table, target), expected)
    softmax_loss(h.detach(), table, target).backward()
    torch.testing.assert_close(table.grad, grad_table)


def test_inputs_are_left_as_they_were():
    h, table, target = problem(6, 9, 3)
    before = h.detach().clone(), table.detach().clone()
    softmax_loss(h, table, target).backward()
    assert torch.equal(h, before[0])
    assert torch.equal(table, before[1])


def test_no_matrix_of_all_logits_is_ever_allocated():
    h, table, target = problem(2000, 3000, 8, dtype=torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        softmax_loss(h, table, target).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 2000 * 3000 * 4 / 4


def test_a_nan_is_not_hidden():
    h, table, target = problem(6, 9, 3)
    h.data[2, 1] = float("nan")
    assert softmax_loss(h, table, target).isnan()


@pytest.mark.parametrize(
    ("h", "table", "target", "message"),
    [
        ((3, 4), (5, 6), torch.zeros(3, dtype=torch.int64), r"\(3, 4\), \(5, 6\), \(3,\)"),
        ((3, 4), (5, 4), torch.zeros(2, dtype=torch.int64), r"target \(P,\)"),
        ((0, 4), (5, 4), torch.zeros(0, dtype=torch.int64), "0 positions"),
        ((3, 4), (5, 4), torch.zeros(3, dtype=torch.int32), "int64"),
    ],
)
def test_shapes_and_kinds_that_disagree_are_told(h, table, target, message):
    with pytest.raises(ValueError, match=message):
        softmax_loss(torch.zeros(h), torch.zeros(table), target)

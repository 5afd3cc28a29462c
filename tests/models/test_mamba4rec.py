"""Mamba4Rec against its recurrence written out in float64, one channel and one state at a time."""

import math

import pytest
import torch

from backbones import mamba4rec
from backbones.mamba4rec import Mamba4Rec, selective_scan


def silu(x):
    return x / (1 + torch.exp(-x))


def layer_norm(h, module):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def linear(x, module):
    return x @ module.weight.T + (0 if module.bias is None else module.bias)


def scan(x, delta, A, B, C):
    """One row, one channel, one state, one step at a time."""
    y = torch.zeros_like(x)
    for row in range(len(x)):
        for channel in range(x.shape[2]):
            for n in range(A.shape[1]):
                state = 0.0
                for t in range(x.shape[1]):
                    step = delta[row, t, channel]
                    state = torch.exp(step * A[channel, n]) * state + step * B[row, t, n] * x[row, t, channel]
                    y[row, t, channel] += C[row, t, n] * state
    return y


def mamba_layer(h, module, d_state):
    width = module.D.shape[0]
    x, z = linear(h, module.into).split(width, -1)
    filtered, reach = torch.zeros_like(x), module.conv.weight.shape[2]
    for t in range(x.shape[1]):
        for k in range(min(reach, t + 1)):  # the last tap of the filter lies on the present item
            filtered[:, t] += module.conv.weight[:, 0, reach - 1 - k] * x[:, t - k]
    x = silu(filtered + module.conv.bias)
    selected = linear(x, module.select)
    rank = selected.shape[2] - 2 * d_state
    delta, B, C = selected[..., :rank], selected[..., rank : rank + d_state], selected[..., rank + d_state :]
    delta = torch.log(1 + torch.exp(linear(delta, module.step)))
    y = scan(x, delta, -torch.exp(module.log_A), B, C) + module.D * x
    return linear(y * silu(z), module.out)


def stirred(**own):
    torch.manual_seed(0)
    model = Mamba4Rec(8, 6, **own).eval().double()
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    return model


def scan_problem(rows=3, L=5, w=4, n=2, dtype=torch.float64):
    g = torch.Generator().manual_seed(1)
    x, B, C = (torch.randn(rows, L, k, generator=g, dtype=dtype) for k in (w, n, n))
    delta, A = torch.rand(rows, L, w, generator=g, dtype=dtype), -torch.rand(w, n, generator=g, dtype=dtype)
    return tuple(tensor.requires_grad_() for tensor in (x, delta, A, B, C))


@pytest.mark.parametrize(("n_blocks", "expand", "d_conv"), [(1, 2, 4), (2, 1, 2), (2, 2, 1)])
def test_mamba4rec_is_the_published_network(n_blocks, expand, d_conv):
    model = stirred(n_blocks=n_blocks, d_state=3, d_conv=d_conv, expand=expand)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    h = layer_norm(x, model.norm)
    for block in model.blocks:
        mixed = mamba_layer(h, block.mamba, 3)
        h = layer_norm(mixed + h if n_blocks > 1 else mixed, block.norm_mamba)
        inner = linear(h, block.ffn[0])
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        h = layer_norm(h + linear(inner, block.ffn[3]), block.norm_ffn)
    torch.testing.assert_close(model(x, torch.ones(2, 5, dtype=torch.bool)), h, rtol=1e-10, atol=1e-10)


def test_the_scan_is_the_recurrence_and_its_gradient_is_exact():
    problem = scan_problem()
    torch.testing.assert_close(selective_scan(*problem), scan(*problem), rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(selective_scan, problem)


def test_rows_scanned_in_parts_give_what_they_give_together(monkeypatch):
    problem = scan_problem(rows=7)
    weights = torch.randn(7, 5, 4, dtype=torch.float64)
    results = []
    for elements in (2**20, 2 * 4 * 2, 1):  # all rows, two rows, one row at a time
        monkeypatch.setattr(mamba4rec, "STATE_ELEMENTS", {"cpu": elements})
        y = selective_scan(*problem)
        results.append((y.detach(), *torch.autograd.grad((y * weights).sum(), problem)))
    for other in results[1:]:
        for a, b in zip(other, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_delta_starts_between_a_thousandth_and_a_tenth():
    torch.manual_seed(0)
    start = torch.nn.functional.softplus(Mamba4Rec(64, 6).blocks[0].mamba.step.bias)
    assert (start > 0.9e-3).all()
    assert (start < 1.1e-1).all()
    assert start.log().std() > 0.8, "log-uniform over two decades has 1.33"


def test_the_states_forget_at_rates_one_to_d_state():
    A = torch.exp(Mamba4Rec(8, 6, d_state=5).blocks[0].mamba.log_A)
    torch.testing.assert_close(A, torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]).repeat(16, 1))


def test_the_scale_of_the_item_vectors_does_not_matter():
    model, x, real = stirred(), torch.randn(2, 5, 8, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(model(1e-3 * x, real), model(x, real), rtol=1e-4, atol=1e-4)


def test_mixed_precision_leaves_the_recurrence_in_full():
    torch.manual_seed(0)
    model, x, real = Mamba4Rec(16, 6), torch.randn(4, 6, 16), torch.ones(4, 6, dtype=torch.bool)
    model.eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = model(x, real)
        found.sum().backward()
    assert torch.nn.functional.cosine_similarity(found.float(), model(x, real), dim=2).min() > 0.99
    assert all(p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", ["n_blocks", "d_state", "d_conv", "expand"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 0; Mamba4Rec takes 1 or more"):
        Mamba4Rec(8, 6, **{name: 0})

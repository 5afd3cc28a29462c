"""The backbones against independent float64 recomputations."""

import math

import pytest
import torch

from backbones._base import Backbone, Dropout
from backbones.gru4rec import GRU4Rec
from backbones.sasrec import SASRec


def layer_norm(h, module):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def causal_attention(h, block, heads):
    """Softmax attention written out: one query, one head at a time."""
    L, d = h.shape[1:]
    width = d // heads
    q, k, v = (h @ block.qkv.weight.T + block.qkv.bias).split(d, -1)
    out = torch.zeros_like(h)
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        for t in range(L):
            weights = (torch.einsum("bd,bsd->bs", q[:, t, at], k[:, : t + 1, at]) / math.sqrt(width)).softmax(1)
            out[:, t, at] = torch.einsum("bs,bsd->bd", weights, v[:, : t + 1, at])
    return out @ block.out.weight.T + block.out.bias


@pytest.mark.parametrize(("emb_scale", "factor"), [("one", 1.0), ("sqrt_d", math.sqrt(8))])
def test_sasrec_is_pre_norm_causal_attention_with_positions_from_the_start(emb_scale, factor):
    torch.manual_seed(0)
    model = SASRec(8, 6, n_blocks=2, n_heads=2, ffn_mult=4, emb_scale=emb_scale).eval().double()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(3, 5, 8, dtype=torch.float64)
    h = factor * x + model.position[:5]
    for block in model.blocks:
        h = h + causal_attention(layer_norm(h, block.norm_attention), block, 2)
        z = layer_norm(h, block.norm_ffn) @ block.ffn[0].weight.T + block.ffn[0].bias
        z = z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))
        h = h + z @ block.ffn[2].weight.T + block.ffn[2].bias
    torch.testing.assert_close(model(x, torch.ones(3, 5, dtype=torch.bool)), layer_norm(h, model.norm))


@pytest.mark.parametrize(("emb_scale", "factor"), [("one", 1.0), ("sqrt_d", 2.0)])
def test_gru4rec_follows_the_gru_equations(emb_scale, factor):
    torch.manual_seed(0)
    model = GRU4Rec(4, 6, hidden_mult=2, emb_scale=emb_scale).eval().double()
    for p in model.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    w, u = model.gru.weight_ih_l0, model.gru.weight_hh_l0
    b, c = model.gru.bias_ih_l0, model.gru.bias_hh_l0
    h, expected = torch.zeros(3, 8, dtype=torch.float64), []
    for t in range(5):
        (ir, iz, inew), (hr, hz, hnew) = (factor * x[:, t] @ w.T + b).chunk(3, 1), (h @ u.T + c).chunk(3, 1)
        reset, update = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
        h = (1 - update) * torch.tanh(inew + reset * hnew) + update * h
        expected.append(h @ model.head.weight.T + model.head.bias)
    torch.testing.assert_close(model(x, torch.ones(3, 5, dtype=torch.bool)), torch.stack(expected, 1))


def test_sasrec_starts_small_and_gru4rec_starts_xavier_gate_by_gate():
    torch.manual_seed(0)
    block = SASRec(64, 50).blocks[0]
    assert block.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.ffn[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    gru = GRU4Rec(64, 50, hidden_mult=2).gru
    for gate in gru.weight_ih_l0.chunk(3):
        assert gate.abs().max().item() == pytest.approx(math.sqrt(6 / (64 + 128)), rel=0.01)
    assert torch.count_nonzero(gru.bias_hh_l0) == 0


def test_sasrec_refuses_heads_that_do_not_divide_the_width():
    with pytest.raises(ValueError, match="n_heads=3, which does not divide"):
        SASRec(64, 50, n_heads=3)


def test_sasrec_refuses_an_unknown_emb_scale():
    with pytest.raises(ValueError, match="takes: one, sqrt_d"):
        SASRec(64, 50, emb_scale="two")


def test_next_item_views_shift_by_one():
    items = torch.tensor([[5, 6, 7, 0], [8, 9, 3, 2]])
    inputs, targets = Backbone(4, 3).views(items, torch.Generator())
    assert inputs.tolist() == [[5, 6, 7], [8, 9, 3]]
    assert targets.tolist() == [[6, 7, 0], [9, 3, 2]]


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_share_independently_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    x = torch.full((999, 1001), 2.0)
    y = Dropout(rate)(x)
    dropped = (y == 0).double()
    assert dropped.mean().item() == pytest.approx(rate, abs=1 / 512 + 2e-3)
    assert y.mean().item() == pytest.approx(2, rel=3e-3)
    assert len(y.unique()) == 2
    neighbours = torch.corrcoef(torch.stack([dropped[:, :-1].flatten(), dropped[:, 1:].flatten()]))[0, 1]
    assert abs(neighbours.item()) < 5e-3


def test_dropout_is_nothing_in_evaluation_and_passes_the_gradient_of_what_it_kept():
    x = torch.ones(100, 3, requires_grad=True)
    layer = Dropout(0.5)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert torch.equal(layer.eval()(x), x)

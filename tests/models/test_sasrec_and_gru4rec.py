"""The backbones against independent float64 recomputations."""

import math

import pytest
import torch

from backbones._base import Attention, Backbone, Dropout
from backbones.bert4rec import BERT4Rec
from backbones.esasrec import ESASRec
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
    with pytest.raises(ValueError, match="one of: one, sqrt_d"):
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


# Dropout of attention weights, and between feed-forward layers

ATTENTIVE = pytest.mark.parametrize("cls", [SASRec, ESASRec, BERT4Rec])
READS = torch.tensor([[True, True, False, False], [True] * 4, [True, False, False, False]])[:, None, None]


def queries(rows=3, heads=2, length=4, width=5):
    g = torch.Generator().manual_seed(0)
    return [torch.randn(rows, heads, length, width, generator=g, dtype=torch.float64) for _ in range(3)]


def attended(q, k, v, reads):
    """Softmax attention by its definition; reads None is the causal mask."""
    allowed = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril() if reads is None else reads
    weights = torch.exp(torch.einsum("bhqw,bhkw->bhqk", q, k) / math.sqrt(q.shape[3])) * allowed
    return weights / weights.sum(3, keepdim=True) @ v


@pytest.mark.parametrize("reads", [None, READS], ids=["causal", "mask"])
def test_attention_in_evaluation_or_without_dropout_is_softmax_attention(reads):
    q, k, v = queries()
    for layer in (Attention(0.5).eval(), Attention(0.0).train()):
        torch.testing.assert_close(layer(q, k, v, reads), attended(q, k, v, reads))


@pytest.mark.parametrize("reads", [None, READS], ids=["causal", "mask"])
def test_attention_in_training_drops_its_share_of_the_weights_and_scales_the_rest(reads):
    torch.manual_seed(0)
    q, k, _ = queries()
    v = torch.eye(4, dtype=torch.float64).expand(3, 2, 4, 4)  # the output is then the weights
    whole, layer = attended(q, k, v, reads), Attention(0.25)
    drawn = torch.stack([layer(q, k, v, reads) for _ in range(2000)])
    kept = drawn != 0
    torch.testing.assert_close(drawn, kept * whole / 0.75)
    read = whole > 0
    assert not kept[:, ~read].any()
    share = kept.double().mean(0)[read]
    assert share.mean().item() == pytest.approx(0.75, abs=0.01)
    assert share.tolist() == pytest.approx([0.75] * len(share), abs=0.05)


def test_attention_in_training_passes_the_gradient_of_the_weights_it_kept():
    tensors = [x.requires_grad_() for x in queries()]
    layer = Attention(0.5)

    def fixed(*qkv):
        torch.manual_seed(3)
        return layer(*qkv)

    assert torch.autograd.gradcheck(fixed, tensors)


def states_in_training(model, at=None):
    x = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1))
    real = torch.ones(3, 6, dtype=torch.bool)
    return model(x, real) if at is None else model.last(x, real, torch.tensor([5, 5, 5]))


@ATTENTIVE
@pytest.mark.parametrize("at", [None, "last"])
def test_attn_dropout_acts_in_training_alone_at_every_position_and_at_one(cls, at):
    torch.manual_seed(0)
    model = cls(8, 6, dropout=0.0, attn_dropout=0.5)
    for block in model.blocks:
        torch.nn.init.normal_(block.out.weight)
    first, second = states_in_training(model, at), states_in_training(model, at)
    assert ((first - second).abs().amax((1, 2) if at is None else 1) > 1e-4).all()
    without = cls(8, 6, dropout=0.0, attn_dropout=0.0)
    without.load_state_dict(model.state_dict())
    assert torch.equal(states_in_training(model.eval(), at), states_in_training(without.eval(), at))
    torch.testing.assert_close(states_in_training(without.train(), at), states_in_training(without.eval(), at))


@ATTENTIVE
def test_attn_dropout_starts_at_the_rate_of_the_other_dropout(cls):
    model = cls(8, 6)
    assert {block.weigh.rate for block in model.blocks} == {0.2}
    with pytest.raises(ValueError, match=r"attn_dropout is 1.5; it must lie in \[0, 0.99\)"):
        cls(8, 6, attn_dropout=1.5)


def test_sasrec_drops_between_its_feed_forward_layers():
    torch.manual_seed(0)
    ffn = SASRec(64, 6, dropout=0.25, attn_dropout=0.0).blocks[0].ffn
    ffn[0].weight.data.zero_()
    ffn[0].bias.data.fill_(1.0)
    ffn[2].weight.data.copy_(torch.eye(64))
    hidden, expected = ffn(torch.zeros(500, 64)), 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # GELU(1)
    assert (hidden == 0).double().mean().item() == pytest.approx(0.25, abs=0.01)
    assert hidden[hidden != 0].tolist() == pytest.approx([expected / 0.75] * int((hidden != 0).sum()))
    assert ffn.eval()(torch.zeros(1, 64))[0].tolist() == pytest.approx([expected] * 64)


def test_weights_of_sasrec_keep_their_names_so_that_those_recorded_before_fit():
    layers = ["norm_attention", "norm_ffn", "qkv", "out", "ffn.0", "ffn.2"]
    block = {f"blocks.0.{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(SASRec(8, 6, n_blocks=1).state_dict()) == block | {"position", "norm.weight", "norm.bias"}

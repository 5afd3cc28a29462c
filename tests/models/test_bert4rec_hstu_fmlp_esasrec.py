"""BERT4Rec, HSTU, eSASRec and FMLP-Rec against independent float64 recomputations; the tasks they are trained by."""

import cmath
import math

import pytest
import torch

from backbones._base import MASKED
from backbones.bert4rec import BERT4Rec
from backbones.esasrec import ESASRec
from backbones.fmlp import FMLP
from backbones.hstu import HSTU
from backbones.hstu_time import HSTUTime

D, MAX_LEN = 8, 6


def made(cls, **own):
    """A backbone in evaluation mode and float64 whose weights are all away from their start."""
    torch.manual_seed(0)
    model = cls(D, MAX_LEN, **own).eval().double()
    for p in model.parameters():
        p.data.add_(0.2 * torch.randn_like(p))
    return model


def vectors(rows, length):
    return torch.randn(rows, length, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def all_real(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def linear(h, module):
    return h @ module.weight.T + (0 if module.bias is None else module.bias)


def normed(h, eps):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def layer_norm(h, module):
    return normed(h, 1e-5) * module.weight + module.bias


def gelu(z):
    return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def silu(z):
    return z / (1 + torch.exp(-z))


def attention(q, k, v, heads, reads):
    """Softmax attention of one row (L, d), one query and one head at a time; query t reads the positions reads(t)."""
    L, d = q.shape
    width, out = d // heads, torch.zeros_like(q)
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        for t in range(L):
            keys = reads(t)
            weights = (k[keys, at] @ q[t, at] / math.sqrt(width)).softmax(0)
            out[t, at] = weights @ v[keys, at]
    return out


# eSASRec


@pytest.mark.parametrize(("emb_scale", "factor"), [("one", 1.0), ("sqrt_d", math.sqrt(D))])
def test_esasrec_gates_both_branches_by_the_stream_they_join(emb_scale, factor):
    model = made(ESASRec, n_blocks=2, n_heads=2, ff_mult=2, emb_scale=emb_scale)
    x = vectors(3, 5)
    h = factor * x + model.position[:5]
    for block in model.blocks:
        q, k, v = linear(layer_norm(h, block.norm_attention), block.qkv).split(D, -1)
        mixed = torch.stack([attention(*row, 2, lambda t: range(t + 1)) for row in zip(q, k, v, strict=True)])
        h = h + torch.sigmoid(linear(h, block.gate_attention)) * linear(mixed, block.out)
        z, ffn = layer_norm(h, block.norm_ffn), block.ffn
        z = (silu(z @ ffn.gated.weight.T) * (z @ ffn.linear.weight.T)) @ ffn.out.weight.T
        h = h + torch.sigmoid(linear(h, block.gate_ffn)) * z
    torch.testing.assert_close(model(x, all_real(x)), layer_norm(h, model.norm))


def test_esasrec_has_a_swiglu_of_its_width_without_biases_and_starts_as_sasrec_does():
    block = ESASRec(64, 50, ff_mult=2).blocks[0]
    assert {name: tuple(p.shape) for name, p in block.ffn.named_parameters()} == {
        "gated.weight": (128, 64),
        "linear.weight": (128, 64),
        "out.weight": (64, 128),
    }
    for layer in (block.qkv, block.ffn.gated, block.ffn.out, block.gate_ffn):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.count_nonzero(block.gate_attention.bias) == 0
    assert torch.all(block.norm_ffn.weight == 1)


# BERT4Rec


def test_bert4rec_is_post_norm_attention_over_the_real_positions_of_the_whole_row():
    model = made(BERT4Rec, n_blocks=2, n_heads=2)
    x, lengths = vectors(3, MAX_LEN + 1), [7, 3, 1]
    real = torch.arange(MAX_LEN + 1) < torch.tensor(lengths)[:, None]
    found = model(x, real)
    for row, length in enumerate(lengths):
        from_end = [max(length - 1 - t, 0) for t in range(len(x[row]))]
        h = layer_norm(math.sqrt(D) * x[row] + model.position[from_end], model.norm)
        for block in model.blocks:
            q, (k, v) = linear(h, block.query), linear(h, block.key_value).split(D, -1)
            mixed = attention(q, k, v, 2, lambda t, length=length: range(length))
            h = layer_norm(h + linear(mixed, block.out), block.norm_attention)
            h = layer_norm(h + linear(gelu(linear(h, block.ffn[0])), block.ffn[2]), block.norm_ffn)
        expected = layer_norm(gelu(linear(h, model.head[0])), model.head[2])
        torch.testing.assert_close(found[row, :length], expected[:length])


def cloze(seed=0, rows=2000, **own):
    """Rows of 2 to 7 items, a masked copy and its targets."""
    g = torch.Generator().manual_seed(seed)
    items = torch.randint(1, 100, (rows, MAX_LEN + 1), generator=g)
    items *= torch.arange(MAX_LEN + 1) < torch.randint(2, MAX_LEN + 2, (rows, 1), generator=g)
    return items, *BERT4Rec(D, MAX_LEN, **own).views(items, g)


def test_the_cloze_task_hides_exactly_what_it_asks_for():
    items, inputs, targets = cloze()
    masked = inputs == MASKED
    assert torch.equal(targets, torch.where(masked, items, 0))
    assert torch.equal(inputs, torch.where(masked, MASKED, items))
    assert not (masked & (items == 0)).any()


def test_the_cloze_task_masks_at_least_one_item_of_a_row_and_leaves_at_least_one():
    for mask_prob in (0.0, 0.3, 1.0):
        items, inputs, _ = cloze(mask_prob=mask_prob)
        masked, length = (inputs == MASKED).sum(1), (items > 0).sum(1)
        assert (masked >= 1).all()
        assert (masked < length).all()


def test_the_cloze_task_masks_its_share_of_every_position():
    items, inputs, _ = cloze(rows=20_000, mask_prob=0.4, last_prob=0.0)
    whole = (items > 0).sum(1) == MAX_LEN + 1
    share = (inputs == MASKED)[whole].double().mean(0)
    assert share.tolist() == pytest.approx([0.4] * (MAX_LEN + 1), abs=0.04)


def test_with_its_probability_a_row_masks_its_last_item_alone():
    items, inputs, _ = cloze(rows=20_000, mask_prob=0.0, last_prob=0.25)
    last = torch.arange(MAX_LEN + 1) == (items > 0).sum(1, keepdim=True) - 1
    assert cloze_is(inputs, last).double().mean().item() == pytest.approx(0.25 + 0.75 / 4, abs=0.05)
    _, inputs, _ = cloze(rows=20_000, mask_prob=0.9, last_prob=1.0)
    assert cloze_is(inputs, last).all()


def cloze_is(inputs, masked):
    return ((inputs == MASKED) == masked).all(1)


def test_a_row_of_one_item_is_not_trained():
    items = torch.tensor([[5, 0, 0], [7, 8, 0]])
    for last_prob in (0.0, 1.0):
        inputs, targets = BERT4Rec(D, MAX_LEN, mask_prob=1.0, last_prob=last_prob).views(items, torch.Generator())
        assert inputs[0].tolist() == [5, 0, 0]
        assert targets[0].tolist() == [0, 0, 0]
        assert targets[1].count_nonzero() == 1


def test_the_cloze_task_draws_from_the_generator_it_is_given():
    first, again, other = (cloze(seed)[1] for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bert4rec_owns_the_vector_of_masked_positions():
    model = BERT4Rec(D, MAX_LEN)
    assert model.mask.shape == (D,)
    assert any(p is model.mask for p in model.parameters())


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"n_heads": 3}, "n_heads=3, which does not divide"),
        ({"mask_prob": 1.5}, "mask_prob is 1.5"),
        ({"last_prob": -0.1}, "last_prob is -0.1"),
        ({"emb_scale": "two"}, "one of: one, sqrt_d"),
    ],
)
def test_bert4rec_refuses_what_it_cannot_be(own, message):
    with pytest.raises(ValueError, match=message):
        BERT4Rec(D, MAX_LEN, **own)


# HSTU


def hstu_states(model, x, time_bias):
    """The states of one row (L, d) by the equations of the paper; time_bias(block, i, j) in addition to position's."""
    L, heads, n = len(x), 2, MAX_LEN
    width = D // heads
    h = math.sqrt(D) * x + model.position[:L]
    for number, block in enumerate(model.blocks):
        z = normed(h, 1e-6)
        u, q = silu(z @ block.uq.weight.T).split(D, -1)
        v, k = silu(z @ block.vk.weight.T).split(D, -1)
        mixed = torch.zeros_like(h)
        for head in range(heads):
            at = slice(head * width, (head + 1) * width)
            for i in range(L):
                for j in range(i + 1):
                    rab = model.position_bias[number][i - j] + time_bias(number, i, j)
                    mixed[i, at] += silu(q[i, at] @ k[j, at] + rab) / n * v[j, at]
        h = h + linear(u * normed(mixed, 1e-6), block.out)
    return h


def test_hstu_is_pointwise_attention_over_a_constant_length_with_gated_outputs():
    model = made(HSTU, n_blocks=2, n_heads=2)
    x = vectors(3, 4)
    expected = torch.stack([hstu_states(model, row, lambda *_: 0.0) for row in x])
    torch.testing.assert_close(model(x, all_real(x)), expected)


TIMES = torch.tensor(
    [
        [10, 10, 11, 400, 90_000],  # equal times: the smallest bucket
        [1_300_000_000, 1_300_000_002, 1_300_086_400, 1_302_592_000, 1_400_000_000],
    ]
)


def test_hstu_time_adds_a_bias_by_the_logarithm_of_the_time_to_the_next_event():
    model = made(HSTUTime, n_blocks=2, n_heads=2)
    x = vectors(2, 4)
    buckets = set()
    expected = []
    for row, times in zip(x, TIMES.tolist(), strict=True):

        def bias(block, i, j, times=times):
            bucket = math.floor(math.log(max(1, abs(times[i + 1] - times[j]))) / 0.301)
            buckets.add(bucket)
            return model.time_bias[block][bucket]

        expected.append(hstu_states(model, row, bias))
    assert len(buckets) == 7
    torch.testing.assert_close(model(x, all_real(x), TIMES), torch.stack(expected))


def test_hstu_time_reads_the_time_of_the_event_to_be_predicted_and_of_none_after_it():
    model = made(HSTUTime)
    x, later = vectors(2, 4), TIMES.clone()
    later[:, 3:] += 10**6
    expected, found = model(x, all_real(x), TIMES), model(x, all_real(x), later)
    torch.testing.assert_close(found[:, :2], expected[:, :2])
    assert ((found - expected)[:, 2].abs().amax(1) > 1e-6).all()


def test_a_time_beyond_the_last_bucket_falls_into_it():
    model = made(HSTUTime)
    x, times = vectors(1, 1), torch.tensor([[0, 2**62]])
    with torch.no_grad():
        before = model(x, all_real(x), times)
        for bias in model.time_bias:
            bias[-1] += 1  # the bucket would be 142 of 128
        assert not torch.allclose(model(x, all_real(x), times), before)


def test_hstu_starts_as_its_code_does():
    torch.manual_seed(0)
    model = HSTUTime(64, 50)
    block = model.blocks[0]
    assert block.uq.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.vk.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.out.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 128), rel=0.01)
    assert [len(bias) for bias in model.position_bias] == [50, 50]
    assert [len(bias) for bias in model.time_bias] == [128, 128]
    assert model.time_bias[0].std().item() == pytest.approx(0.02, rel=0.25)


@pytest.mark.parametrize("cls", [HSTU, HSTUTime])
@pytest.mark.parametrize("d", [16, 64])
def test_positions_of_hstu_start_as_a_normal_distribution_cut_at_two_standard_deviations(cls, d):
    torch.manual_seed(0)
    position, std = cls(d, 400).position, d**-0.5
    below, density = (1 + math.erf(2 / math.sqrt(2))) / 2, math.exp(-2) / math.sqrt(2 * math.pi)
    assert position.std().item() == pytest.approx(std * math.sqrt(1 - 4 * density / (2 * below - 1)), rel=0.02)
    assert position.mean().item() == pytest.approx(0, abs=0.05 * std)
    assert 1.95 * std < position.abs().max().item() <= 2 * std


def test_hstu_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="n_heads=3, which does not divide"):
        HSTU(D, MAX_LEN, n_heads=3)
    with pytest.raises(ValueError, match="one of: one, sqrt_d"):
        HSTU(D, MAX_LEN, emb_scale="two")


# FMLP-Rec


def circular(h, weight):
    """irfft(W * rfft(h)) of one row (n, d) by the sums that define the two transforms, n even."""
    n, d = h.shape
    out = torch.zeros_like(h)
    for c in range(d):
        spectrum = [sum(h[t, c].item() * cmath.exp(-2j * cmath.pi * f * t / n) for t in range(n)) for f in range(n)]
        for f in range(n // 2 + 1):
            spectrum[f] *= complex(*weight[f, c].tolist())
        spectrum[0], spectrum[n // 2] = spectrum[0].real, spectrum[n // 2].real  # what a real signal has there
        for f in range(n // 2 + 1, n):
            spectrum[f] = spectrum[n - f].conjugate()
        for t in range(n):
            out[t, c] = sum(spectrum[f] * cmath.exp(2j * cmath.pi * f * t / n) for f in range(n)).real / n
    return out


def test_fmlp_filters_rows_that_end_at_the_end_of_the_circle():
    model = made(FMLP, n_blocks=2)
    x, lengths = vectors(3, 5), [5, 3, 1]
    real = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = model(x, real)
    for row, length in enumerate(lengths):
        own = math.sqrt(D) * x[row, :length] + model.position[MAX_LEN - length :]
        h = layer_norm(own, model.norm)
        for block in model.blocks:
            circle = torch.zeros(MAX_LEN, D, dtype=torch.float64)
            circle[MAX_LEN - length :] = h
            h = layer_norm(h + circular(circle, block.filter)[MAX_LEN - length :], block.norm_filter)
            h = layer_norm(h + linear(gelu(linear(h, block.ffn[0])), block.ffn[2]), block.norm_ffn)
        torch.testing.assert_close(found[row, :length], h)


def test_fmlp_reads_nothing_of_what_stands_on_padding():
    model = made(FMLP)
    x, real = vectors(2, 5), torch.arange(5) < torch.tensor([[3], [2]])
    changed = torch.where(real[..., None], x, 7.0)
    torch.testing.assert_close(model(changed, real)[real], model(x, real)[real], rtol=0, atol=0)


def prefixes_of(items, prefixes, seed=0):
    return FMLP(D, MAX_LEN, prefixes=prefixes).views(items, torch.Generator().manual_seed(seed))


def as_pairs(inputs, targets):
    """(prefix, target) of each row, checked: the target stands alone, at the last item of the prefix."""
    pairs = []
    for row, target in zip(inputs.tolist(), targets.tolist(), strict=True):
        prefix = tuple(item for item in row if item)
        assert row == [*prefix, *[0] * (len(row) - len(prefix))]
        assert [t for t in range(len(target)) if target[t]] == [len(prefix) - 1]
        pairs.append((prefix, target[len(prefix) - 1]))
    return pairs


def test_the_views_of_fmlp_are_different_prefixes_of_each_row_and_what_follows_them():
    items = torch.tensor([[1, 2, 3, 4, 5, 6, 7], [11, 12, 13, 0, 0, 0, 0]])
    of_first = [((1, 2, 3, 4, 5, 6)[:t], t + 1) for t in range(1, 7)]
    of_second = [((11,), 12), ((11, 12), 13)]
    assert sorted(as_pairs(*prefixes_of(items, 6))) == of_first + of_second
    assert sorted(as_pairs(*prefixes_of(items, 99))) == of_first + of_second
    for seed in range(10):
        pairs = as_pairs(*prefixes_of(items, 3, seed))
        assert len(set(pairs)) == len(pairs) == 5
        assert set(pairs) <= set(of_first + of_second)
        assert set(of_second) <= set(pairs)


def test_every_prefix_is_drawn_equally_often_and_by_the_generator():
    items = torch.arange(1, 8).expand(6000, 7)
    inputs, targets = prefixes_of(items, 2)
    counts = targets.sum(1).bincount(minlength=8)[2:]
    assert counts.sum() == 12_000
    assert counts.tolist() == pytest.approx([2000] * 6, rel=0.1)
    assert torch.equal(prefixes_of(items, 2)[0], inputs)
    assert not torch.equal(prefixes_of(items, 2, seed=1)[0], inputs)


def test_fmlp_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="prefixes is 0"):
        FMLP(D, MAX_LEN, prefixes=0)
    with pytest.raises(ValueError, match="one of: one, sqrt_d"):
        FMLP(D, MAX_LEN, emb_scale="two")

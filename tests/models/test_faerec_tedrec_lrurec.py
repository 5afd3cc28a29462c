"""FAERec, TedRec and LRURec against independent float64 recomputations, written out term by term."""

import cmath
import dataclasses
import math

import numpy as np
import pytest
import torch
from synthetic_spectra import toy_spectrum

from adapters._base import Interactions, ItemTable, Step
from adapters.faerec import FAERec
from adapters.svd import COPY_STD
from adapters.tedrec import TedRec
from backbones.fmlp import FMLP
from backbones.lrurec import LRURec, linear_scan
from backbones.sasrec import SASRec
from harness.training.losses.infonce import InfoNCE
from harness.training.losses.softmax import Softmax
from harness.training.model import SequenceModel

D = 6
SEQUENCES = torch.tensor([[5, 9, 3, 60, 2], [7, 5, 11, 0, 0], [44, 9, 5, 0, 0], [1, 30, 5, 21, 0]])
NO_STATES = torch.zeros(0, D)


def stirred(model, size=0.1):
    torch.manual_seed(1)
    for p in model.parameters():
        p.data.add_(size * torch.randn_like(p))
    return model.double().eval()


def gelu(x):
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def step_of(sequences=SEQUENCES, epoch=0):
    users = torch.arange(len(sequences))
    return Step(sequences, users, NO_STATES, NO_STATES[:, 0].long(), lambda items: items, 4, epoch)


# FAERec


def faerec(spectrum=None, **own):
    return stirred(FAERec(spectrum or toy_spectrum(), D, **own))


def batch_of(adapter, step):
    """The events of a step and its uniformly drawn items, one row per occurrence, in any order."""
    events = step.sequences[step.sequences > 0] - 1
    torch.manual_seed(7)
    both = torch.cat([events, torch.randint(adapter.n, events.shape)])
    both = both[(adapter.spectrum.E[both] != 0).any(1)]
    return both, adapter.id.detach()[both], adapter.text(adapter.features[both]).detach()


def info_nce_by_hand(ids, v, t, tau):
    """One occurrence at a time; other occurrences of the same item are no candidates."""
    v, t = (x / x.square().sum(1, keepdim=True).sqrt() for x in (v, t))
    total = 0.0
    for a, item in enumerate(ids):
        candidates = [b for b in range(len(ids)) if b == a or ids[b] != item]
        own = math.exp(float(v[a] @ t[a]) / tau)
        total -= math.log(own / sum(math.exp(float(v[a] @ t[b]) / tau) for b in candidates))
    return total / len(ids)


def correlations_by_hand(v, t):
    """The loss of a group of occurrences, entry by entry of the correlation matrix."""
    v, t = (((x - x.mean(0)) / (x.std(0) + 1e-5)).numpy() for x in (v, t))
    loss = 0.0
    for a in range(D):
        for b in range(D):
            c = sum(v[i, a] * t[i, b] for i in range(len(v))) / len(v)
            loss += (c - 1) ** 2 if a == b else 0.005 * c**2
    return loss


def popularity_by_hand(adapter, ids):
    events = adapter.spectrum.interactions.items.tolist()
    return torch.tensor([max(events.count(i), 1) for i in ids.tolist()])


def test_faerec_fuses_an_id_vector_and_mapped_text_dimension_by_dimension():
    adapter = faerec(toy_spectrum(missing=(4,)))
    x, (first, _, _, second) = adapter.features, adapter.map
    t = COPY_STD * (gelu(x @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    into, _, _, out, _ = adapter.gate
    inner = gelu(torch.cat([adapter.id, t], 1) @ into.weight.T + into.bias)
    g = 1 / (1 + torch.exp(-(inner @ out.weight.T + out.bias)))
    assert g.shape == (60, D)
    torch.testing.assert_close(adapter(), g * adapter.id + (1 - g) * t)


def test_faerec_starts_its_ids_at_the_principal_components_of_the_text():
    spectrum = toy_spectrum(missing=(4, 9))
    id = FAERec(spectrum, D).id.detach()
    E = spectrum.E.double().numpy()
    rows = (E != 0).any(1)
    values, vectors = np.linalg.eigh(np.cov(E[rows].T))
    scores = torch.from_numpy((E[rows] - E[rows].mean(0)) @ vectors[:, np.argsort(values)[::-1][:D]])
    found = id[torch.from_numpy(rows)].double()
    cosines = torch.nn.functional.cosine_similarity(found, scores, dim=0)
    torch.testing.assert_close(cosines.abs(), torch.ones(D, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    lengths = found.norm(dim=0) / scores.norm(dim=0)
    torch.testing.assert_close(lengths, lengths[:1].expand(D), rtol=1e-4, atol=0)
    assert id.std().item() == pytest.approx(COPY_STD)


def test_faerecs_mapped_text_starts_as_large_as_its_ids():
    torch.manual_seed(0)
    sizes = [a.text(a.features).std().item() for a in (FAERec(toy_spectrum(200, 40), 20).eval() for _ in range(20))]
    assert 0.5 * COPY_STD < np.mean(sizes) < 1.5 * COPY_STD


@pytest.mark.parametrize("missing", [(), (4, 20)])
@pytest.mark.parametrize("epoch", [0, 3, 5, 8])
def test_faerecs_auxiliary_loss_is_that_of_the_batch_with_its_repetitions(epoch, missing):
    adapter = faerec(toy_spectrum(missing=missing), weight=0.3, tau=0.2, w_min=0.6, period=10)
    step = step_of(SEQUENCES.repeat(3, 1), epoch)
    ids, v, t = batch_of(adapter, step)
    assert ids.unique(return_counts=True)[1].max() > 3
    popularity = popularity_by_hand(adapter, ids)
    popular = popularity >= popularity.sort().values[(len(ids) - 1) // 2]
    assert popular.any()
    assert not popular.all()
    feature = correlations_by_hand(v[popular], t[popular]) + correlations_by_hand(v[~popular], t[~popular])
    w = 0.6 + 0.4 * (1 + math.cos(2 * math.pi * epoch / 10)) / 2
    torch.manual_seed(7)
    expected = 0.3 * (w * info_nce_by_hand(ids.tolist(), v, t, 0.2) + (1 - w) * feature)
    assert adapter.aux(step).item() == pytest.approx(expected, rel=1e-9)


def test_faerecs_curriculum_returns_to_the_item_level_after_a_period():
    adapter, losses = faerec(w_min=0.0, period=4), []
    for epoch in range(9):
        torch.manual_seed(7)
        losses.append(adapter.aux(step_of(epoch=epoch)).item())
    assert losses[0] == pytest.approx(losses[4]) == pytest.approx(losses[8])
    assert losses[1] == pytest.approx(losses[3])
    assert len({round(loss, 6) for loss in losses[:3]}) == 3
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2), "a quarter of a period weighs the two levels alike"


def test_faerec_has_no_auxiliary_loss_where_no_item_has_text():
    adapter = faerec(toy_spectrum(missing=tuple(range(20))))
    adapter.n = 10  # uniform draws fall on items without text too
    assert adapter.aux(step_of(torch.tensor([[3, 8, 0], [19, 2, 1]]))) is None


def test_faerecs_loss_of_one_popularity_has_a_finite_gradient():
    interactions = Interactions(torch.arange(60), torch.tensor([0, 60]))
    adapter = faerec(dataclasses.replace(toy_spectrum(), interactions=interactions), w_min=0.0, period=2)
    loss = adapter.aux(step_of(epoch=1))
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in adapter.parameters())


# TedRec


def fused_by_definition(adapter, v, t, n):
    """The authors' layer on rows (n, d), by the definition of the discrete Fourier transform."""
    mixer, waves = adapter.mixer, [[cmath.exp(-2j * math.pi * j * f / n) for j in range(n)] for f in range(n)]
    F = torch.tensor(waves, dtype=torch.complex128) / math.sqrt(n)
    half = torch.view_as_complex(mixer.filter.detach())
    W = torch.zeros(n, half.shape[1], dtype=torch.complex128)
    for f in range(n):
        W[f] = half[f] if f <= n // 2 else half[n - f].conj()
    W[0] = W[0].real.to(W.dtype)  # the transform of a real signal
    if n % 2 == 0:
        W[n // 2] = W[n // 2].real.to(W.dtype)
    back = F.conj().T
    a, b = ((back @ product).real for product in (W * (F @ v.to(F.dtype)), (F @ t.to(F.dtype)) * (F @ v.to(F.dtype))))
    gates = [
        1 / (1 + torch.exp(-(x @ gate.weight[0] + gate.bias)))[:, None]
        for x, gate in ((a, mixer.gate_filter), (b, mixer.gate_text))
    ]
    return 2 * (gates[0] * a + gates[1] * b)


def tedrec(length=7, residual=False, **own):
    return stirred(TedRec(toy_spectrum(missing=(4,)), D, length=length, residual=residual, **own))


@pytest.mark.parametrize("length", [7, 8])
def test_tedrec_mixes_a_history_as_the_published_layer_does_at_its_last_item(length):
    adapter = tedrec(length)
    x = torch.randn(length, 2 * D, dtype=torch.float64)
    found = adapter.mix(x[None], torch.ones(1, length, dtype=torch.bool), True)[0]
    for last in range(length):
        padded = torch.nn.functional.pad(x[: last + 1], (0, 0, 0, length - last - 1))
        v, t = padded[:, :D], padded[:, D:] / COPY_STD
        t[: last + 1] += adapter.mixer.shift.detach()[: last + 1]
        expected = fused_by_definition(adapter, v, t, length)[last]
        torch.testing.assert_close(found[last], expected)


def test_tedrec_reads_rows_longer_than_its_filter():
    """The filter covers the last n items, the text all; positions after the last share its shift."""
    adapter, L, n = tedrec(3), 5, 3
    x = torch.randn(1, L, 2 * D, dtype=torch.float64)
    found = adapter.mix(x, torch.ones(1, L, dtype=torch.bool), False)[0]
    mixer = adapter.mixer
    kernel = torch.fft.irfft(torch.view_as_complex(mixer.filter.detach()), n=n, dim=0)
    v, t = x[0, :, :D], x[0, :, D:] / COPY_STD + mixer.shift.detach()[[0, 1, 2, 2, 2]]
    for j in range(L):
        a = sum(kernel[j - s] * v[s] for s in range(j + 1) if j - s < n)
        b = sum(v[s] * t[j - s] for s in range(j + 1)) / math.sqrt(n)
        expected = 2 * (torch.sigmoid(mixer.gate_filter(a)) * a + torch.sigmoid(mixer.gate_text(b)) * b)
        torch.testing.assert_close(found[j], expected)


def test_tedrecs_residual_is_the_sequence_of_ids():
    plain, added = tedrec(), tedrec(residual=True)
    added.load_state_dict(plain.state_dict())
    x, real = torch.randn(2, 5, 2 * D, dtype=torch.float64), torch.ones(2, 5, dtype=torch.bool)
    torch.testing.assert_close(added.mix(x, real, True), plain.mix(x, real, True) + x[..., :D])


def test_tedrecs_text_is_the_mixture_of_experts_at_the_size_of_its_ids():
    torch.manual_seed(0)
    adapter = TedRec(toy_spectrum(200, 40), 20).eval()
    table = adapter().detach()
    assert torch.equal(table[:, :20], adapter.table)
    text, mixture = table[:, 20:], adapter.moe().detach()
    torch.testing.assert_close(text, mixture * (text[0, 0] / mixture[0, 0]))
    assert text.square().mean().sqrt().item() == pytest.approx(COPY_STD, rel=0.25)


@pytest.mark.parametrize("loss", [Softmax, InfoNCE])
@pytest.mark.parametrize("backbone", [SASRec, FMLP])
def test_tedrec_scores_items_by_their_ids_alone_and_the_backbone_reads_one_vector_an_event(backbone, loss):
    table = ItemTable(tedrec(), D, fusion="none", out_std=0.05, id_std=0.0).double().eval()
    model = SequenceModel(table, backbone(D, 5).double().eval(), loss(60))
    read = []
    handle = model.backbone.register_forward_pre_hook(lambda _, args: read.append(args[0].shape))
    T, items = model.table(), SEQUENCES[:, :-1]
    assert T.shape == (61, 2 * D)
    assert model.states(items, T).shape == (4, 4, D)
    handle.remove()
    assert read == [(4, 4, D)]
    torch.testing.assert_close(model.scored(T)[1:], table.gain * table.adapter.table)
    without_text = T.clone()
    without_text[1:, D:] += 1
    assert not torch.allclose(model.last_states(items, without_text), model.last_states(items, T))


# LRURec


def layer_norm(h, module):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + module.eps).sqrt() * module.weight + module.bias


def lru_by_hand(h, lru):
    """One row (L, d), one state at a time, in complex arithmetic of Python."""
    L, width = len(h), 2 * h.shape[1]
    into = [w.detach().reshape(width, 2, -1) for w in (lru.into.weight, lru.into.bias)]
    out = lru.out.weight.detach().reshape(-1, width, 2)
    y = lru.out.bias.detach().repeat(L, 1)
    for k in range(width):
        rate, angle = lru.nu[k].exp().item(), lru.theta[k].exp().item()
        factor, gamma, s = cmath.exp(complex(-rate, angle)), lru.log_gamma[k].exp().item(), 0j
        for t in range(L):
            parts = [(into[0][k, part] @ h[t] + into[1][k, part, 0]).item() for part in range(2)]
            s = factor * s + gamma * complex(*parts)
            y[t] += out[:, k, 0] * s.real + out[:, k, 1] * s.imag
    return y


@pytest.mark.parametrize("L", [1, 2, 5, 6])
def test_lrurec_is_the_published_network_step_by_step(L):
    model = stirred(LRURec(D, 6), 0.2)
    x = torch.randn(2, L, D, dtype=torch.float64)
    h = layer_norm(x, model.norm)
    for block in model.blocks:
        mixed = torch.stack([lru_by_hand(row, block.lru) for row in h.detach()])
        h = layer_norm(h + mixed, block.norm_lru)
        first, last = block.ffn[0], block.ffn[3]
        inner = gelu(h @ first.weight.T + first.bias)
        h = layer_norm(h + inner @ last.weight.T + last.bias, block.norm_ffn)
    torch.testing.assert_close(model(x, torch.ones(2, L, dtype=torch.bool)), h)


def test_the_gradient_of_the_scan_is_that_of_the_recurrence():
    g = torch.Generator().manual_seed(0)
    factor = torch.polar(torch.rand(3, generator=g, dtype=torch.float64), torch.rand(3, generator=g).double() * 6)
    u = torch.randn(2, 7, 3, generator=g, dtype=torch.complex128)
    assert torch.autograd.gradcheck(linear_scan, (factor.requires_grad_(), u.requires_grad_()))


def test_lrurecs_states_start_in_the_published_ring_at_unit_gain():
    torch.manual_seed(0)
    lru = LRURec(256, 5).double().blocks[0].lru
    size = torch.exp(-torch.exp(lru.nu))
    assert 0.8 < size.min() < 0.81
    assert 0.985 < size.max() < 0.99
    assert (size < math.sqrt((0.8**2 + 0.99**2) / 2)).double().mean().item() == pytest.approx(0.5, abs=0.1), "by area"
    angle = lru.theta.exp()
    assert 0 <= angle.min() < 0.1
    assert 6.18 < angle.max() < 2 * math.pi + 1e-6
    torch.testing.assert_close(lru.log_gamma.exp(), (1 - size**2).sqrt(), rtol=1e-5, atol=1e-6)
    weights = torch.cat([p.flatten() for layer in (lru.into, lru.out) for p in layer.parameters()])
    assert weights.abs().max() <= 0.04
    assert weights.std().item() == pytest.approx(0.0176, rel=0.02), "a normal of 0.02 cut at two deviations"


def test_lrurec_forgets_nothing_at_once_and_everything_in_the_end():
    """The first of many items moves the last state less than the second last one does."""
    torch.manual_seed(0)
    model = LRURec(16, 200).double().eval()
    x = torch.randn(1, 200, 16, dtype=torch.float64, requires_grad=True)
    model(x, torch.ones(1, 200, dtype=torch.bool))[0, -1].square().mul(torch.arange(16)).sum().backward()
    reach = x.grad[0].norm(dim=1)
    assert 0 < reach[0] < 0.1 * reach[-2]

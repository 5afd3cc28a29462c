"""Adapters that learn from text by an auxiliary loss, against independent float64 recomputations."""

import dataclasses
import itertools
import math

import pytest
import torch
from synthetic_spectra import spectrum_of, toy_interactions, toy_spectrum

from adapters._align import LENGTH, soft_contrast
from adapters._base import Interactions, ItemTable, Spectrum, Step
from adapters.llmemb import LLMEmb
from adapters.llmesr import LLMESR, TAU
from adapters.rlmrec_con import RLMRecCon
from adapters.rlmrec_gen import RLMRecGen
from backbones.bert4rec import BERT4Rec
from backbones.fmlp import FMLP
from backbones.gru4rec import GRU4Rec
from backbones.sasrec import SASRec
from harness.search import spaces
from harness.training.losses.softmax import Softmax
from harness.training.model import Batch, SequenceModel
from harness.types import Cell

SEQUENCES = torch.tensor([[5, 9, 3, 60, 2], [7, 5, 11, 0, 0], [44, 9, 0, 0, 0], [1, 30, 5, 21, 0]])
USERS = torch.tensor([0, 1, 2, 5])
LONGEST = 7  # that a backbone takes: more than the rows of this step have


class Encoder:
    """A fixed function of item numbers in place of a backbone, differentiable, that remembers what it was asked."""

    def __init__(self, n, width):
        g = torch.Generator().manual_seed(0)
        self.weights = torch.randn(n + 1, width, generator=g, dtype=torch.float64).requires_grad_()
        self.asked = []

    def __call__(self, items):
        self.asked.append(items)
        place = torch.arange(1, items.shape[1] + 1, dtype=torch.float64)
        return (self.weights[items] * (items > 0)[..., None] * place[:, None]).sum(1)


def step_of(spectrum, d, views=1, targets=None):
    """A training step on the made-up sequences, of random states."""
    if targets is None:
        targets = SEQUENCES[:, 1:][SEQUENCES[:, 1:] > 0] - 1
    g = torch.Generator().manual_seed(1)
    states = torch.randn(len(targets), views * d, generator=g, dtype=torch.float64).requires_grad_()
    return Step(SEQUENCES, USERS, states, targets, Encoder(spectrum.n, views * d), LONGEST)


def cosine(x, y):
    x, y = x.detach(), y.detach()
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def soft_target_loss(X, Y, tau):
    """Written out item by item: dot products, soft targets, and their transposes in the other direction. Shape ()."""
    m = range(len(X))
    xy = [[X[i] @ Y[j] / tau for j in m] for i in m]
    both = [[torch.exp((X[i] @ X[j] + Y[i] @ Y[j]) / 2 * tau) for j in m] for i in m]
    total = torch.zeros((), dtype=X.dtype)
    for i in m:
        row = torch.log(sum(torch.exp(xy[i][j]) for j in m))
        column = torch.log(sum(torch.exp(xy[j][i]) for j in m))
        for j in m:
            target, transposed = both[i][j] / sum(both[i]), both[j][i] / sum(both[j])
            total = total - target * (xy[i][j] - row) / 2 - transposed * (xy[j][i] - column) / 2
    return total / len(X)


def of_length(rows, length):
    return rows * (length / rows.square().sum(1, keepdim=True).sqrt())


def perceptron(net, x):
    hidden = x @ net[0].weight.T + net[0].bias
    return torch.where(hidden > 0, hidden, 0.01 * hidden) @ net[2].weight.T + net[2].bias


def two_linear(net, x):
    return (x @ net[0].weight.T + net[0].bias) @ net[1].weight.T + net[1].bias


def stirred(adapter):
    """The adapter in float64 with every parameter moved off its initial value."""
    g = torch.Generator().manual_seed(1)
    adapter.double()
    for p in adapter.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=g, dtype=torch.float64))
    return adapter


def histories(*rows):
    lengths = torch.tensor([len(row) for row in rows])
    items = torch.tensor([item for row in rows for item in row], dtype=torch.int64)
    return Interactions(items, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))


def with_histories(spectrum, *rows):
    return Spectrum(spectrum.U, spectrum.S, spectrum.V, spectrum.mean, spectrum.E, histories(*rows))


def model_of(make, spectrum, d=8, max_len=4, backbone=SASRec):
    torch.manual_seed(0)
    table = ItemTable(make(spectrum, d), d, fusion="none", out_std=0.05, id_std=0.0)
    return SequenceModel(table, backbone(d, max_len), Softmax(spectrum.n))


# RLMRec-Con


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_rlmrec_con_is_infonce_of_every_item_against_the_texts_of_the_others(preprocess):
    spectrum = toy_spectrum(missing=(4, 9))
    adapter = stirred(RLMRecCon(spectrum, 6, weight=0.3, tau=0.4, preprocess=preprocess))
    ids = [i for i in sorted({int(n) - 1 for n in SEQUENCES.flatten() if n}) if i not in (4, 9)]
    text = perceptron(adapter.projection, spectrum.features(preprocess).double())
    total = 0.0
    for i in ids:
        scores = {j: cosine(adapter.table[i], text[j]) / 0.4 for j in ids}
        total += math.log(sum(math.exp(v) for v in scores.values())) - scores[i]
    found = adapter.aux(step_of(spectrum, 6))
    assert found.item() == pytest.approx(0.3 * total / len(ids), rel=1e-9)


def test_rlmrec_con_anchors_the_items_not_the_texts():
    spectrum = toy_spectrum()
    adapter = stirred(RLMRecCon(spectrum, 6))
    step = step_of(spectrum, 6)
    ids = step.items()
    x, y = (torch.nn.functional.normalize(t, dim=1) for t in (adapter.table, adapter.projection(adapter.features)))
    backwards = torch.nn.functional.cross_entropy(y[ids] @ x[ids].T / 0.2, torch.arange(len(ids))) * 1e-2
    assert abs(adapter.aux(step).item() - backwards.item()) > 1e-6


def test_the_map_of_rlmrec_has_one_hidden_layer_halfway_between_the_widths():
    adapter = RLMRecCon(toy_spectrum(), 6)
    assert [p.shape for p in adapter.projection.parameters()] == [(9, 12), (9,), (6, 9), (6,)]
    bound = math.sqrt(6 / (12 + 9))
    assert adapter.projection[0].weight.abs().max() <= bound
    assert adapter.projection[0].weight.abs().max() > 0.9 * bound
    assert not adapter.projection[0].bias.any()
    assert [p.shape for p in RLMRecGen(toy_spectrum(), 6).reconstruction.parameters()] == [(9, 6), (9,), (12, 9), (12,)]


def test_a_step_whose_items_have_no_text_has_nothing_to_align():
    spectrum = toy_spectrum()
    blank = Spectrum(spectrum.U, spectrum.S, spectrum.V, spectrum.mean, torch.zeros_like(spectrum.E))
    assert RLMRecCon(blank, 6).aux(step_of(blank, 6)) is None
    assert RLMRecGen(blank, 6).aux(step_of(blank, 6)) is None


@pytest.mark.parametrize("method", [RLMRecCon, RLMRecGen])
def test_the_free_table_starts_at_the_scale_of_an_id_embedding(method):
    torch.manual_seed(0)
    assert method(toy_spectrum(400, 12), 32)().std().item() == pytest.approx(0.05, rel=0.05)


def test_training_on_the_alignment_alone_brings_items_to_their_texts():
    spectrum = toy_spectrum()
    adapter = RLMRecCon(spectrum, 6, weight=1.0, preprocess="center")
    step = step_of(spectrum, 6)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    before = adapter.aux(step).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss = adapter.aux(step)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * before
    untouched = torch.ones(60, dtype=torch.bool)
    untouched[step.items()] = False
    assert not adapter.table.grad[untouched].any()


# RLMRec-Gen


def test_rlmrec_gen_reconstructs_the_text_of_the_target_from_the_state_among_the_different_targets():
    spectrum = toy_spectrum(missing=(4,))
    adapter = stirred(RLMRecGen(spectrum, 6, weight=0.7, tau=0.3, preprocess="center")).eval()
    step = step_of(spectrum, 6)
    text = spectrum.features("center").double()
    made = perceptron(adapter.reconstruction, step.states)
    targets = step.targets.tolist()
    assert 4 in targets
    assert len(set(targets)) < len(targets)
    positions = [p for p, target in enumerate(targets) if target != 4]
    candidates = {targets[p] for p in positions}
    total = 0.0
    for p in positions:
        scores = {j: cosine(made[p], text[j]) / 0.3 for j in candidates}
        total += math.log(sum(math.exp(v) for v in scores.values())) - scores[targets[p]]
    assert adapter.aux(step).item() == pytest.approx(0.7 * total / len(positions), rel=1e-9)


def test_positions_that_share_their_target_are_not_told_apart():
    spectrum = toy_spectrum()
    adapter = stirred(RLMRecGen(spectrum, 6, mask=1.0))
    step = step_of(spectrum, 6, targets=torch.tensor([8, 8, 8]))
    assert adapter.aux(step).item() == pytest.approx(0, abs=1e-12)


def test_in_training_the_asked_share_of_the_positions_is_drawn_anew_in_every_step():
    spectrum = toy_spectrum()
    adapter = stirred(RLMRecGen(spectrum, 6, mask=0.1))
    step = step_of(spectrum, 6, targets=torch.randint(60, (200,), generator=torch.Generator().manual_seed(3)))
    drawn = []
    for _ in range(2):
        (gradient,) = torch.autograd.grad(adapter.aux(step), step.states)
        drawn.append(gradient.abs().sum(1) > 0)
    assert [int(d.sum()) for d in drawn] == [20, 20]
    assert not torch.equal(*drawn)
    torch.manual_seed(7)
    first = adapter.aux(step)
    torch.manual_seed(7)
    assert adapter.aux(step) == first
    adapter.eval()
    assert adapter.aux(step) == adapter.aux(step)


@pytest.mark.parametrize("mask", [0.0, 1.5])
def test_a_share_that_is_none_is_refused(mask):
    with pytest.raises(ValueError, match=rf"mask is {mask}; it must lie in \(0, 1\]"):
        RLMRecGen(toy_spectrum(), 6, mask=mask)


# The soft-target loss


@pytest.mark.parametrize("tau", [1.0, 2.0, 10.0])
@pytest.mark.parametrize("length", [0.5, 3.0])
def test_the_soft_target_loss_and_its_gradients_are_those_of_the_formula(tau, length):
    g = torch.Generator().manual_seed(0)
    X, Y = (of_length(torch.randn(7, 4, generator=g, dtype=torch.float64), length) for _ in range(2))
    X *= torch.linspace(0.5, 1.5, 7)[:, None]  # lengths count
    found, expected = (loss(X.requires_grad_(), Y.requires_grad_(), tau) for loss in (soft_contrast, soft_target_loss))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    for a, b in zip(*(torch.autograd.grad(loss, (X, Y)) for loss in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def taus():
    axis = spaces.of_cell(Cell("toy", "noise", "sasrec", "llmemb"), spaces.SpaceSource()).searched["adapter.tau"]
    return [axis.low, 2.0, math.sqrt(axis.low * axis.high), axis.high]


def nearest(rows, to):
    """Share of the rows whose own counterpart is nearest by cosine among all."""
    found = (of_length(rows, 1.0) @ of_length(to, 1.0).T).argmax(1)
    return (found == torch.arange(len(rows))).double().mean().item()


def minimised(loss, free):
    """The rows (m, d) that a few hundred steps of Adam make of small random ones."""
    optimizer = torch.optim.Adam(free, lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return [rows.detach() for rows in free]


@pytest.mark.parametrize("tau", taus())
def test_the_rows_that_minimise_the_soft_target_loss_are_aligned_at_every_searched_tau(tau):
    g = torch.Generator().manual_seed(0)
    Y = of_length(torch.randn(200, 16, generator=g), LENGTH)
    assert soft_contrast(Y, Y, tau) < soft_contrast(Y, Y.roll(1, 0), tau) - 0.5
    X = (0.1 * torch.randn(200, 16, generator=g)).requires_grad_()
    (X,) = minimised(lambda: soft_contrast(X, Y, tau), [X])
    assert nearest(X, Y) > 0.98
    assert nearest(Y, X) > 0.98


def test_two_free_views_that_minimise_the_soft_target_loss_are_aligned():
    g = torch.Generator().manual_seed(0)
    X, Y = (of_length(torch.randn(200, 16, generator=g), LENGTH).requires_grad_() for _ in range(2))
    X, Y = minimised(lambda: soft_contrast(X, Y, TAU), [X, Y])
    assert nearest(X, Y) > 0.95


def gradient_share(make):
    """Length of the auxiliary loss's gradient over that of the main loss, in the first step on 400 items, d = 16."""
    spectrum = dataclasses.replace(toy_spectrum(400, 32), interactions=toy_interactions(400, 150))
    model = model_of(make, spectrum, 16, 9).eval()
    rows = [torch.tensor(row) + 1 for row in rows_of(spectrum.interactions) if len(row) > 1]
    items = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    batch = Batch(items, torch.arange(len(items)))
    adapter = model.table.adapter
    trained = [p for name, p in adapter.named_parameters() if not name.startswith("mixer")]

    def gradient():
        grads = torch.autograd.grad(model.loss(batch, torch.Generator()), trained, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    both = gradient()
    adapter.aux = lambda step: None
    main = gradient()
    return ((both - main).norm() / main.norm()).item()


@pytest.mark.parametrize("tau", taus())
def test_the_gradient_of_the_alignment_of_llmemb_counts_at_its_default_weight(tau):
    assert gradient_share(lambda s, d: LLMEmb(s, d, tau=tau)) > 0.005
    assert gradient_share(LLMEmb) > 0.05


def test_the_gradient_of_the_alignment_of_llmemb_does_not_depend_on_the_scale_of_the_text():
    def scaled(factor):
        return gradient_share(lambda s, d: LLMEmb(dataclasses.replace(s, E=s.E * factor), d))

    assert scaled(100.0) == pytest.approx(scaled(1.0), rel=0.05)  # biases have their own scale


def test_the_gradient_of_the_loss_between_the_views_of_llmesr_counts_at_its_least_searched_weight():
    searched = spaces.of_cell(Cell("toy", "noise", "sasrec", "llmesr"), spaces.SpaceSource()).searched["adapter.beta"]
    least = min(beta for beta in searched.values if beta > 0)
    assert gradient_share(lambda s, d: LLMESR(s, d, alpha=0.0, beta=least)) > 0.05


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_both_sides_of_every_alignment_start_at_the_same_length(preprocess):
    torch.manual_seed(0)
    spectrum = toy_spectrum(300, 40)
    adapter = LLMEmb(spectrum, 16, preprocess=preprocess)
    rows = torch.stack([LLMEmb(spectrum, 16, preprocess=preprocess)() * adapter.scale for _ in range(20)])
    assert rows.square().sum(2).mean().sqrt().item() == pytest.approx(LENGTH, rel=0.2)
    assert adapter.collaborative[adapter.aligned].norm(dim=1).tolist() == pytest.approx(
        [LENGTH] * int(adapter.aligned.sum())
    )


# LLMEmb


def mutual_information(rows, n, window):
    """PPMI by counting every pair of every history, in both orders."""
    counts = torch.zeros(n, n, dtype=torch.float64)
    for row in rows:
        for s, a in enumerate(row):
            for t, b in enumerate(row):
                if s != t and abs(s - t) <= window and a != b:
                    counts[a, b] += 1
    found = torch.zeros(n, n, dtype=torch.float64)
    for a in range(n):
        for b in range(n):
            if counts[a, b]:
                expected = float(counts[a].sum() * counts[b].sum() / counts.sum())
                found[a, b] = max(0.0, math.log(float(counts[a, b]) / expected))
    return found


def rows_of(interactions):
    ends = interactions.offsets.tolist()
    return [interactions.items[a:b].tolist() for a, b in itertools.pairwise(ends)]


@pytest.mark.parametrize("window", [1, 3])
def test_collaborative_vectors_are_the_truncated_svd_of_the_mutual_information(window):
    spectrum = toy_spectrum()
    M = mutual_information(rows_of(spectrum.interactions), 60, window)
    U, S, _ = torch.linalg.svd(M)
    expected = U[:, :6] * S[:6].sqrt()
    Y = LLMEmb(spectrum, 6, window=window).collaborative.double()
    assert Y[M.any(1)].norm(dim=1).tolist() == pytest.approx([LENGTH] * int(M.any(1).sum()))
    Y = Y * expected.norm(dim=1, keepdim=True) / LENGTH
    torch.testing.assert_close(Y @ Y.T, expected @ expected.T, rtol=1e-3, atol=1e-3)  # signs apart


def test_collaborative_vectors_are_the_same_in_every_run_and_take_no_random_numbers():
    spectrum = toy_spectrum()
    torch.manual_seed(0)
    first = LLMEmb(spectrum, 6)
    after = torch.rand(1)
    torch.manual_seed(0)
    second = LLMEmb(Spectrum(*(getattr(spectrum, f) for f in ("U", "S", "V", "mean", "E"))), 6)
    assert torch.equal(after, torch.rand(1))
    assert not second.collaborative.any()
    torch.manual_seed(9)
    assert torch.equal(LLMEmb(spectrum, 6).collaborative, first.collaborative)


def test_llmemb_pulls_towards_the_collaborative_vectors_by_the_soft_target_loss():
    spectrum = toy_spectrum(missing=(4,))
    adapter = stirred(LLMEmb(spectrum, 6, alpha=0.3, tau=1.7, preprocess="center"))
    M = mutual_information(rows_of(spectrum.interactions), 60, 5)
    ids = sorted({int(n) - 1 for n in SEQUENCES.flatten() if n and n != 5 and M[n - 1].any()})
    assert len(ids) > 4
    X = two_linear(adapter.map, spectrum.features("center").double())[ids]
    U, S, _ = torch.linalg.svd(M)
    Y = of_length(U[:, :6] * S[:6].sqrt(), 3.0)[ids]  # signs apart, on which dot products within Y do not depend
    Y = Y * (Y * adapter.collaborative.double()[ids]).sum(0).sign()
    expected, swapped = (soft_target_loss(*two, 1.7).item() for two in ((Y, adapter.scale * X), (adapter.scale * X, Y)))
    assert adapter.aux(step_of(spectrum, 6)).item() == pytest.approx(0.3 * expected, rel=1e-3)
    assert swapped != pytest.approx(expected, rel=3e-3)  # the reference passes the collaborative vectors first


def test_rows_with_text_start_at_the_aligned_length_however_many_items_have_none():
    torch.manual_seed(0)
    spectrum = toy_spectrum(missing=tuple(range(0, 60, 2)))
    texts = spectrum.E.any(1)
    squares = []
    for _ in range(60):
        adapter = LLMEmb(spectrum, 6)
        squares.append((adapter.scale * adapter().detach()[texts]).square().sum(1).mean())
    assert torch.stack(squares).mean().sqrt().item() == pytest.approx(LENGTH, rel=0.1)


def test_items_without_cooccurrence_or_text_are_left_out_of_the_alignment():
    rows = [[0, 1, 2], [1, 2], [3], [0, 2, 4], [5, 6]]
    spectrum = with_histories(toy_spectrum(missing=(1,)), *rows)
    M = mutual_information(rows, 60, 5)
    has_vector = {i for i in range(60) if M[i].any()}
    adapter = LLMEmb(spectrum, 6)
    assert set(adapter.aligned.nonzero().flatten().tolist()) == has_vector - {1}
    assert 3 not in has_vector
    assert adapter.diagnostics()["aligned_share"] == pytest.approx(len(has_vector - {1}) / 60)
    assert LLMEmb(with_histories(toy_spectrum(), [3], [4]), 6).aux(step_of(spectrum, 6)) is None


def test_the_alignment_brings_the_similarities_of_the_table_towards_the_collaborative_ones():
    spectrum = toy_spectrum(60, 30)
    adapter = LLMEmb(spectrum, 6, alpha=1.0, preprocess="whiten")
    ids = adapter.aligned.nonzero().squeeze(1)
    step = Step(ids[None] + 1, USERS[:1], torch.zeros(0, 6), ids[:0], lambda items: items, LONGEST)

    def agreement():
        x, y = (torch.nn.functional.normalize(t[ids], dim=1) for t in (adapter().detach(), adapter.collaborative))
        return (x * y).sum(1).mean()

    before = agreement()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        adapter.aux(step).backward()
        optimizer.step()
    assert agreement() > before + 0.3


def test_more_columns_than_items_leave_the_rest_of_the_collaborative_vectors_empty():
    spectrum = with_histories(toy_spectrum(10, 30), [0, 1, 2, 5], [1, 2, 7])
    adapter = LLMEmb(spectrum, 14)
    assert adapter.collaborative.shape == (10, 14)
    assert not adapter.collaborative[:, 10:].any()


def test_a_window_without_neighbours_is_refused():
    with pytest.raises(ValueError, match="window is 0"):
        LLMEmb(toy_spectrum(), 6, window=0)


# LLM-ESR: the two views


def test_the_views_of_llmesr_are_a_table_from_the_principal_components_and_two_linear_layers():
    spectrum = toy_spectrum()
    adapter = LLMESR(spectrum, 6, preprocess="center")
    X = (spectrum.E - spectrum.mean).double()
    scores = torch.linalg.svd(X, full_matrices=False)
    expected = scores[0][:, :6] * scores[1][:6]
    expected = expected * 0.05 / expected.std()
    table = adapter().detach().double()
    torch.testing.assert_close(table[:, :6] @ table[:, :6].T, expected @ expected.T, rtol=1e-4, atol=1e-5)
    text = two_linear(adapter.map, spectrum.features("center")).detach().double() * adapter.scale
    torch.testing.assert_close(table[:, 6:], text, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_both_views_start_at_about_the_same_scale_whatever_the_preprocessing(preprocess):
    torch.manual_seed(0)
    table = LLMESR(toy_spectrum(300, 40), 16, preprocess=preprocess)()
    assert table[:, :16].std().item() == pytest.approx(0.05, rel=1e-4)
    assert 0.03 < table[:, 16:].std().item() < 0.08


def cross_attention(module, asking, answering, allowed):
    """One position and one head at a time."""
    B, L, d = asking.shape
    q, k = asking * d**0.5 @ module.q.weight.T, answering * d**0.5 @ module.k.weight.T
    v = answering @ module.v.weight.T
    out = torch.zeros_like(asking)
    for b in range(B):
        for t in range(L):
            read = [s for s in range(L) if allowed(b, t, s)]
            for half in (slice(0, d // 2), slice(d // 2, d)):
                weights = torch.stack([q[b, t, half] @ k[b, s, half] / math.sqrt(d // 2) for s in read]).softmax(0)
                out[b, t, half] = sum(w * v[b, s, half] for w, s in zip(weights, read, strict=True))
    return out @ module.out.weight.T + module.out.bias


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_each_view_is_read_by_the_other(causal, residual):
    adapter = stirred(LLMESR(toy_spectrum(), 4, residual=residual))
    x = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    real = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = adapter.mix(x, real, causal)

    def allowed(b, t, s):
        return bool(real[b, s]) and (s <= t or not causal)

    table, text = x[..., :4], x[..., 4:]
    expected = torch.cat(
        [
            cross_attention(adapter.mixer.read_table, text, table, allowed),
            cross_attention(adapter.mixer.read_text, table, text, allowed),
        ],
        2,
    )
    torch.testing.assert_close(found[real], (expected + residual * x)[real])


@pytest.mark.parametrize("causal", [True, False])
def test_a_row_of_nothing_but_padding_stays_finite(causal):
    adapter = LLMESR(toy_spectrum(), 4)
    x = torch.zeros(2, 5, 8, requires_grad=True)
    found = adapter.mix(x, torch.tensor([[True] * 5, [False] * 5]), causal)
    found.sum().backward()
    assert torch.isfinite(found).all()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"d": 14}, "d=14 columns .* the text has 12"),
        ({"d": 5}, "d=5 among 2 heads"),
        ({"d": 4, "sim_users": 0}, "sim_users is 0"),
        ({"d": 4, "preprocess": "zca"}, "preprocess is 'zca'"),
    ],
)
def test_llmesr_refuses_what_it_cannot_build(own, message):
    with pytest.raises(ValueError, match=message):
        LLMESR(toy_spectrum(), own.pop("d"), **own)


# LLM-ESR: similar users and what is learned from them


def nearest_users(spectrum, count):
    """For each user the others by falling cosine of the mean centred text of their items; None without events."""
    X = spectrum.features("center").double()
    means = [X[row].mean(0) if row else None for row in rows_of(spectrum.interactions)]
    means = [None if m is None or not m.abs().max() else m for m in means]
    found = []
    for u, mean in enumerate(means):
        others = [v for v, other in enumerate(means) if v != u and other is not None]
        found.append(mean is not None and sorted(others, key=lambda v: -cosine(mean, means[v]))[:count])
    return found


def test_similar_users_are_the_nearest_by_the_mean_text_of_their_items():
    spectrum = toy_spectrum(missing=(0, 1))
    similar = LLMESR(spectrum, 4, sim_users=7).similar
    expected = nearest_users(spectrum, 7)
    assert not expected[3]  # has no events
    assert similar[3].tolist() == [-1] * 7
    for u, users in enumerate(expected):
        if u != 3:
            assert similar[u].tolist() == users
    assert not (similar == 3).any()


def test_similar_users_found_in_many_blocks_are_those_found_at_once(monkeypatch):
    import adapters.llmesr as module

    at_once = LLMESR(toy_spectrum(), 4).similar
    monkeypatch.setattr(module, "BLOCK", 70)
    assert torch.equal(LLMESR(toy_spectrum(), 4).similar, at_once)


def test_fewer_users_than_asked_for_are_all_similar_and_a_lonely_one_has_nobody():
    three = with_histories(toy_spectrum(), [1, 2], [3, 4], [5])
    assert LLMESR(three, 4).similar.shape == (3, 2)
    alone = LLMESR(with_histories(toy_spectrum(), [1, 2], [], [], [], [], []), 4)
    assert (alone.similar == -1).all()
    assert alone.aux(step_of(three, 4, views=2)).item() == 0
    assert LLMESR(with_histories(toy_spectrum(missing=(1, 2)), [1, 2], [3, 4], [5]), 4).similar[0].tolist() == [-1]


def test_histories_are_the_last_events_before_the_last_training_event_padded_on_the_right():
    adapter = LLMESR(with_histories(toy_spectrum(), [4, 8, 15, 16], [23], [42, 7]), 4)
    found = adapter.histories(torch.tensor([2, 0, 1]), 3)
    assert found.tolist() == [[43, 0, 0], [5, 9, 16], [24, 0, 0]]
    assert adapter.histories(torch.tensor([0]), 2).tolist() == [[9, 16]]


def distilled_by_hand(adapter, step, spectrum, weights_of):
    """Mean over users of the squared distance of their state to the mean state of all their similar users, each before
    the user's last training event (`_get_user_seq` of the reference)."""
    rows = rows_of(spectrum.interactions)
    total, entries = 0.0, 0
    for b, user in enumerate(step.users.tolist()):
        similar = nearest_users(spectrum, adapter.similar.shape[1])[user]
        if not similar:
            continue
        state = weights_of([int(n) for n in step.sequences[b] if n][:-1])
        target = sum(weights_of([i + 1 for i in rows[v][:-1]][-LONGEST:]) for v in similar) / len(similar)
        total, entries = total + (state - target.detach()).square().sum(), entries + state.numel()
    return total / entries


def test_distillation_is_the_distance_to_the_mean_state_of_the_similar_users():
    spectrum = toy_spectrum()
    adapter = LLMESR(spectrum, 4, alpha=0.4).eval().double()
    step = step_of(spectrum, 4, views=2)

    def state(numbers):
        return step.encode(torch.tensor([numbers]))[0]

    found = adapter.aux(step)
    asked = list(step.encode.asked)
    widths = [items.shape[1] for items in asked[:-1]]
    assert widths == sorted(widths) != [LONGEST] * len(widths)  # by length
    assert widths[-1] == LONGEST  # and wider than the rows of the step
    assert sum(len(items) for items in asked[:-1]) == len(adapter.similar[USERS].unique())
    assert asked[-1].shape == (4, 4)
    expected = distilled_by_hand(adapter, step, spectrum, state)
    assert found.item() == pytest.approx(0.4 * expected.item(), rel=1e-9)
    weights = step.encode.weights
    for a, b in zip(*(torch.autograd.grad(x, weights) for x in (found, 0.4 * expected)), strict=True):
        torch.testing.assert_close(a, b)


def test_one_similar_user_a_step_gives_the_gradient_of_their_mean_in_expectation():
    spectrum = toy_spectrum()
    adapter = LLMESR(spectrum, 4, alpha=1.0, sim_users=3).double()
    step = step_of(spectrum, 4, views=2)
    weights = step.encode.weights
    (expected,) = torch.autograd.grad(adapter.eval().aux(step), weights)
    adapter.train()
    torch.manual_seed(0)
    drawn = torch.stack([torch.autograd.grad(adapter.aux(step), weights)[0] for _ in range(3000)])
    assert max(len(items) for items in step.encode.asked[-5:]) <= 4
    assert len({row.sum().item() for row in drawn}) > 3
    spread = drawn.std(0) / 3000**0.5
    assert ((drawn.mean(0) - expected).abs() <= 5 * spread + 1e-12).all()


def test_users_without_events_teach_nobody_and_are_taught_nothing():
    spectrum = toy_spectrum()
    adapter = LLMESR(spectrum, 4)
    step = step_of(spectrum, 4, views=2)
    step = dataclasses.replace(step, users=torch.tensor([0, 3, 3, 5]))
    adapter.aux(step)
    *similar, own = step.encode.asked
    assert 1 <= sum(map(len, similar)) <= 2
    assert own.tolist() == [[5, 9, 3, 60], [1, 30, 5, 0]]


def test_what_a_user_is_taught_does_not_depend_on_the_length_of_the_rows_beside_them():
    """A batch holds rows of similar length, but similar users' histories are read whole."""
    spectrum = with_histories(toy_spectrum(), range(20, 32), [1, 2, 3], range(22, 30), range(24, 40))
    adapter = LLMESR(spectrum, 4, sim_users=1).eval().double()
    step = dataclasses.replace(step_of(spectrum, 4, views=2), sequences=SEQUENCES[1:2, :3], users=torch.tensor([0]))
    adapter.distillation(step)
    similar, _ = step.encode.asked
    history = rows_of(spectrum.interactions)[adapter.similar[0].item()]
    assert similar.tolist() == [[i + 1 for i in history[:-1]][-LONGEST:]]


def test_the_loss_between_the_views_is_the_soft_target_loss_of_the_items_with_text():
    spectrum = toy_spectrum(missing=(4,))
    adapter = stirred(LLMESR(spectrum, 4, alpha=0.1, beta=0.6, preprocess="center")).eval()
    step = step_of(spectrum, 4, views=2)
    ids = sorted({int(n) - 1 for n in SEQUENCES.flatten() if n and n != 5})
    text = two_linear(adapter.map, spectrum.features("center").double())
    loud = 3.0 / (0.05 * 4**0.5)
    views = loud * adapter.scale * text[ids], loud * adapter.table[ids]
    expected, swapped = soft_target_loss(*views, 1.0).item(), soft_target_loss(*views[::-1], 1.0).item()
    assert swapped != pytest.approx(expected, rel=1e-6)  # the reference passes the text's view first
    without = stirred(LLMESR(spectrum, 4, alpha=0.1, preprocess="center")).eval().aux(step)
    assert (adapter.aux(step) - without).item() == pytest.approx(0.6 * expected, rel=1e-9)


# In the model


@pytest.mark.parametrize("method", [RLMRecCon, RLMRecGen, LLMEmb, LLMESR])
def test_rows_as_long_as_the_backbone_allows_can_be_trained(method):
    spectrum = toy_spectrum()
    model = model_of(method, spectrum)
    loss = model.loss(Batch(SEQUENCES, USERS), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None for p in model.table.adapter.parameters())


@pytest.mark.parametrize("backbone", [SASRec, GRU4Rec, BERT4Rec, FMLP])
def test_a_state_of_the_main_loss_teaches_what_a_second_encoding_of_its_row_would(backbone):
    """Without dropout, both give one loss and one gradient; only causal encoders have such a state."""
    spectrum = toy_spectrum()
    model = model_of(LLMESR, spectrum, backbone=backbone).eval()
    steps = []
    model.table.adapter.aux = lambda step: steps.append(step)
    model.loss(Batch(SEQUENCES, USERS), torch.Generator().manual_seed(0))
    assert (steps[0].ends is not None) == model.backbone.causal == (backbone in (SASRec, GRU4Rec))
    del model.table.adapter.aux
    again = model.table.adapter.aux(dataclasses.replace(steps[0], ends=None))
    torch.testing.assert_close(model.table.adapter.aux(steps[0]), again)
    weights = [p for p in model.parameters() if p.requires_grad]
    found, expected = (
        torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        for loss in (model.table.adapter.aux(steps[0]), again)
    )
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_training_states_of_llmesr_do_not_see_their_targets():
    model = model_of(LLMESR, toy_spectrum()).eval()
    inputs = SEQUENCES[:1, :-1]
    changed = inputs.clone()
    changed[:, 2:] = torch.tensor([17, 50])
    table = model.table()
    states, other = model.states(inputs, table), model.states(changed, table)
    torch.testing.assert_close(states[:, :2], other[:, :2])
    assert not torch.allclose(states[:, 2:], other[:, 2:])


def test_a_catalogue_of_identical_texts_apart_from_one_item_is_no_trap():
    E = torch.ones(20, 6)
    E[0] = torch.arange(6) + 1.0
    E[1] = -torch.arange(6).float() - 2
    spectrum = spectrum_of(E)
    for make in (RLMRecCon, RLMRecGen, LLMEmb):
        assert torch.isfinite(make(spectrum, 2, preprocess="center")()).all()
    assert torch.isfinite(LLMESR(spectrum, 2)()).all()

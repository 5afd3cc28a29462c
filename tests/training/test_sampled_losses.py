"""Losses over drawn negatives against the textbook sum over each position's own candidates, in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import registry
from harness.search import spaces
from harness.training import trial
from harness.training.losses import _pairs
from harness.training.losses._pairs import pair_scores
from harness.training.model import Batch
from harness.types import Cell, Inputs, Protocol, Trial

SAMPLED = ["bce", "gbce", "infonce", "sampled_softmax"]
each_loss = pytest.mark.parametrize("name", SAMPLED)


def make(name, n_items, **own):
    return registry.load(registry.LOSSES, name)(n_items, **own)


def problem(P, N, d, *, dtype=torch.float64, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    h = (torch.randn(P, d, generator=g, dtype=torch.float64) * scale).to(dtype).requires_grad_()
    table = torch.randn(N, d, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    return h, table, torch.randint(N, (P,), generator=g)


def rivals(negatives, p, target):
    """The negatives of position p that are not its target, as a list with repeats."""
    own = negatives if negatives.ndim == 1 else negatives[p]
    return [j for j in own.tolist() if j != target[p]]


def contrastive(h, table, target, negatives, score):
    losses = []
    for p, t in enumerate(target.tolist()):
        scores = torch.stack([score(h[p], table[j]) for j in [t, *rivals(negatives, p, target)]])
        losses.append(-(scores - scores.max()).softmax(0)[0].log())
    return torch.stack(losses).mean()


def cosine(x, y):
    return (x @ y) / (x @ x).sqrt() / (y @ y).sqrt()


def binary(h, table, target, negatives, beta):
    losses = []
    for p, t in enumerate(target.tolist()):
        terms = [(torch.sigmoid(h[p] @ table[t]) ** beta).log()]
        terms += [-torch.log1p((h[p] @ table[j]).exp()) for j in rivals(negatives, p, target)]  # log(1 - sigma)
        losses.append(-torch.stack(terms).sum() / (negatives.shape[-1] + 1))
    return torch.stack(losses).mean()


def papers_beta(m, N, t):
    alpha = m / (N - 1)
    return alpha * ((1 - 1 / alpha) * t + 1 / alpha)


ORACLES = {
    "sampled_softmax": lambda own, N, *given: contrastive(*given, lambda x, y: x @ y),
    "infonce": lambda own, N, *given: contrastive(*given, lambda x, y: cosine(x, y) / own["tau"]),
    "bce": lambda own, N, *given: binary(*given, 1.0),
    "gbce": lambda own, N, *given: binary(*given, papers_beta(own["m"], N, own["t"])),
}
OWN = {"infonce": {"tau": 0.3}, "gbce": {"t": 0.75}}


def check(name, h, table, target, own, negatives=None, **tolerance):
    loss = make(name, len(table), **own)
    if negatives is None:
        negatives = loss.draw(len(h), torch.Generator().manual_seed(5))
    value = loss(h, table, target, negatives)
    found = (value.detach(), *torch.autograd.grad(value, (h, table)))
    wide = [t.detach().double().requires_grad_() for t in (h, table)]
    expected = ORACLES[name](own, len(table), *wide, target, negatives)
    for a, b in zip(found, (expected.detach(), *torch.autograd.grad(expected, wide)), strict=True):
        torch.testing.assert_close(a.double(), b, **tolerance)


@each_loss
def test_a_sampled_loss_and_its_gradients_are_the_textbook_sum(name):
    own = {"m": 6} | OWN.get(name, {})
    check(name, *problem(9, 20, 4), own, rtol=1e-10, atol=1e-12)


@each_loss
@settings(max_examples=25, deadline=None)
@given(
    P=st.integers(1, 12),
    N=st.integers(2, 15),
    d=st.integers(1, 5),
    m=st.integers(1, 20),
    scale=st.sampled_from([0.1, 1.0, 5.0]),
    seed=st.integers(0, 10_000),
)
def test_any_shape_with_any_number_of_collisions(name, P, N, d, m, scale, seed):
    own = {"m": min(m, N - 1) if name == "gbce" else m} | OWN.get(name, {})
    check(name, *problem(P, N, d, scale=scale, seed=seed), own, rtol=1e-6, atol=1e-8)


@each_loss
def test_float32_is_the_textbook_sum_to_its_precision(name):
    own = {"m": 40} | OWN.get(name, {})
    check(name, *problem(60, 200, 16, dtype=torch.float32, scale=0.3), own, rtol=2e-4, atol=1e-6)


@each_loss
def test_negatives_that_are_the_target_count_for_nothing(name):
    h, table, target = problem(4, 7, 3)
    loss = make(name, 7, m=3, **OWN.get(name, {}))
    target[:] = 2
    hits = torch.full((3,) if name in ("infonce", "sampled_softmax") else (4, 3), 2)
    value = loss(h, table, target, hits)
    value.backward()
    if name in ("infonce", "sampled_softmax"):
        assert value == 0, "the target alone in its choice costs nothing"
    else:
        expected = -getattr(loss, "beta") * torch.nn.functional.logsigmoid(h @ table[2]).mean() / 4  # noqa: B009
        torch.testing.assert_close(value, expected)
    others = torch.arange(7) != 2
    assert torch.count_nonzero(table.grad[others]) == 0
    assert torch.isfinite(h.grad).all()


def test_gbce_without_tempering_is_bce_of_as_many_negatives():
    h, table, target = problem(9, 20, 4)
    plain, tempered = make("bce", 20, m=5), make("gbce", 20, m=5, t=0.0)
    negatives = plain.draw(9, torch.Generator().manual_seed(0))
    assert torch.equal(plain(h, table, target, negatives), tempered(h, table, target, negatives))


def test_gbce_at_t_1_tempers_by_the_sampling_rate_and_more_negatives_than_items_by_nothing():
    assert make("gbce", 101, m=25, t=1.0).beta == pytest.approx(0.25)
    assert make("gbce", 101, m=25, t=0.5).beta == pytest.approx(0.625)
    assert make("gbce", 11, m=256, t=0.75).beta == 1


def test_infonce_does_not_see_the_lengths_of_its_vectors_and_ranks_by_the_cosine():
    h, table, target = (t.detach() for t in problem(5, 12, 4))
    loss = make("infonce", 12, m=4)
    negatives = loss.draw(5, torch.Generator().manual_seed(0))
    stretched = h * torch.arange(1, 6)[:, None], table * torch.arange(1, 13)[:, None]
    torch.testing.assert_close(loss(*stretched, target, negatives), loss(h, table, target, negatives))
    scores = loss.project(stretched[0]) @ loss.project(stretched[1]).T
    expected = torch.stack([torch.stack([cosine(x, y) for y in table]) for x in h])
    torch.testing.assert_close(scores, expected)


def test_infonce_leaves_a_row_of_zeros_a_finite_gradient():
    h, table, target = problem(3, 6, 4, dtype=torch.float32)
    table.data[target[0]] = 0
    loss = make("infonce", 6, m=2)
    loss(h, table, target, loss.draw(3, torch.Generator().manual_seed(0))).backward()
    assert table.grad.abs().max() < 1e7
    assert torch.isfinite(h.grad).all()


@each_loss
def test_extreme_scores_stay_finite(name):
    h = torch.tensor([[1e4], [-1e4], [3e4]], requires_grad=True)
    table = torch.tensor([[1.0], [-1.0], [0.5]], requires_grad=True)
    loss = make(name, 3, m=4)
    value = loss(h, table, torch.tensor([1, 1, 0]), loss.draw(3, torch.Generator().manual_seed(0)))
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(h.grad).all()
    assert torch.isfinite(table.grad).all()


@each_loss
def test_the_draw_is_the_generators_uniform_and_reaches_every_item(name):
    loss = make(name, 10, m=50)
    first, again, other = (loss.draw(80, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == ((50,) if name in ("infonce", "sampled_softmax") else (80, 50))
    assert first.dtype == torch.int64
    generator = torch.Generator().manual_seed(3)
    counts = torch.bincount(torch.cat([loss.draw(80, generator).flatten() for _ in range(200)]), minlength=10)
    expected = counts.sum() / 10
    assert len(counts) == 10
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)


@each_loss
@pytest.mark.parametrize(
    ("n_items", "own", "message"),
    [(1, {}, "second item"), (9, {"m": 0}, "at least 1 negative")],
)
def test_a_loss_that_cannot_draw_says_so(name, n_items, own, message):
    with pytest.raises(ValueError, match=message):
        make(name, n_items, **own)


@pytest.mark.parametrize(
    ("name", "own", "message"),
    [
        ("infonce", {"tau": 0.0}, "tau is 0.0"),
        ("gbce", {"t": 1.5}, "between 0 and 1"),
        ("gbce", {"t": -0.1}, "between 0 and 1"),
    ],
)
def test_a_hyper_parameter_outside_its_range_is_told(name, own, message):
    with pytest.raises(ValueError, match=message):
        make(name, 9, **own)


@each_loss
@pytest.mark.parametrize(
    ("h", "table", "target", "negatives", "message"),
    [
        ((3, 4), (5, 6), (3,), None, r"\(3, 4\), \(5, 6\), \(3,\)"),
        ((3, 4), (5, 4), (2,), None, r"target \(P,\)"),
        ((0, 4), (5, 4), (0,), None, "0 positions"),
        ((3, 4), (5, 4), (3,), None, "negatives have shape None"),
        ((3, 4), (5, 4), (3,), (3, 7), r"negatives have shape \(3, 7\)"),
    ],
)
def test_shapes_that_disagree_are_told(name, h, table, target, negatives, message):
    index = None if negatives is None else torch.zeros(negatives, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        make(name, 5, m=2)(torch.zeros(h), torch.zeros(table), torch.zeros(target, dtype=torch.int64), index)


# Popularity negatives and the logQ correction

POPULAR = ["bce", "infonce", "sampled_softmax"]
COUNTS = torch.tensor([40, 0, 1, 9, 25, 4])
Q = {0.5: torch.tensor([2 * math.sqrt(10), 1, 1, 3, 5, 2]), 1.0: torch.tensor([40.0, 1, 1, 9, 25, 4])}


def drawn(name, alpha, draws, seed=1):
    loss = make(name, 6, m=50, alpha=alpha)
    loss.observe(COUNTS)
    generator = torch.Generator().manual_seed(seed)
    return torch.bincount(torch.cat([loss.draw(8, generator).flatten() for _ in range(draws)]), minlength=6)


@pytest.mark.parametrize("name", POPULAR)
@pytest.mark.parametrize("alpha", Q)
def test_negatives_are_drawn_by_a_power_of_their_training_events(name, alpha):
    counts = drawn(name, alpha, 400 if name != "bce" else 50)
    expected = counts.sum() * Q[alpha] / Q[alpha].sum()
    assert ((counts - expected).abs() < 5 * expected.sqrt()).all()


@pytest.mark.parametrize("name", POPULAR)
def test_alpha_0_is_the_uniform_draw_of_before(name):
    plain, zero = make(name, 6, m=50), make(name, 6, m=50, alpha=0.0)
    one, other = (loss.draw(8, torch.Generator().manual_seed(4)) for loss in (plain, zero))
    assert torch.equal(one, other)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("name", "tau"), [("sampled_softmax", None), ("infonce", 0.5)])
def test_the_corrected_sum_estimates_the_partition_function_of_the_full_softmax(name, tau, alpha):
    """One negative at a time, weighted by its probability: the expectation of the sum over candidates, exactly."""
    h, table, target = problem(7, 6, 3)
    loss = make(name, 6, m=1, alpha=alpha, logq=True, **({"tau": tau} if tau else {}))
    loss.observe(COUNTS)
    scores = (loss.project(h) / (tau or 1)) @ loss.project(table).T
    positive = scores[torch.arange(7), target]
    q = Q[alpha] / Q[alpha].sum() if alpha else torch.full((6,), 1 / 6)
    expectation = torch.zeros(7, dtype=torch.float64)
    for item in range(6):
        for p in range(7):  # exp(loss + s_target) is the sum over the candidates of position p
            negative = torch.tensor([item])
            value = loss(h[p : p + 1], table, target[p : p + 1], negative, loss.log_expected(negative))
            expectation[p] += q[item].double() * (value + positive[p]).exp().detach()
    torch.testing.assert_close(expectation, scores.exp().sum(1).detach(), rtol=1e-6, atol=0)


def test_the_correction_of_many_negatives_is_the_textbook_sum():
    h, table, target = problem(5, 6, 3)
    loss = make("sampled_softmax", 6, m=4, alpha=1.0, logq=True)
    loss.observe(COUNTS)
    negatives = torch.tensor([0, 0, 3, 5])
    q = Q[1.0].double() / Q[1.0].sum()
    expected = 0.0
    for p, t in enumerate(target.tolist()):
        others = [h[p] @ table[j] - math.log(4 * q[j]) for j in rivals(negatives, p, target)]
        expected += (torch.stack([h[p] @ table[t], *others]).logsumexp(0) - h[p] @ table[t]) / 5
    torch.testing.assert_close(loss(h, table, target, negatives, loss.log_expected(negatives)), expected)


def test_a_loss_without_correction_has_none():
    loss = make("sampled_softmax", 6, m=4, alpha=1.0)
    loss.observe(COUNTS)
    assert loss.log_expected(torch.tensor([1])) is None
    assert make("softmax", 6).log_expected(torch.tensor([1])) is None


def test_popularity_without_counts_or_with_those_of_another_catalogue_is_refused():
    loss = make("bce", 6, m=4, alpha=1.0)
    with pytest.raises(ValueError, match="need the counts"):
        loss.draw(3, torch.Generator())
    with pytest.raises(ValueError, match="the catalogue has 6 items"):
        loss.observe(torch.ones(5, dtype=torch.int64))


# Scores of pairs


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of two positions, so that small problems have many blocks and a last one that is not full."""
    monkeypatch.setattr(_pairs, "BLOCK_ELEMENTS", {"cpu": 2 * 5 * 3})


def test_pair_scores_and_their_gradients_over_many_blocks(small_blocks):
    h, table, _ = problem(7, 6, 3)
    index = torch.randint(6, (7, 5), generator=torch.Generator().manual_seed(1))
    expected = torch.stack([torch.stack([h[p] @ table[j] for j in row]) for p, row in enumerate(index.tolist())])
    torch.testing.assert_close(pair_scores(h, table, index), expected)
    assert torch.autograd.gradcheck(lambda h, table: pair_scores(h, table, index), (h, table))


def test_the_array_of_gathered_rows_is_never_whole():
    h, table, _ = problem(512, 900, 32, dtype=torch.float32)
    index = torch.randint(900, (512, 300), generator=torch.Generator().manual_seed(1))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        pair_scores(h, table, index).square().sum().backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < 512 * 300 * 32 * 4 / 4


# In training


SMALL = {"train.d": 16, "train.max_len": 6, "train.batch_size": 96, "train.lr": 0.01}


def spectrum_of(split):
    E = np.random.default_rng(0).normal(size=(split.n_items, 24)).astype(np.float32)
    U, S, Vt = np.linalg.svd(E - E.mean(0), full_matrices=False)
    arrays = {"U": U, "S": S, "V": np.ascontiguousarray(Vt.T), "mean": E.mean(0), "E": E}
    return trial.spectrum(arrays, 0)


def a_trial(loss, adapter="id", epochs=15, **params):
    cell = Cell("toy", "noise", "sasrec", adapter)
    default = spaces.of_cell(cell, spaces.SpaceSource(fixed={"train.loss": loss})).default
    return Trial(cell, "confirm", 1, epochs, epochs, default | SMALL | params, Protocol(), Inputs(data="x"))


@pytest.mark.parametrize(
    ("name", "epochs", "own"),
    [
        ("softmax", 12, {}),
        ("softmax", 12, {"train.precision": "bfloat16"}),
        ("sampled_softmax", 12, {"train.precision": "bfloat16"}),
        ("sampled_softmax", 12, {}),
        ("infonce", 12, {}),
        ("bce", 12, {}),
        ("gbce", 40, {"loss.m": 4}),
    ],
)
def test_training_by_any_loss_beats_popularity(split, name, epochs, own):
    result, _ = trial.run(a_trial(name, epochs=epochs, **own), split, spectrum_of(split))
    baseline = Trial(Cell("toy", "none", "none", "popularity"), "confirm", 0, 0, 0, {}, Protocol(), Inputs())
    popular, _ = trial.run(baseline, split, spectrum_of(split))
    assert result.test["NDCG@10"] > 2 * popular.test["NDCG@10"]


def loss_and_gradients(split, monkeypatch, whole_above, *, name, fusion):
    monkeypatch.setattr("harness.training.model.WHOLE_ABOVE", whole_above)
    torch.manual_seed(0)
    work = a_trial(name, "mlp", **{"text.fusion": fusion, "loss.m": 2})
    model = trial.build(work, split, spectrum_of(split)).double().eval()
    made = []
    model.table.register_forward_hook(lambda *_: made.append("whole"))
    items = torch.randint(1, split.n_items + 1, (2, 5), generator=torch.Generator().manual_seed(0))
    items[1, 3:] = 0
    loss = model.loss(Batch(items, torch.zeros(len(items), dtype=torch.int64)), torch.Generator().manual_seed(3))
    loss.backward()
    return loss.detach(), [p.grad for p in model.parameters()], made


@each_loss
@pytest.mark.parametrize("fusion", ["none", "gate"])
def test_rows_gathered_before_the_adapter_give_the_loss_of_the_whole_table(split, monkeypatch, name, fusion):
    whole = loss_and_gradients(split, monkeypatch, 0.0, name=name, fusion=fusion)
    rows = loss_and_gradients(split, monkeypatch, 1.0, name=name, fusion=fusion)
    assert (whole[2], rows[2]) == (["whole"], [])
    torch.testing.assert_close(rows[0], whole[0], rtol=1e-12, atol=1e-13)
    for a, b in zip(rows[1], whole[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_few_items_of_many_are_gathered_and_most_of_them_are_not(split):
    model = trial.build(a_trial("bce", **{"loss.m": 1}), split, spectrum_of(split))
    few, many = torch.tensor([[1, 2, 3]]), torch.arange(1, split.n_items + 1)[None]
    assert len(model._rows(few)[0]) == 4
    assert len(model._rows(many)[0]) == split.n_items + 1


@pytest.mark.parametrize(("name", "moved"), [("infonce", False), ("softmax", True)])
def test_the_length_of_an_items_vector_moves_its_rank_exactly_where_the_loss_reads_it(split, name, moved):
    training = trial.Training(a_trial(name), split, spectrum_of(split))
    training.model.last_states = lambda items, table, times=None: torch.ones(len(items), 16)
    before = training.ranks(split.valid)
    training.model.table.adapter.table.data[::2] *= 4.0
    assert bool(training.ranks(split.valid).equal(before).all()) is not moved


def test_only_training_events_are_counted(split):
    params = {"loss.m": 4, "loss.alpha": 1.0}
    criterion = trial.build(a_trial("sampled_softmax", **params), split, spectrum_of(split)).criterion
    counts = np.zeros(split.n_items)
    for user, end in enumerate(split.train_ends):
        for item in split.items[split.offsets[user] : split.offsets[user] + end]:
            counts[item - 1] += 1
    assert counts.sum() < len(split.items), "validation and test events are there, not counted"
    weights = np.maximum(counts, 1)
    assert criterion.log_q.exp().numpy() == pytest.approx(weights / weights.sum())


@pytest.mark.parametrize("name", ["sampled_softmax", "infonce"])
def test_the_correction_goes_with_its_item_when_rows_are_gathered(split, monkeypatch, name):
    params = {"loss.m": 4, "loss.alpha": 1.0, "loss.logq": True}
    losses = []
    for share in (0.0, 2.0):  # always the whole table, always the gathered rows
        monkeypatch.setattr("harness.training.model.WHOLE_ABOVE", share)
        training = trial.Training(a_trial(name, **params | {"backbone.dropout": 0.0}), split, spectrum_of(split))
        batch = training.batch(training.windows.starts[:3], training.windows.lengths[:3])
        losses.append(training.model.loss(batch, torch.Generator().manual_seed(2)).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)

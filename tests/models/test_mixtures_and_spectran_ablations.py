"""The mixtures of experts against one expert at a time in float64, and the ablations against the SpecTran they cut."""

import math

import pytest
import torch
from synthetic_spectra import toy_spectrum
from torch.nn import functional as F

from adapters._base import ItemTable
from adapters.pca_moe import PCAMoE
from adapters.spectran import SpecTran
from adapters.spectran_dense import SpecTranDense
from adapters.spectran_softmax import SpecTranSoftmax
from adapters.spectran_text import SpecTranText
from adapters.spectran_us import SpecTranUS
from adapters.spectran_wo_attn import SpecTranWithoutAttention
from adapters.spectran_wo_pos import SpecTranWithoutPosition
from adapters.svd import SVD
from adapters.svd_whiten import SVDWhiten
from adapters.unisrec_moe import UniSRecMoE
from harness import registry
from harness.search import spaces
from harness.types import Cell, HarnessError


def stirred(adapter, seed=1, size=0.3):
    """The adapter with every parameter moved off its initial value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(size * torch.randn(p.shape, generator=g))
    return adapter


def assert_close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found.detach().double(), expected.detach().double(), rtol=tolerance, atol=tolerance)


def mixture(adapter, x, *, eps=None, kept=None):
    """The published sum, one item and one expert at a time. eps: (N, experts) draws of N(0, 1); kept: (N, width)
    factors of the dropout."""
    d, table = adapter.d, []
    for i, row in enumerate(x):
        logits = [row @ adapter.gate[:, k] for k in range(adapter.experts)]
        if eps is not None:
            columns = adapter.gate[:, adapter.experts :].T
            noise = [torch.log(1 + torch.exp(row @ column)) + 0.01 for column in columns]
            logits = [logit + eps[i, k] * noise[k] for k, logit in enumerate(logits)]
        total = sum(torch.exp(logit) for logit in logits)
        dropped = row if kept is None else row * kept[i]
        item = torch.zeros(d, dtype=torch.float64)
        for k in range(adapter.experts):
            W = adapter.W[:, k * d : (k + 1) * d]
            item = item + torch.exp(logits[k]) / total * ((dropped - adapter.b[k]) @ W)
        table.append(item)
    return torch.stack(table)


def a_mixture(spectrum=None, **own):
    torch.manual_seed(0)
    return stirred(UniSRecMoE(spectrum or toy_spectrum(missing=(5,)), 6, **own)).double()


# UniSRec's mixture


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
@pytest.mark.parametrize("experts", [1, 3])
def test_a_mixture_is_the_gated_sum_of_its_whitening_experts(preprocess, experts):
    adapter = a_mixture(experts=experts, preprocess=preprocess).eval()
    assert_close(adapter(), mixture(adapter, adapter.spectrum.features(preprocess).double()))


def test_in_training_the_gate_is_noisy_by_as_much_as_the_text_says():
    adapter = a_mixture(experts=3, dropout=0.0)
    torch.manual_seed(7)
    found = adapter()
    torch.manual_seed(7)
    eps = torch.randn(60, 3, dtype=torch.float64)
    assert_close(found, mixture(adapter, adapter.features, eps=eps))
    assert not torch.equal(found, adapter.eval()())


def test_in_training_all_experts_read_one_dropped_text_and_the_gate_the_whole():
    adapter = a_mixture(experts=3, noisy=False, dropout=0.4)
    torch.manual_seed(7)
    found = adapter()
    torch.manual_seed(7)
    kept = F.dropout(torch.ones_like(adapter.features), 0.4)
    assert 0.3 < (kept == 0).double().mean() < 0.5
    assert_close(found, mixture(adapter, adapter.features, kept=kept))


def test_a_mixture_starts_with_a_uniform_gate_and_experts_of_small_weights_without_shift():
    torch.manual_seed(0)
    adapter = UniSRecMoE(toy_spectrum(100, 80), 32, experts=4)
    assert_close(adapter.gates(adapter.features).mean(0), torch.full((4,), 0.25), 0.05)  # noisy, no expert preferred
    assert_close(adapter.eval().gates(adapter.features), torch.full((100, 4), 0.25))
    assert adapter.W.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.count_nonzero(adapter.b) == 0


def test_ranking_is_without_noise_and_without_dropout():
    adapter = a_mixture()
    assert not torch.equal(adapter(), adapter())
    adapter.eval()
    assert torch.equal(adapter(), adapter())


def test_a_gate_without_noise_has_no_parameter_for_it():
    assert [a_mixture(noisy=noisy).gate.shape[1] for noisy in (True, False)] == [16, 8]


def test_an_item_without_text_gets_the_shifts_at_equal_weights():
    adapter = a_mixture(experts=2).eval()
    W = adapter.W.unflatten(1, (2, 6))
    assert_close(adapter()[5], -(adapter.b[0] @ W[:, 0] + adapter.b[1] @ W[:, 1]) / 2)


def test_diagnostics_count_the_experts_an_item_and_the_experts_in_use():
    adapter = a_mixture(experts=4)
    torch.nn.init.zeros_(adapter.gate[:, :4])
    assert adapter.diagnostics() == pytest.approx({"experts_an_item": 4, "experts_used": 4})
    adapter.features[:] = 0
    adapter.features[:30, 0], adapter.features[30:, 1] = 1, 1
    adapter.gate.data[0, 0] = adapter.gate.data[1, 1] = 1000  # half the items for each of two experts
    assert adapter.diagnostics() == pytest.approx({"experts_an_item": 1, "experts_used": 2})


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"experts": 0}, "at least 1 expert, experts is 0"),
        ({"dropout": 1.0}, r"dropout is 1.0; it must lie in \[0, 1\)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"preprocess": "zca"}, "preprocess is 'zca'; it must be one of: raw, center, whiten"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(own, message):
    with pytest.raises(ValueError, match=message):
        UniSRecMoE(toy_spectrum(), 6, **own)


# PCA and mixture


def scores_of(spectrum, k, whiten):
    """PCA scores (N, k) by a decomposition of their own; their signs are anyone's."""
    with_text = (spectrum.E != 0).any(1)
    X = spectrum.E.double() - spectrum.E[with_text].double().mean(0)
    X[~with_text] = 0
    _, V = torch.linalg.eigh(X.T @ X)
    scores = X @ V.flip(1)[:, :k]
    return scores / scores[with_text].std(0) if whiten else scores


@pytest.mark.parametrize("whiten", [False, True])
def test_pca_moe_is_the_mixture_over_the_leading_scores(whiten):
    spectrum = toy_spectrum(missing=(5, 8))
    adapter = stirred(PCAMoE(spectrum, 6, k=4, whiten=whiten, experts=3)).double().eval()
    expected = scores_of(spectrum, 4, whiten)
    expected = expected * (expected * adapter.features).sum(0).sign()
    assert_close(adapter.features, expected, 1e-4)
    assert_close(adapter(), mixture(adapter, expected), 1e-4)


def test_more_components_than_there_are_is_all_of_them():
    for spectrum, rank in ((toy_spectrum(), 12), (toy_spectrum(10, 30), 9)):
        assert PCAMoE(spectrum, 6, k=512).features.shape[1] == rank
    with pytest.raises(ValueError, match="at least 1 component, k is 0"):
        PCAMoE(toy_spectrum(), 6, k=0)


# Ablations of SpecTran

ATTENTION, THRESHOLD, POSITION = (
    {"d_k", "c", "rho", "lam_learnable", "rank"},
    {"c", "lam_learnable"},
    {"degree", "start"},
)
ABLATIONS = {  # name: class, the switch it fixes, the other parameters it leaves out, values of some that it keeps
    "spectran_wo_attn": (SpecTranWithoutAttention, {"phi": "none"}, ATTENTION, {"degree": 3, "start": "plain"}),
    "spectran_wo_pos": (SpecTranWithoutPosition, {"pos": "none"}, POSITION, {"d_k": 7, "c": 0.5, "rho": 0.8}),
    "spectran_softmax": (SpecTranSoftmax, {"phi": "softmax"}, THRESHOLD, {"d_k": 7, "rho": 0.8, "value_power": 0.5}),
    "spectran_dense": (SpecTranDense, {"phi": "identity"}, THRESHOLD, {"d_k": 7, "rank": 9, "pos": "free_diag"}),
    "spectran_text": (SpecTranText, {}, set(), {"d_k": 7, "c": 0.5, "lam_learnable": False}),
    "spectran_us": (SpecTranUS, {"value_power": 1.0}, set(), {"d_k": 7, "c": 0.5, "rank": 9, "start": "plain"}),
}
each_ablation = pytest.mark.parametrize("name", ABLATIONS)


@each_ablation
@pytest.mark.parametrize("default", [True, False])
def test_an_ablation_is_spectran_with_one_switch(name, default):
    method, switch, _, own = ABLATIONS[name]
    own = {} if default else own
    made = []
    for build in (lambda s: method(s, 5, **own), lambda s: SpecTran(s, 5, **switch, **own)):
        torch.manual_seed(3)
        made.append(stirred(build(toy_spectrum())))
    found, whole = made
    assert found.state_dict().keys() == whole.state_dict().keys()
    assert torch.equal(found(), whole())
    assert found.diagnostics() == whole.diagnostics()


@each_ablation
def test_an_ablation_takes_what_still_means_something_at_the_defaults_of_spectran(name):
    _, switch, left_out, _ = ABLATIONS[name]
    whole = registry.schema(registry.ADAPTERS, "spectran").params
    expected = {key: value for key, value in whole.items() if key not in left_out | set(switch)}
    assert registry.schema(registry.ADAPTERS, name).params == expected


@each_ablation
def test_an_ablation_does_not_take_what_it_fixes(name):
    method, switch, left_out, _ = ABLATIONS[name]
    whole = registry.schema(registry.ADAPTERS, "spectran").params
    for parameter in {*switch, *left_out}:
        with pytest.raises(TypeError, match=f"'{parameter}'"):
            method(toy_spectrum(), 5, **{parameter: whole[parameter]})


@each_ablation
def test_an_ablation_searches_what_spectran_searches_of_these(name):
    whole, own = (
        spaces.of_cell(Cell("toy", "minilm", "sasrec", adapter), spaces.SpaceSource()) for adapter in ("spectran", name)
    )
    for key, axis in own.searched.items():
        assert whole.searched[key] == axis
    kept = {f"adapter.{key}" for key in registry.schema(registry.ADAPTERS, name).params}
    assert {k for k in own.searched if k.startswith("adapter.")} == kept & set(whole.searched)


def test_ablations_are_left_out_of_all_and_found_by_name():
    assert not set(ABLATIONS) & set(registry.select(registry.ADAPTERS, "all"))
    assert set(ABLATIONS) <= set(registry.select(registry.ADAPTERS, "spectran*"))


def test_without_attention_the_whitened_start_is_whitened_truncation():
    adapter = SpecTranWithoutAttention(toy_spectrum(), 5)
    assert adapter.beta.tolist() == [1, 0, 0]
    assert_close(adapter(), SVDWhiten(toy_spectrum(), 5)(), 1e-6)


def test_without_attention_training_only_weighs_the_leading_components():
    adapter = stirred(SpecTranWithoutAttention(toy_spectrum(), 5))
    table, U = adapter().detach().double(), toy_spectrum().U[:, :5].double()
    weights = U.T @ table
    assert_close(weights, torch.diag(weights.diagonal()), 1e-5)
    assert_close(table, U * weights.diagonal(), 1e-5)
    assert [name for name, _ in adapter.named_parameters()] == ["beta"]


def effective_rank(table):
    p = torch.linalg.svdvals(table.detach().double())
    p = p / p.sum()
    return math.exp(-(p * p.clamp_min(1e-300).log()).sum())


def test_softmax_of_small_scores_without_position_gives_every_column_the_same_average():
    torch.manual_seed(0)
    without, with_position = (SpecTranSoftmax(toy_spectrum(), 8, rho=0.05, pos=pos) for pos in ("none", "taylor"))
    assert effective_rank(without()) < 1.3
    assert effective_rank(with_position()) > 6
    assert_close(without.attention(), torch.full((8, 12), 1 / 12), 0.02)


def test_dense_attention_has_the_rank_of_its_keys_until_that_is_all():
    for d_k, rank in ((2, 2), (5, 5), (9, 5)):
        torch.manual_seed(0)
        P = SpecTranDense(toy_spectrum(), 5, d_k=d_k).attention().detach().double()
        assert torch.linalg.matrix_rank(P, rtol=1e-5) == rank


def test_dense_attention_is_any_linear_map_of_the_whitened_text():
    spectrum, g = toy_spectrum(), torch.Generator().manual_seed(2)
    W = torch.randn(12, 5, generator=g)
    adapter = SpecTranDense(spectrum, 5, d_k=7)
    wanted = W.T - adapter.position().detach()  # what Q K^T / sqrt(7) has to be
    adapter.Q.data, adapter.K.data = torch.eye(5, 7) * math.sqrt(7), F.pad(wanted.T, (0, 2))
    assert_close(adapter(), math.sqrt(59) * spectrum.U @ W, 1e-4)


def test_over_scores_the_start_is_plain_truncation():
    adapter = SpecTranUS(toy_spectrum(), 5)
    adapter.threshold.data.fill_(1e6)
    assert_close(adapter(), SVD(toy_spectrum(), 5)(), 1e-5)


def test_spectran_from_text_alone_takes_no_id_embedding():
    with pytest.raises(ValueError, match="fusion must be 'none', not 'add'"):
        ItemTable(SpecTranText(toy_spectrum(), 8), 8, fusion="add", out_std=0.05, id_std=0.02)
    space = spaces.of_cell(Cell("toy", "minilm", "sasrec", "spectran_text"), spaces.SpaceSource())
    assert space.fixed["text.fusion"] == "none"
    with pytest.raises(HarnessError, match="'fusion' cannot be set"):
        spaces.of_cell(Cell("toy", "minilm", "sasrec", "spectran_text[fusion=gate]"), spaces.SpaceSource())


@each_ablation
def test_an_ablation_refuses_what_spectran_refuses(name):
    with pytest.raises(ValueError, match=r"d=13 .*12"):
        ABLATIONS[name][0](toy_spectrum(), 13)


@pytest.mark.parametrize("lam_learnable", [True, False])
def test_a_threshold_of_zero_is_never_trained_and_leaves_the_dense_attention(lam_learnable):
    torch.manual_seed(0)
    sparse = SpecTran(toy_spectrum(), 5, d_k=7, c=0.0, lam_learnable=lam_learnable)
    dense = SpecTranDense(toy_spectrum(), 5, d_k=7)
    dense.load_state_dict({name: value for name, value in sparse.state_dict().items() if name != "threshold"})
    optimizer = torch.optim.AdamW([p for p in sparse.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        sparse().square().sum().backward()
        optimizer.step()
        dense.load_state_dict({name: value for name, value in sparse.state_dict().items() if name != "threshold"})
        torch.testing.assert_close(sparse(), dense())
    assert sparse.lam.item() == 0.0


def test_a_threshold_above_zero_is_trained():
    sparse = SpecTran(toy_spectrum(), 5, d_k=7, c=1e-3)
    sparse().square().sum().backward()
    assert sparse.threshold.grad.abs() > 0

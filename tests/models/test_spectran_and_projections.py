"""The adapters against the formulas they stand for, recomputed in float64."""

import math

import pytest
import torch
from dataset_files import SHARED
from synthetic_spectra import spectrum_of, toy_spectrum
from torch.nn import functional as F

from adapters._base import ItemTable
from adapters.linear import Linear
from adapters.linear_whiten import LinearWhiten
from adapters.mlp import MLP
from adapters.spectran import SpecTran, softshrink_energy
from adapters.svd import SVD
from adapters.svd_whiten import SVDWhiten

LINEAR_METHODS = {
    "linear raw": lambda s: Linear(s, 5, preprocess="raw"),
    "linear center": lambda s: Linear(s, 5, preprocess="center"),
    "linear whiten": lambda s: Linear(s, 5, preprocess="whiten"),
    "linear_whiten": lambda s: LinearWhiten(s, 5),
    "svd": lambda s: SVD(s, 5),
    "svd half power": lambda s: SVD(s, 5, power=0.5),
    "svd_whiten": lambda s: SVDWhiten(s, 5),
    "spectran": lambda s: SpecTran(s, 5),
    "spectran plain start": lambda s: SpecTran(s, 5, start="plain", value_power=0.5),
    "spectran of few components": lambda s: SpecTran(s, 5, rank=7),
    "spectran softmax": lambda s: SpecTran(s, 5, phi="softmax", pos="none"),
    "spectran dense": lambda s: SpecTran(s, 5, phi="identity", pos="free_diag"),
    "spectran without attention": lambda s: SpecTran(s, 5, phi="none", degree=3),
}


def stirred(adapter, seed=1):
    """The adapter with every parameter moved off its initial value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return adapter


def assert_close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance)


def without_attention(**switches):
    """SpecTran whose scores all lie inside the threshold."""
    adapter = SpecTran(toy_spectrum(), 5, **switches)
    adapter.threshold.data.fill_(1e6)
    return adapter


# Preprocessing


def test_whitened_features_have_unit_covariance_over_the_items_with_text():
    spectrum = toy_spectrum(missing=(3, 17, 40))
    Z = spectrum.features("whiten")
    assert_close(torch.cov(Z[(spectrum.E != 0).any(1)].double().T), torch.eye(spectrum.rank))
    assert (Z[[3, 17, 40]] == 0).all()


def test_centred_features_have_mean_zero_and_leave_items_without_text_at_zero():
    X = toy_spectrum(missing=(3, 17)).features("center")
    assert_close(X.mean(0), torch.zeros(12))
    assert (X[[3, 17]] == 0).all()


def test_raw_features_are_not_copied():
    spectrum = toy_spectrum()
    assert Linear(spectrum, 5).features.data_ptr() == spectrum.E.data_ptr()
    assert SpecTran(spectrum, 5).basis.data_ptr() == spectrum.U.data_ptr()


def test_an_unknown_preprocess_is_named_with_what_is_allowed():
    with pytest.raises(ValueError, match="preprocess is 'zca'; it must be one of: raw, center, whiten"):
        Linear(toy_spectrum(), 5, preprocess="zca")


# The linear map that extends a table to unseen items


@pytest.mark.parametrize("make", LINEAR_METHODS.values(), ids=LINEAR_METHODS)
@pytest.mark.parametrize("shape", [(60, 12), (10, 30)], ids=["N > D", "N < D"])
def test_linear_map_reproduces_the_table_on_rows_with_text(make, shape):
    spectrum = toy_spectrum(*shape, missing=(2,))
    adapter = stirred(make(spectrum))
    W, b = adapter.linear_map()
    with_text = (spectrum.E != 0).any(1)
    table = adapter().detach()
    assert W.shape == (shape[1], 5)
    assert table.std() > 1e-3
    assert_close((spectrum.E.double() @ W.double() + b.double())[with_text], table[with_text], 1e-4)


def test_a_trainable_copy_has_no_linear_map():
    assert SVD(toy_spectrum(), 5, trainable=True).linear_map() is None


# SVD truncation


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_svd_is_the_weighted_truncation_of_the_centred_text(power):
    spectrum = toy_spectrum()
    X = (spectrum.E - spectrum.mean).double()
    U, S, _ = torch.linalg.svd(X, full_matrices=False)
    expected = U[:, :5] * (S[:5] / S[0]) ** power * math.sqrt(59)
    table = SVD(spectrum, 5, power=power)()
    assert_close(table @ table.T, expected @ expected.T, 1e-4)  # signs apart


def test_svd_whiten_has_unit_covariance():
    assert_close(torch.cov(SVDWhiten(toy_spectrum(), 5)().T), torch.eye(5))


def test_a_trainable_copy_starts_as_the_frozen_table_at_the_scale_of_an_id_embedding():
    frozen, copy = (
        ItemTable(SVD(toy_spectrum(), 5, trainable=t), 5, fusion="none", out_std=0.1, id_std=0.0) for t in (False, True)
    )
    assert_close(copy(), frozen())
    assert copy.adapter().std().item() == pytest.approx(0.05, rel=1e-5)


@pytest.mark.parametrize("method", [SVD, SVDWhiten, SpecTran])
def test_more_columns_than_components_are_refused_in_one_sentence(method):
    with pytest.raises(ValueError, match=r"d=13 .*12"):
        method(toy_spectrum(), 13)


# SpecTran: the identities of its definition


def test_spectran_is_the_published_formula():
    spectrum = toy_spectrum()
    adapter = stirred(SpecTran(spectrum, 5, d_k=7, value_power=0.5))
    Q, K, beta = (p.detach().double() for p in (adapter.Q, adapter.K, adapter.beta))
    s = spectrum.S.double() / spectrum.S[0]
    P = F.softshrink(Q @ K.T / math.sqrt(7), adapter.lam.item())
    A = torch.zeros(5, 12, dtype=torch.float64)
    for i in range(5):
        A[i, i] = beta[0] + beta[1] * s[i] + beta[2] * s[i] ** 2
    assert 0 < (P != 0).double().mean() < 1
    assert_close(adapter.mixing().detach(), P + A)
    assert_close(adapter().detach(), math.sqrt(59) * spectrum.U.double() @ torch.diag(s**0.5) @ (P + A).T, 1e-4)


def test_softshrink_gives_the_threshold_the_gradient_minus_sign_of_the_active_scores():
    adapter = SpecTran(toy_spectrum(), 5)
    weight = torch.randn(5, 12)
    (adapter.attention() * weight).sum().backward()
    S = adapter.Q @ adapter.K.T / math.sqrt(128)
    expected = -(S.sign() * (S.abs() > adapter.lam) * weight).sum() * adapter.s0
    assert_close(adapter.threshold.grad, expected.detach())


def test_inside_the_dead_zone_the_whitened_start_is_whitened_truncation():
    assert_close(without_attention()().detach(), SVDWhiten(toy_spectrum(), 5)())


def test_inside_the_dead_zone_the_plain_start_is_plain_truncation():
    assert_close(without_attention(start="plain")().detach(), SVD(toy_spectrum(), 5)())


def test_without_a_position_encoding_only_the_attention_is_left():
    adapter = SpecTran(toy_spectrum(), 5, pos="none")
    assert_close(adapter.mixing().detach(), adapter.attention().detach())


def test_free_diagonal_starts_where_the_polynomial_does():
    for start in ("whiten", "plain"):
        free, taylor = (SpecTran(toy_spectrum(), 5, start=start, pos=pos) for pos in ("free_diag", "taylor"))
        assert_close(free.position().detach(), taylor.position().detach())


def test_softmax_rows_sum_to_one():
    attention = SpecTran(toy_spectrum(), 5, phi="softmax").attention()
    assert_close(attention.sum(1).detach(), torch.ones(5))
    assert (attention > 0).all()


def test_singular_values_of_the_table_are_those_of_the_mixing_matrix_whatever_the_signs():
    flips = torch.tensor([1.0, -1.0] * 6)
    for spectrum in (toy_spectrum(), toy_spectrum(flips=flips)):
        torch.manual_seed(0)
        adapter = SpecTran(spectrum, 5)
        table, M = adapter().detach().double(), adapter.mixing().detach().double()
        assert_close(torch.linalg.svdvals(table), math.sqrt(59) * torch.linalg.svdvals(M), 1e-4)


def test_a_spectrum_of_fewer_items_than_dimensions_works():
    adapter = SpecTran(toy_spectrum(10, 30), 5)
    assert adapter.mixing().shape == (5, 9)
    assert adapter().shape == (10, 5)


# SpecTran: its start


@pytest.mark.parametrize("r", [384, 1024, 4096])
@pytest.mark.parametrize(("c", "active"), [(1.0, 0.3173), (2.0, 0.0455)])
def test_attention_rows_start_at_norm_rho_with_the_predicted_share_active(r, c, active):
    g = torch.Generator().manual_seed(0)
    U = torch.linalg.qr(torch.randn(r + 1, 64, generator=g))[0]
    spectrum = type(toy_spectrum())(
        F.pad(U, (0, r - 64)), torch.linspace(1, 0.01, r), torch.zeros(1, r), torch.zeros(1), torch.ones(r + 1, 1)
    )
    torch.manual_seed(0)
    adapter = SpecTran(spectrum, 64, d_k=512, c=c, rho=0.3)
    norms = adapter.attention().norm(dim=1)
    assert adapter.active_fraction() == pytest.approx(active, rel=0.1)
    assert norms.square().mean().sqrt().item() == pytest.approx(0.3, rel=0.1)
    assert 0.27 < norms.mean() < 0.33


@pytest.mark.parametrize("d_k", [16, 64])
def test_rows_of_few_keys_have_norm_rho_on_average_over_draws(d_k):
    torch.manual_seed(0)
    spectrum = toy_spectrum(400, 100)
    mean = sum(SpecTran(spectrum, 32, d_k=d_k, c=0.5).attention().square().sum(1).mean() for _ in range(40)) / 40
    assert mean.sqrt().item() == pytest.approx(0.3, rel=0.15)


def test_the_highest_threshold_still_leaves_scores_above_it():
    torch.manual_seed(0)
    assert all(SpecTran(toy_spectrum(400, 100), 32, c=3.0).active_fraction() > 0 for _ in range(50))


def test_the_default_start_is_neither_dead_nor_dense():
    torch.manual_seed(0)
    assert 0.2 < SpecTran(toy_spectrum(400, 100), 32).active_fraction() < 0.45


def test_energy_behind_a_softshrink_agrees_with_sampling():
    z = torch.randn(2_000_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for c in (0.0, 0.5, 1.0, 2.0):
        assert softshrink_energy(c) == pytest.approx(F.softshrink(z, c).square().mean().item(), rel=0.02)


def test_threshold_zero_is_dense_attention():
    torch.manual_seed(0)
    dense = SpecTran(toy_spectrum(), 5, c=0.0)
    torch.manual_seed(0)
    identity = SpecTran(toy_spectrum(), 5, phi="identity")
    assert dense.active_fraction() == 1.0
    assert_close(dense().detach(), identity().detach())


def test_in_the_dead_zone_attention_and_threshold_get_exactly_no_gradient():
    adapter = without_attention()
    adapter().square().mean().backward()
    assert all(torch.count_nonzero(p.grad) == 0 for p in (adapter.Q, adapter.K, adapter.threshold))
    assert torch.count_nonzero(adapter.beta.grad) == 3
    assert adapter.active_fraction() == 0


def test_a_threshold_trained_below_zero_is_still_a_threshold_that_learns():
    adapter = SpecTran(toy_spectrum(), 5)
    adapter.threshold.data.fill_(-0.5)
    adapter().square().mean().backward()
    assert adapter.lam > 0
    assert adapter.threshold.grad != 0


def test_a_fixed_threshold_is_not_trained():
    adapter = SpecTran(toy_spectrum(), 5, lam_learnable=False)
    adapter().square().mean().backward()
    assert adapter.threshold.grad is None
    assert adapter.Q.grad is not None


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"phi": "relu"}, "phi is 'relu'; it must be one of: softshrink"),
        ({"pos": "sine"}, "pos is 'sine'; it must be one of: taylor"),
        ({"start": "zero"}, "start is 'zero'; it must be one of: whiten, plain"),
        ({"phi": "none", "pos": "none"}, "both are 'none'"),
        ({"start": "plain", "degree": 0}, "degree is 0"),
        ({"c": 3.5}, "c = 3.5 leaves too few scores above the threshold"),
    ],
)
def test_a_wrong_switch_is_one_clear_sentence(switches, message):
    with pytest.raises(ValueError, match=message):
        SpecTran(toy_spectrum(), 5, **switches)


def test_diagnostics_tell_mass_beyond_the_leading_components():
    adapter = SpecTran(toy_spectrum(), 5)
    M = adapter.mixing().detach().double()
    A = adapter.position().detach().double()
    found = adapter.diagnostics()
    assert found["subordinate_mass"] == pytest.approx((M[:, 5:].square().sum() / M.square().sum()).item(), rel=1e-5)
    P2, A2 = (M - A).square().sum().item(), A.square().sum().item()
    assert found["attention_share"] == pytest.approx(P2 / (P2 + A2), rel=1e-5)
    assert found["lambda"] == pytest.approx(adapter.s0, rel=1e-6)
    assert (found["beta_0"], found["beta_1"], found["beta_2"]) == (1, 0, 0)
    assert without_attention().diagnostics()["subordinate_mass"] == 0


# MLP


def test_mlp_is_the_network_it_says():
    spectrum = toy_spectrum()
    adapter = stirred(MLP(spectrum, 5, hidden=8, layers=2, activation="relu", dropout=0.0, preprocess="center"))
    (w1, b1), (w2, b2), (w3, b3) = ((m.weight, m.bias) for m in adapter.net if isinstance(m, torch.nn.Linear))
    x = spectrum.E - spectrum.mean
    hidden = ((x @ w1.T + b1).clamp_min(0) @ w2.T + b2).clamp_min(0)
    assert_close(adapter().detach(), (hidden @ w3.T + b3).detach())


def test_mlp_drops_out_only_in_training():
    adapter = MLP(toy_spectrum(), 5, dropout=0.3)
    assert not torch.equal(adapter(), adapter())
    adapter.eval()
    assert torch.equal(adapter(), adapter())


@pytest.mark.parametrize(
    ("given", "message"), [({"activation": "silu"}, "one of: gelu, relu"), ({"layers": 0}, "at least 1")]
)
def test_mlp_refuses_what_it_cannot_build(given, message):
    with pytest.raises(ValueError, match=message):
        MLP(toy_spectrum(), 5, **given)


# The seam


@pytest.mark.parametrize("make", LINEAR_METHODS.values(), ids=LINEAR_METHODS)
def test_the_seam_starts_every_text_table_at_one_scale(make):
    table = ItemTable(make(toy_spectrum()), 5, fusion="none", out_std=0.05, id_std=0.0)
    assert table.text().std().item() == pytest.approx(0.05, rel=1e-4)


def test_one_step_of_a_large_learning_rate_changes_the_gain_by_its_share_and_never_its_sign():
    table = ItemTable(SVDWhiten(toy_spectrum(), 5), 5, fusion="none", out_std=0.01, id_std=0.0)
    before = table.gain.item()
    optimizer = torch.optim.Adam(table.parameters(), lr=0.03)
    table().square().sum().backward()
    optimizer.step()
    assert table.gain.item() == pytest.approx(before * math.exp(-0.03), rel=1e-3)


# Real text


@pytest.mark.skipif(not SHARED.is_dir(), reason="the research copies of the data sets are not on this machine")
def test_on_real_text_the_tables_are_what_they_should_be():
    import numpy as np

    E = torch.from_numpy(np.load(SHARED / "ml-100k" / "emb_minilm384_meta.npy").astype(np.float32))
    spectrum = spectrum_of(E, tolerance=1e-3)
    whitened = SVDWhiten(spectrum, 64)
    assert_close(torch.cov(whitened().double().T), torch.eye(64), 1e-3)
    torch.manual_seed(0)
    adapter = SpecTran(spectrum, 64)
    assert adapter.active_fraction() == pytest.approx(0.317, abs=0.03)
    W, b = adapter.linear_map()
    assert_close(E.double() @ W.double() + b.double(), adapter().detach(), 1e-2)

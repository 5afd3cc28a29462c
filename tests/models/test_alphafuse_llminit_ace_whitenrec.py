"""The adapters that SpecTran is compared with, against their papers' formulas, recomputed in float64."""

import math

import numpy as np
import pytest
import torch
from synthetic_spectra import popular, spectrum_of, toy_spectrum

from adapters._base import ItemTable
from adapters.ace import ACE
from adapters.alphafuse import AlphaFuse
from adapters.linear import Linear
from adapters.linear2 import Linear2
from adapters.llminit import LLMInit
from adapters.svd import SVD
from adapters.svd_whiten import SVDWhiten
from adapters.whitenrec import WhitenRec
from adapters.whitenrec_plus import WhitenRecPlus

COPY_STD = 0.05  # what a step of the optimiser is measured against: the scale of an ID embedding


def assert_close(found, expected, tolerance=1e-5):
    found, expected = (torch.as_tensor(x).detach().double() for x in (found, expected))
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def centred(spectrum):
    """X (N, D) in float64, zero rows for items without text, and which items have text (N,) bool; NumPy."""
    E = spectrum.E.double().numpy()
    real = (E != 0).any(1)
    return np.where(real[:, None], E - E[real].mean(0), 0.0), real


def principal(spectrum):
    """U, S, V of the centred text, signs as the spectrum has them."""
    X, _ = centred(spectrum)
    U, S, Vh = np.linalg.svd(X, full_matrices=False)
    sign = np.sign((Vh.T * spectrum.V.numpy()).sum(0))
    return U * sign, S, Vh.T * sign


def at_copy_std(table):
    return table * (COPY_STD / table.std(ddof=1))


# AlphaFuse


@pytest.mark.parametrize("whiten", [True, False])
@pytest.mark.parametrize("cover", [True, False])
def test_alphafuse_is_the_text_with_the_id_in_its_weakest_columns(whiten, cover):
    spectrum, d = toy_spectrum(missing=(5,)), 8
    adapter = AlphaFuse(spectrum, d, null_share=0.25, whiten=whiten, cover=cover)
    torch.nn.init.normal_(adapter.id)
    U, S, _ = principal(spectrum)
    kept = 6 if cover else 8
    text = at_copy_std(U[:, :kept] if whiten else U[:, :kept] * S[:kept])
    expected = np.zeros((60, d))
    for i in range(60):
        for j in range(d):
            expected[i, j] = (text[i, j] if j < kept else 0.0) + (adapter.id[i, j - 6].item() if j >= 6 else 0.0)
    assert adapter.id.shape == (60, 2)
    assert_close(adapter(), expected)


def test_alphafuse_reaches_the_published_width_of_64_in_128():
    assert AlphaFuse(toy_spectrum(200, 150), 128).id.shape == (200, 64)


def test_alphafuse_starts_its_id_as_zeros_or_at_the_scale_of_the_text():
    spectrum = toy_spectrum(400, 40)
    torch.manual_seed(0)
    zeros, normal = (AlphaFuse(spectrum, 32, id_init=start) for start in ("zeros", "normal"))
    assert torch.count_nonzero(zeros.id) == 0
    assert torch.equal(zeros(), zeros.text)
    assert normal.id.std().item() == pytest.approx(COPY_STD, rel=0.05)
    assert zeros().std().item() == pytest.approx(COPY_STD, rel=1e-5)


def test_alphafuse_trains_nothing_but_the_id_and_leaves_the_semantic_columns_as_they_are():
    adapter = AlphaFuse(toy_spectrum(), 8)
    before = adapter().detach().clone()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.1)
    adapter().square().sum().backward()
    optimizer.step()
    assert [name for name, _ in adapter.named_parameters()] == ["id"]
    assert torch.equal(adapter()[:, :4], before[:, :4])
    assert (adapter()[:, 4:] - before[:, 4:]).abs().min() > 0.09


def test_an_item_without_text_has_its_id_alone_in_alphafuse():
    adapter = AlphaFuse(toy_spectrum(missing=(5,)), 8, id_init="normal")
    assert torch.count_nonzero(adapter()[5, :4]) == 0
    assert torch.equal(adapter()[5, 4:], adapter.id[5])


@pytest.mark.parametrize(
    ("d", "given", "message"),
    [
        (8, {"id_init": "ortho"}, "id_init is 'ortho'; it must be one of: zeros, normal"),
        (8, {"null_share": 0.05}, "gives the ID 0 of d=8 columns; it needs 1 to 7"),
        (8, {"null_share": 1.0}, "gives the ID 8 of d=8 columns"),
        (14, {}, "keeps 14 components at d=14, but the text has rank 12"),
        (26, {"cover": True}, "keeps 13 components at d=26"),
    ],
)
def test_alphafuse_refuses_what_it_cannot_build(d, given, message):
    with pytest.raises(ValueError, match=message):
        AlphaFuse(toy_spectrum(), d, **given)


def test_alphafuse_needs_only_the_components_it_keeps():
    assert AlphaFuse(toy_spectrum(), 14, cover=True)().shape == (60, 14)


# LLMInit


def features(spectrum, preprocess):
    X, real = centred(spectrum)
    if preprocess == "raw":
        return spectrum.E.double().numpy()
    return X if preprocess == "center" else principal(spectrum)[0] * math.sqrt(real.sum() - 1)


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_llminit_takes_the_columns_of_largest_variance_over_the_most_popular_items(preprocess):
    g = np.random.default_rng(0)
    counts = g.permutation(60)
    spectrum = popular(toy_spectrum(missing=(2, 50)), counts)
    columns = features(spectrum, preprocess)
    order = sorted((i for i in range(60) if i not in (2, 50)), key=lambda i: -counts[i])
    variance = [np.var(columns[order[:11], j]) for j in range(12)]  # 20 % of 58 items with text
    best = sorted(range(12), key=lambda j: -variance[j])[:5]
    assert_close(LLMInit(spectrum, 5, preprocess=preprocess)(), at_copy_std(columns[:, best]))


def test_llminit_measures_variance_where_training_went_and_nowhere_else():
    first, last = (popular(toy_spectrum(), counts) for counts in ([60 - i for i in range(60)], list(range(60))))
    assert not torch.equal(LLMInit(first, 5)(), LLMInit(last, 5)())
    assert torch.equal(LLMInit(first, 5, how="uni")(), LLMInit(last, 5, how="uni")())


def test_llminit_breaks_ties_of_popularity_by_the_order_of_the_items():
    none = popular(toy_spectrum(), [0] * 60)
    ordered = popular(toy_spectrum(), [1] * 12 + [0] * 48)
    assert torch.equal(LLMInit(none, 5)(), LLMInit(ordered, 5)())


@pytest.mark.parametrize(("d", "expected"), [(5, [0, 2, 4, 6, 8]), (4, [0, 3, 6, 9]), (12, list(range(12)))])
def test_llminit_uniform_takes_every_floor_of_D_over_d_th_column(d, expected):
    spectrum = toy_spectrum()
    assert_close(LLMInit(spectrum, d, how="uni")(), at_copy_std(features(spectrum, "raw")[:, expected]))


def test_llminit_random_takes_different_columns_by_the_seed():
    spectrum = toy_spectrum()
    columns = features(spectrum, "center")
    chosen = []
    for seed in (0, 1, 0):
        torch.manual_seed(seed)
        table = LLMInit(spectrum, 6, how="rand", preprocess="center")().detach().double().numpy()
        cosines = table.T @ columns / np.outer(np.linalg.norm(table, axis=0), np.linalg.norm(columns, axis=0))
        assert (cosines.max(1) > 1 - 1e-6).all()
        chosen.append(cosines.argmax(1).tolist())
    assert all(len(set(columns)) == 6 for columns in chosen)
    assert chosen[0] == chosen[2]
    assert chosen[0] != chosen[1]


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_llminit_pca_is_a_trainable_truncation(preprocess):
    spectrum = toy_spectrum()
    U, S, _ = principal(spectrum)
    scores = U[:, :5] if preprocess == "whiten" else U[:, :5] * S[:5]
    table = LLMInit(spectrum, 5, how="pca", preprocess=preprocess)
    assert_close(table(), at_copy_std(scores))
    assert_close(table(), SVD(spectrum, 5, power=float(preprocess != "whiten"), trainable=True)())


@pytest.mark.parametrize("how", ["var", "uni", "rand", "pca"])
def test_llminit_trains_the_whole_table_and_gives_items_without_text_a_start_of_zero(how):
    table = LLMInit(toy_spectrum(missing=(5,)), 5, how=how)
    assert torch.count_nonzero(table()[5]) == 0
    (gradient,) = torch.autograd.grad(table().exp().sum(), list(table.parameters()))
    assert torch.count_nonzero(gradient) == 300
    assert table().std().item() == pytest.approx(COPY_STD, rel=1e-5)


def test_llminit_of_columns_that_are_all_constant_is_finite():
    E = toy_spectrum().E.clone()
    E[:, [0, 2, 4, 6, 8]] = 0.0
    adapter = LLMInit(spectrum_of(E), 5, how="uni")
    assert torch.count_nonzero(adapter()) == 0
    with pytest.raises(ValueError, match="LLMInit gives all entries of its table the same value"):
        ItemTable(adapter, 5, fusion="none", out_std=0.05, id_std=0.0)


@pytest.mark.parametrize(
    ("d", "given", "message"),
    [
        (5, {"how": "best"}, "how is 'best'; it must be one of: var, uni, rand, pca"),
        (5, {"preprocess": "zca"}, "preprocess is 'zca'; it must be one of: raw"),
        (13, {}, "d=13 columns of the text, but there are 12"),
        (12, {"how": "pca", "preprocess": "center"}, "d=12 columns of the text, but there are 9"),
    ],
)
def test_llminit_refuses_what_it_cannot_build(d, given, message):
    with pytest.raises(ValueError, match=message):
        LLMInit(toy_spectrum(10, 30) if given.get("how") == "pca" else toy_spectrum(), d, **given)


# ACE


@pytest.mark.parametrize("softness", [0.1, 10.0, 1000.0])
def test_ace_starts_at_the_softened_spectrum(softness):
    spectrum = toy_spectrum(missing=(5,))
    U, S, _ = principal(spectrum)
    lam = softness * np.median(S**2)
    expected = np.zeros((60, 5))
    for j in range(5):
        expected[:, j] = U[:, j] * math.sqrt(S[j] ** 2 / (S[j] ** 2 + lam))
    assert_close(ACE(spectrum, 5, softness=softness)(), at_copy_std(expected))


def test_inner_products_of_ace_are_the_ridge_regression_of_every_item_on_all_items():
    spectrum = toy_spectrum()
    X, _ = centred(spectrum)
    lam = 3.0 * np.median(np.linalg.svd(X, compute_uv=False) ** 2)
    B = np.linalg.solve(X @ X.T + lam * np.eye(60), X @ X.T)
    table = ACE(spectrum, 12, softness=3.0)().detach().double().numpy()
    found = table @ table.T
    assert_close(found / np.trace(found), B / np.trace(B))


def test_ace_lies_between_whitened_and_plain_truncation():
    spectrum = toy_spectrum()
    assert_close(ACE(spectrum, 5, softness=0.0)(), SVDWhiten(spectrum, 5, trainable=True)())
    assert_close(ACE(spectrum, 5, softness=1e7)(), SVD(spectrum, 5, trainable=True)())
    spread = [ACE(spectrum, 5, softness=s)().detach().norm(dim=0) for s in (0.0, 1.0, 100.0, 1e7)]
    ratios = [(norms[0] / norms[4]).item() for norms in spread]
    assert ratios == sorted(ratios)
    assert ratios[3] > 2 * ratios[1] > 2 * ratios[0]


def test_ace_does_not_depend_on_the_scale_of_the_text():
    assert_close(ACE(spectrum_of(100 * toy_spectrum().E), 5)(), ACE(toy_spectrum(), 5)())


def test_ace_trains_the_whole_table():
    adapter = ACE(toy_spectrum(missing=(5,)), 5)
    (gradient,) = torch.autograd.grad(adapter().exp().sum(), list(adapter.parameters()))
    assert torch.count_nonzero(gradient) == 300
    assert adapter().std().item() == pytest.approx(COPY_STD, rel=1e-5)


@pytest.mark.parametrize(
    ("d", "softness", "message"),
    [(5, -1.0, "softness is -1.0"), (13, 1.0, "d=13 components, but the text has rank 12")],
)
def test_ace_refuses_what_it_cannot_build(d, softness, message):
    with pytest.raises(ValueError, match=message):
        ACE(toy_spectrum(), d, softness=softness)


# A step of the optimiser moves the methods that train a table as it would an ID embedding


@pytest.mark.parametrize("make", [ACE, LLMInit, AlphaFuse])
def test_the_scale_of_the_text_does_not_change_what_a_step_does(make):
    moved = []
    for scale in (1.0, 100.0):
        table = ItemTable(make(spectrum_of(scale * toy_spectrum().E), 8), 8, fusion="none", out_std=0.05, id_std=0.0)
        before = table().detach().clone()
        optimizer = torch.optim.Adam(table.adapter.parameters(), lr=0.01)
        table().sum().backward()
        optimizer.step()
        moved.append((table() - before).abs().max().item())
        assert 0.005 < moved[-1] < 0.02
    assert moved[0] == pytest.approx(moved[1], rel=1e-3)


# WhitenRec


def zca(X, n, cut=1e-10):
    """X cov^{-1/2}, cov = X^T X / (n - 1), by the eigenvectors; directions below the cut count as empty."""
    values, vectors = np.linalg.eigh(X.T @ X / (n - 1))
    inverse = np.zeros((X.shape[1], X.shape[1]))
    for value, vector in zip(values, vectors.T, strict=True):
        if value > cut * values[-1]:
            inverse += np.outer(vector, vector) / math.sqrt(value)
    return X @ inverse


def head(adapter, Z):
    """The projection head in float64, without dropout."""
    first, last = (m for m in adapter.head if isinstance(m, torch.nn.Linear))
    W1, b1, W2, b2 = (p.detach().double().numpy() for p in (first.weight, first.bias, last.weight, last.bias))
    return np.maximum(Z @ W1.T + b1, 0) @ W2.T + b2


def stirred(adapter):
    with torch.no_grad():
        for p in adapter.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    return adapter.eval()


@pytest.mark.parametrize("shape", [(60, 12), (10, 30)], ids=["N > D", "N < D"])
def test_whitenrec_is_a_projection_of_zca_whitened_text(shape):
    spectrum = toy_spectrum(*shape, missing=(5,))
    adapter = stirred(WhitenRec(spectrum, 5, hidden=7))
    X, real = centred(spectrum)
    Z = zca(X, real.sum())
    assert_close(adapter.features, Z, 1e-4)
    assert_close(adapter(), head(adapter, Z), 1e-4)


def test_whitenrec_text_is_white_and_as_near_to_the_text_as_white_text_can_be():
    spectrum = toy_spectrum(missing=(5,))
    X, real = centred(spectrum)
    Z = WhitenRec(spectrum, 5).features.double().numpy()
    assert_close(np.cov(Z[real].T), np.eye(12), 1e-4)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(12, 12)))
    assert (Z * X).sum() > max((Z @ Q * X).sum() for Q in (rotation, -np.eye(12), principal(spectrum)[2]))
    cross = Z.T @ X
    assert_close(cross, cross.T, 1e-3)  # symmetric and positive: the polar factor
    assert np.linalg.eigvalsh((cross + cross.T) / 2)[0] > 0


def test_whitenrec_differs_from_pca_whitening_by_a_rotation():
    spectrum = toy_spectrum()
    Z, scores = (x.double() for x in (WhitenRec(spectrum, 5).features, spectrum.features("whiten")))
    assert_close(Z @ Z.T, scores @ scores.T, 1e-4)
    assert not torch.allclose(Z, scores, atol=1e-2)


def relaxed(spectrum, groups):
    X, real = centred(spectrum)
    return np.concatenate([zca(part, real.sum()) for part in np.array_split(X, groups, axis=1)], 1)


@pytest.mark.parametrize("groups", [1, 2, 4, 5, 12])
def test_whitenrec_plus_adds_the_projection_of_text_whitened_group_by_group(groups):
    spectrum = toy_spectrum(missing=(5,))
    adapter = stirred(WhitenRecPlus(spectrum, 5, groups=groups, hidden=7))
    X, real = centred(spectrum)
    assert_close(adapter.relaxed, relaxed(spectrum, groups), 1e-4)
    assert_close(adapter(), head(adapter, zca(X, real.sum())) + head(adapter, relaxed(spectrum, groups)), 1e-4)


def test_whitening_in_one_group_is_full_whitening():
    adapter = WhitenRecPlus(toy_spectrum(missing=(5,)), 5, groups=1)
    assert_close(adapter.relaxed, adapter.features, 1e-4)


def test_relaxed_text_is_white_within_groups_and_keeps_the_correlations_between_them():
    Z = WhitenRecPlus(toy_spectrum(400, 12), 5, groups=3).relaxed.double()
    blocks = torch.cov(Z.T).unflatten(0, (3, 4)).unflatten(2, (3, 4)).transpose(1, 2)
    for i in range(3):
        for j in range(3):
            if i == j:
                assert_close(blocks[i, j], torch.eye(4), 1e-4)
            else:
                assert blocks[i, j].abs().max() > 0.1


def test_more_groups_than_dimensions_standardise_every_dimension():
    spectrum = toy_spectrum()
    X, _ = centred(spectrum)
    assert_close(WhitenRecPlus(spectrum, 5, groups=128).relaxed, X / X.std(0, ddof=1), 1e-4)


def test_group_whitening_of_rank_deficient_text_is_finite_and_leaves_the_empty_directions_out():
    E = toy_spectrum().E.clone()
    E[:, 1] = 0.7 * (E[:, 0] + E[:, 2])  # up to the rounding of float32, which must not become a direction of its own
    E[:, 4] = 0.25
    E[7] = 0
    spectrum = spectrum_of(E)
    adapter = WhitenRecPlus(spectrum, 5, groups=3)
    assert_close(adapter.relaxed, relaxed(spectrum, 3), 1e-3)
    assert adapter.relaxed.abs().max() < 10
    assert torch.isfinite(adapter()).all()
    assert torch.linalg.matrix_rank(adapter.relaxed[:, :4], rtol=1e-3) == 3
    assert adapter.relaxed[:, 4].abs().max() < 1e-4
    constant = spectrum_of(torch.cat([toy_spectrum().E, torch.full((60, 12), 0.5)], 1))
    assert torch.count_nonzero(WhitenRecPlus(constant, 5, groups=2).relaxed[:, 12:]) == 0


def test_an_item_without_text_is_white_noughts_to_both_branches():
    adapter = WhitenRecPlus(toy_spectrum(missing=(5,)), 5).eval()
    assert torch.count_nonzero(adapter.features[5]) == torch.count_nonzero(adapter.relaxed[5]) == 0
    assert_close(adapter()[5], 2 * adapter.head(torch.zeros(12)))


@pytest.mark.parametrize("make", [WhitenRec, WhitenRecPlus])
def test_whitenrec_has_one_head_that_drops_out_only_in_training(make):
    adapter = make(toy_spectrum(), 5, hidden=7, dropout=0.3)
    assert sum(p.numel() for p in adapter.parameters()) == 12 * 7 + 7 + 7 * 5 + 5
    assert not torch.equal(adapter(), adapter())
    assert torch.equal(adapter.eval()(), adapter())
    still = make(toy_spectrum(), 5, dropout=0.0)
    assert torch.equal(still(), still())


def test_whitenrec_plus_refuses_no_groups():
    with pytest.raises(ValueError, match="at least 1 group, groups is 0"):
        WhitenRecPlus(toy_spectrum(), 5, groups=0)


# Linear2


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
def test_linear2_is_two_layers_with_nothing_between(preprocess):
    spectrum = toy_spectrum(missing=(5,))
    adapter = stirred(Linear2(spectrum, 5, preprocess=preprocess))
    (W1, b1), (W2, b2) = (
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy()) for m in (adapter.first, adapter.second)
    )
    assert W1.shape == (6, 12)
    assert W2.shape == (5, 6)
    assert_close(adapter(), (features(spectrum, preprocess) @ W1.T + b1) @ W2.T + b2, 1e-4)


def test_linear2_has_the_gradients_of_two_layers_one_after_the_other():
    adapter = stirred(Linear2(toy_spectrum(), 5)).double()
    weight = torch.randn(60, 5, dtype=torch.float64)
    found = torch.autograd.grad((adapter() * weight).sum(), list(adapter.parameters()))
    stacked = adapter.second(adapter.first(adapter.features))
    expected = torch.autograd.grad((stacked * weight).sum(), list(adapter.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_linear2_starts_xavier_normal_without_biases():
    torch.manual_seed(0)
    adapter = Linear2(toy_spectrum(300, 200), 64)
    for layer, fans in ((adapter.first, 300), (adapter.second, 164)):
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fans), rel=0.03)
        assert layer.weight.abs().max() > 1.1 * math.sqrt(6 / fans)  # beyond what is uniform at that deviation
        assert torch.count_nonzero(layer.bias) == 0


@pytest.mark.parametrize("preprocess", ["raw", "center", "whiten"])
@pytest.mark.parametrize("shape", [(60, 12), (10, 30)], ids=["N > D", "N < D"])
def test_the_linear_map_of_linear2_reproduces_the_table_on_rows_with_text(preprocess, shape):
    spectrum = toy_spectrum(*shape, missing=(2,))
    adapter = stirred(Linear2(spectrum, 5, preprocess=preprocess))
    W, b = adapter.linear_map()
    with_text = (spectrum.E != 0).any(1)
    assert W.shape == (shape[1], 5)
    assert_close((spectrum.E.double() @ W.double() + b.double())[with_text], adapter()[with_text], 1e-4)


def test_linear2_narrows_to_half_the_text_and_so_limits_the_rank_of_the_table():
    table = stirred(Linear2(toy_spectrum(60, 8), 6, preprocess="center"))().double()
    assert torch.linalg.matrix_rank(table - table.mean(0), rtol=1e-4) == 4
    wide = stirred(Linear(toy_spectrum(60, 8), 6, preprocess="center"))().double()
    assert torch.linalg.matrix_rank(wide - wide.mean(0), rtol=1e-4) == 6


def test_linear2_refuses_an_unknown_preprocess():
    with pytest.raises(ValueError, match="preprocess is 'zca'; it must be one of: raw"):
        Linear2(toy_spectrum(), 5, preprocess="zca")


# What they say of themselves


@pytest.mark.parametrize("method", [AlphaFuse, LLMInit, ACE, WhitenRec, WhitenRecPlus, Linear2])
def test_methods_that_join_text_and_id_themselves_and_that_read_behaviour_say_so(method):
    assert method.fuses == (method in (AlphaFuse, LLMInit, ACE))
    assert method.uses_interactions == (method is LLMInit)

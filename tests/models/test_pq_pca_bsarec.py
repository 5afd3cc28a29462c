"""PQ, PCA and BSARec against independent float64 recomputations of their formulas."""

import math
import subprocess
import sys

import pytest
import torch
from synthetic_spectra import spectrum_of, toy_spectrum
from torch import nn

from adapters import pq
from adapters._base import Spectrum
from adapters.pca import PCA
from adapters.pq import PQ
from backbones.bsarec import BSARec
from backbones.fmlp import FMLP

D, MAX_LEN = 8, 6


def stirred(module, seed=1, size=0.3):
    """The module in float64 with every parameter moved off its initial value."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(size * torch.randn(p.shape, generator=g))
    return module.double()


def close(found, expected, tolerance=1e-9):
    torch.testing.assert_close(found.detach().double(), expected.detach().double(), rtol=tolerance, atol=tolerance)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch):
    monkeypatch.setattr(pq, "_codes", {})


# PQ


def planted(groups=3, width=2, n=80, noise=0.01, seed=0):
    """Rows (n, groups * width) and their codes (n, groups): each group of columns lies around one of two points."""
    g = torch.Generator().manual_seed(seed)
    points = 2 * torch.randn(groups, 2, width, generator=g)
    codes = torch.randint(0, 2, (n, groups), generator=g)
    rows = torch.cat([points[j, codes[:, j]] for j in range(groups)], 1)
    return rows + noise * torch.randn(rows.shape, generator=g), codes


def parts(X, m):
    """Groups of neighbouring columns; the first ones are one wider if they cannot be equal."""
    p, out, start = X.shape[1], [], 0
    for j in range(m):
        end = start + p // m + (j < p % m)
        out.append(X[:, start:end])
        start = end
    return out


@pytest.mark.parametrize("m", [1, 3])
def test_an_item_is_the_mean_of_the_vectors_of_its_codes_and_no_text_is_zero(m):
    adapter = stirred(PQ(toy_spectrum(missing=(4, 9)), D, m=m, centroids=7))
    table = adapter().detach()
    assert adapter.vectors.shape == (m * 7, D)
    for i in range(60):
        mean = torch.zeros(D, dtype=torch.float64)
        for j in range(m):
            code = int(adapter.codes[i, j])
            assert 7 * j <= code < 7 * (j + 1)
            mean += adapter.vectors[code].detach() / m
        close(table[i], torch.zeros(D) if i in (4, 9) else mean)


def test_the_gradient_of_a_code_vector_is_that_of_plain_look_ups():
    adapter = stirred(PQ(toy_spectrum(missing=(4,)), D, m=3, centroids=7))
    weights = torch.randn(60, D, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (found,) = torch.autograd.grad((adapter() * weights).sum(), adapter.vectors)
    plain = adapter.vectors[adapter.codes].mean(1) * (torch.arange(60) != 4)[:, None]
    (expected,) = torch.autograd.grad((plain * weights).sum(), adapter.vectors)
    close(found, expected)


def test_groups_of_columns_that_lie_around_two_points_are_told_apart():
    X, truth = planted()
    codes, rows = pq.quantised(X, 3, 2, False)
    for j in range(3):
        assert len({tuple(pair) for pair in torch.stack([codes[:, j], truth[:, j]], 1).tolist()}) == 2
    for found, own, code in zip(parts(rows, 3), parts(X.double(), 3), truth.T, strict=True):
        for c in (0, 1):
            close(found[code == c], own[code == c].mean(0).expand(int((code == c).sum()), 2))


@pytest.mark.parametrize(("p", "m"), [(12, 4), (11, 4), (5, 5)])
def test_every_row_stands_for_the_nearest_centroid_of_each_group(p, m):
    X = torch.randn(200, p, generator=torch.Generator().manual_seed(0))
    codes, rows = pq.quantised(X, m, 8, False)
    for j, (own, stands) in enumerate(zip(parts(X.double(), m), parts(rows, m), strict=True)):
        used = codes[:, j].unique()
        centroids = torch.stack([stands[codes[:, j] == c][0] for c in used])
        assert all((stands[codes[:, j] == c] == centroid).all() for c, centroid in zip(used, centroids, strict=True))
        assert torch.equal(used[torch.cdist(own, centroids).argmin(1)], codes[:, j])


def test_opq_finds_groups_that_a_rotation_has_hidden():
    X, _ = planted(groups=4, width=2, n=300)
    Q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3)))
    errors = {}
    for rotate in (False, True):
        rows = pq.quantised(X @ Q, 4, 2, rotate)[1]
        errors[rotate] = (rows - X @ Q).square().sum().item()
    assert errors[True] < 0.7 * errors[False]
    assert PQ(spectrum_of(X), 4, m=4, centroids=2, rotation="opq")().isfinite().all()


@pytest.mark.parametrize("rotation", ["none", "opq"])
def test_codes_depend_on_text_and_hyper_parameters_but_not_on_seed_or_threads(rotation):
    spectrum, found = toy_spectrum(400, 24), []
    threads = torch.get_num_threads()
    try:
        for seed, count in ((0, 1), (7, 2)):
            torch.manual_seed(seed)
            torch.set_num_threads(count)
            found.append(PQ(spectrum, D, m=4, centroids=16, rotation=rotation).codes)
            assert torch.get_num_threads() == count
            pq._codes.clear()
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)
    assert not torch.equal(PQ(toy_spectrum(400, 24, seed=1), D, m=4, centroids=16, rotation=rotation).codes, found[0])


def test_codes_are_computed_once_for_a_text_and_its_hyper_parameters(monkeypatch):
    made, own = [], pq.quantised
    monkeypatch.setattr(pq, "quantised", lambda *given: made.append(given) or own(*given))
    first = PQ(toy_spectrum(), D, m=3, centroids=5)
    assert torch.equal(PQ(toy_spectrum(), 4, m=3, centroids=5).codes, first.codes)
    assert len(made) == 1
    for text, params in (
        (0, {"m": 4}),
        (0, {"centroids": 6}),
        (0, {"components": 5}),
        (0, {"rotation": "opq"}),
        (1, {}),
    ):
        PQ(toy_spectrum(seed=text), D, **({"m": 3, "centroids": 5} | params))
    assert len(made) == 6


def test_the_cache_of_codes_is_bounded(monkeypatch):
    monkeypatch.setattr(pq, "KEPT", 2)
    for m in (1, 2, 3):
        PQ(toy_spectrum(), D, m=m, centroids=4)
    assert [key[2] for key in pq._codes] == [2, 3]


def test_centroids_are_at_most_half_the_distinct_texts_and_groups_at_most_the_columns():
    E = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)).repeat(6, 1)
    adapter = PQ(spectrum_of(E), D)
    table = adapter()
    assert adapter.codes.shape == (60, 5)
    assert adapter.vectors.shape == (5 * 5, D)
    assert torch.equal(table[:10].repeat(6, 1), table)
    assert PQ(toy_spectrum(), D, components=2).codes.shape == (60, 2)


def test_the_codes_of_items_with_text_are_those_of_their_leading_whitened_columns():
    spectrum, with_text = toy_spectrum(missing=(4, 9)), (torch.arange(60) != 4) & (torch.arange(60) != 9)
    codes = pq.quantised(spectrum.features("whiten")[with_text, :4], 2, 6, False)[0]
    found = PQ(spectrum, D, m=2, centroids=6, components=4).codes
    assert torch.equal(found[with_text], codes + torch.tensor([0, 6]))


def test_code_vectors_start_with_a_mean_as_large_as_an_id_embedding():
    torch.manual_seed(0)
    for m in (2, 8):
        assert PQ(toy_spectrum(400, 24), 32, m=m, centroids=64)().std().item() == pytest.approx(0.05, rel=0.05)


def test_distinct_codes_are_the_share_of_items_that_share_them_with_no_other():
    E = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    E[1], E[2] = E[0], 0
    adapter = PQ(spectrum_of(E), D, m=6, centroids=19)
    rows = [tuple(row) for i, row in enumerate(adapter.codes.tolist()) if i != 2]
    share = sum(rows.count(row) == 1 for row in rows) / 39
    assert 0 < share <= 37 / 39
    assert adapter.diagnostics() == {"codes_an_item": 6.0, "distinct_codes": pytest.approx(share)}


def test_pq_loads_no_clustering_library_before_it_quantises():
    code = "import sys, adapters.pq; print([n for n in ('sklearn', 'scipy', 'threadpoolctl') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"m": 0}, "m is 0; it must be at least 1"),
        ({"centroids": 0}, "centroids is 0"),
        ({"components": 0}, "components is 0"),
        ({"rotation": "pca"}, "rotation is 'pca'; it must be one of: none, opq"),
    ],
)
def test_pq_refuses_what_it_cannot_be(own, message):
    with pytest.raises(ValueError, match=message):
        PQ(toy_spectrum(), D, **own)


@pytest.mark.parametrize("adapter", [PQ, PCA])
def test_text_without_any_difference_is_refused(adapter):
    with pytest.raises(ValueError, match="text of rank 1 or more"):
        adapter(Spectrum.blank(5), D)


# PCA


def mlp(z, adapter):
    h = z @ adapter.first.weight.T + adapter.first.bias
    return h * 0.5 * (1 + torch.erf(h / math.sqrt(2))) @ adapter.last.weight.T + adapter.last.bias


@pytest.mark.parametrize("hidden", [5, 400])
def test_pca_starts_as_the_principal_components_of_the_text_before_the_mlp(hidden):
    spectrum = toy_spectrum(missing=(3,))
    adapter = PCA(spectrum, D, hidden=hidden).eval()
    k = min(hidden, 12)
    assert adapter.projection.shape == (12, k)
    with_text = torch.arange(60) != 3
    X = spectrum.E[with_text].double()
    X = X - X.mean(0)
    V = torch.linalg.svd(X, full_matrices=False)[2][:k].T
    V = V * (V * adapter.projection).sum(0).sign().double()
    close(adapter.projection, V, 1e-5)
    close(adapter()[with_text], mlp(X @ V, adapter.double()), 1e-4)


def test_pca_trains_mean_projection_and_mlp():
    spectrum = toy_spectrum(missing=(3,))
    adapter = stirred(PCA(spectrum, D, hidden=5).eval())
    assert {name for name, _ in adapter.named_parameters()} >= {"shift", "projection", "first.weight", "last.bias"}
    mean = spectrum.mean.double() + adapter.shift
    with_text = torch.arange(60) != 3
    expected = mlp((spectrum.E.double() - mean) @ adapter.projection, adapter)
    close(adapter()[with_text], expected[with_text], 1e-6)
    close(adapter()[3], mlp(-adapter.shift @ adapter.projection, adapter))


def batch_norm_of(adapter, spectrum):
    """PyTorch's batch norm with the adapter's scale and shift, and the texts it normalises."""
    norm = nn.BatchNorm1d(12).double()
    norm.weight.data, norm.bias.data = adapter.scale.data, adapter.shift.data
    return norm, spectrum.E[(spectrum.E != 0).any(1)].double()


def test_bn_is_batch_norm_over_the_catalogue_before_the_mlp():
    spectrum = toy_spectrum(missing=(3,))
    adapter = stirred(PCA(spectrum, D, adaptor="bn", hidden=7, dropout=0.0))
    norm, texts = batch_norm_of(adapter, spectrum)
    close(adapter()[torch.arange(60) != 3], mlp(norm(texts), adapter), 1e-5)
    close(adapter()[3], mlp(adapter.shift, adapter))


def test_bn_ranks_by_what_running_statistics_converge_to():
    spectrum = toy_spectrum(1000)
    adapter = stirred(PCA(spectrum, D, adaptor="bn", hidden=7))
    norm, texts = batch_norm_of(adapter, spectrum)
    for _ in range(300):
        norm(texts)
    close(adapter.eval()(), mlp(norm.eval()(texts), adapter), 5e-3)


@pytest.mark.parametrize("adaptor", ["pca", "bn"])
def test_rows_in_training_have_the_statistics_of_the_catalogue(adaptor):
    adapter = stirred(PCA(toy_spectrum(), D, adaptor=adaptor, dropout=0.0)).train()
    ids = torch.tensor([7, 3, 3])
    whole = adapter.eval()()[ids]
    close(adapter.train().rows(ids), whole)
    close(adapter.rows(ids[:1]), whole[:1])


@pytest.mark.parametrize("adaptor", ["pca", "bn"])
def test_saved_parameters_are_all_that_the_adaptor_needs(adaptor):
    source = stirred(PCA(toy_spectrum(), D, adaptor=adaptor)).train()
    source()
    target = PCA(toy_spectrum(), D, adaptor=adaptor).double()
    target.load_state_dict(source.state_dict())
    assert torch.equal(target.eval()(), source.eval()())


def test_dropout_is_on_the_hidden_units_and_only_in_training():
    adapter = stirred(PCA(toy_spectrum(), D, hidden=5, dropout=0.5))
    assert torch.equal(adapter.eval()(), adapter())
    torch.manual_seed(3)
    found = adapter.train()()
    torch.manual_seed(3)
    kept = nn.functional.dropout(torch.ones(60, 5, dtype=torch.float64), 0.5)
    z = (adapter.features - adapter.shift) @ adapter.projection
    h = nn.functional.gelu(z @ adapter.first.weight.T + adapter.first.bias)
    close(found, (h * kept) @ adapter.last.weight.T + adapter.last.bias)


def test_pca_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="adaptor is 'zca'; it must be one of: pca, bn"):
        PCA(toy_spectrum(), D, adaptor="zca")


# BSARec


def a_bsarec(**own):
    torch.manual_seed(0)
    return stirred(BSARec(D, MAX_LEN, **own)).eval()


def vectors(rows, length):
    return torch.randn(rows, length, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def all_real(x):
    return torch.ones(x.shape[:2], dtype=torch.bool)


def linear(h, module):
    return h @ module.weight.T + module.bias


def layer_norm(h, module):
    centred = h - h.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def gelu(z):
    return z * 0.5 * (1 + torch.erf(z / math.sqrt(2)))


def low_pass(h, c):
    """The c // 2 + 1 lowest frequencies of rows (n, d), by a transform forth and back."""
    spectrum = torch.fft.rfft(h, dim=0, norm="ortho")
    spectrum[c // 2 + 1 :] = 0
    return torch.fft.irfft(spectrum, n=len(h), dim=0, norm="ortho")


def attention(q, k, v, heads):
    """Causal softmax attention of one row (L, d), one query and one head at a time."""
    width, out = q.shape[1] // heads, torch.zeros_like(q)
    for head in range(heads):
        at = slice(head * width, (head + 1) * width)
        for t in range(len(q)):
            weights = (k[: t + 1, at] @ q[t, at] / math.sqrt(width)).softmax(0)
            out[t, at] = weights @ v[: t + 1, at]
    return out


@pytest.mark.parametrize(("c", "alpha", "heads"), [(1, 0.3, 2), (3, 0.7, 1), (4, 0.9, 2)])
def test_bsarec_mixes_a_filter_of_the_padded_row_with_causal_attention(c, alpha, heads):
    model = a_bsarec(n_blocks=2, n_heads=heads, alpha=alpha, c=c)
    x, lengths = vectors(4, MAX_LEN), [6, 5, 3, 1]
    real = torch.arange(MAX_LEN) < torch.tensor(lengths)[:, None]
    found = model(x, real)
    for row, length in enumerate(lengths):
        h = layer_norm(math.sqrt(D) * x[row, :length] + model.position[MAX_LEN - length :], model.norm)
        for block in model.blocks:
            padded = torch.zeros(MAX_LEN, D, dtype=torch.float64)
            padded[MAX_LEN - length :] = h
            low = low_pass(padded, c)
            mixed = (low + block.filter.sqrt_beta**2 * (padded - low))[MAX_LEN - length :]
            k, v = linear(h, block.key_value).split(D, -1)
            read = linear(attention(linear(h, block.query), k, v, heads), block.out)
            h = alpha * layer_norm(h + mixed, block.norm_filter) + (1 - alpha) * layer_norm(
                h + read, block.norm_attention
            )
            h = layer_norm(h + linear(gelu(linear(h, block.ffn[0])), block.ffn[2]), block.norm_ffn)
        torch.testing.assert_close(found[row, :length], h)


def test_a_constant_passes_the_filter_and_what_alternates_is_rescaled():
    filter = a_bsarec(c=1).blocks[0].filter
    constant = torch.ones(1, MAX_LEN, D, dtype=torch.float64)
    alternating = constant * torch.tensor([1.0, -1.0]).repeat(MAX_LEN // 2)[:, None]
    close(filter(constant, None), constant, 1e-6)
    close(filter(alternating, None), alternating * filter.sqrt_beta**2, 1e-6)


def test_a_cut_off_above_every_frequency_filters_nothing():
    filter, x = a_bsarec(c=99).blocks[0].filter, vectors(2, MAX_LEN)
    close(filter(x, None), x, 1e-6)


@pytest.mark.parametrize(("alpha", "unused"), [(0.0, "filter.sqrt_beta"), (1.0, "key_value.weight")])
def test_alpha_is_the_share_of_the_filter(alpha, unused):
    model, x = a_bsarec(n_blocks=1, alpha=alpha), vectors(2, MAX_LEN)
    before = model(x, all_real(x))
    model.blocks[0].get_parameter(unused).data.add_(1)
    assert torch.equal(model(x, all_real(x)), before)
    model = a_bsarec(n_blocks=1, alpha=0.5)
    before = model(x, all_real(x))
    model.blocks[0].get_parameter(unused).data.add_(1)
    assert not torch.equal(model(x, all_real(x)), before)


def test_bsarec_reads_nothing_of_what_stands_on_padding():
    model = a_bsarec()
    x, real = vectors(2, 5), torch.arange(5) < torch.tensor([[3], [2]])
    changed = torch.where(real[..., None], x, 7.0)
    torch.testing.assert_close(model(changed, real)[real], model(x, real)[real], rtol=0, atol=0)


def test_bsarec_trains_the_prefixes_that_fmlp_trains():
    items = torch.randint(1, 50, (20, MAX_LEN + 1), generator=torch.Generator().manual_seed(0))
    for cls in (FMLP, BSARec):
        assert not cls.causal
        assert cls.pace == 2
    pairs = [cls(D, MAX_LEN, prefixes=3).views(items, torch.Generator().manual_seed(1)) for cls in (FMLP, BSARec)]
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))
    assert len(pairs[0][0]) == 60


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"n_heads": 3}, "n_heads=3, which does not divide it"),
        ({"alpha": 1.1}, r"alpha is 1.1; it must lie in \[0, 1\]"),
        ({"c": 0}, "c is 0; it must be at least 1"),
        ({"prefixes": 0}, "prefixes is 0"),
        ({"emb_scale": "two"}, "one of: one, sqrt_d"),
    ],
)
def test_bsarec_refuses_what_it_cannot_be(own, message):
    with pytest.raises(ValueError, match=message):
        BSARec(D, MAX_LEN, **own)

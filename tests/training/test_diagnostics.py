"""The collapse measures against a float64 SVD and against tables whose answer is known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.training import diagnostics


def table_of(n=200, d=16, decay=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g) / (1 + torch.arange(d)) ** decay + 3


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 60), d=st.integers(1, 20), decay=st.floats(0, 3), seed=st.integers(0, 1000))
def test_measures_agree_with_the_svd(n, d, decay, seed):
    table = table_of(n, d, decay, seed)
    X = table.double()
    s = torch.linalg.svdvals(X - X.mean(0))
    s = s[s > 1e-7 * s[0]]
    p, energy = s / s.sum(), s**2
    found = diagnostics.collapse(table)
    assert found["effective_rank"] == pytest.approx(math.exp(-(p * p.log()).sum()), rel=1e-6)
    assert found["information_abundance"] == pytest.approx((s.sum() / s[0]).item(), rel=1e-6)
    assert found["participation_ratio"] == pytest.approx((energy.sum() ** 2 / (energy**2).sum()).item(), rel=1e-8)
    assert found["stable_rank"] == pytest.approx((energy.sum() / energy[0]).item(), rel=1e-8)


def test_spectrum_is_normalised_descending_and_that_of_the_svd():
    table = table_of()
    X = table.double()
    s = torch.linalg.svdvals(X - X.mean(0))
    spectrum = diagnostics.spectrum(table)
    assert spectrum.shape == (16,)
    assert spectrum.dtype == torch.float64
    torch.testing.assert_close(spectrum, s / s[0], rtol=1e-9, atol=1e-10)


def test_mean_cosine_is_the_mean_over_all_pairs_of_rows():
    table = table_of(20, 5).double() - 3
    unit = table / table.norm(dim=1, keepdim=True)
    pairs = [(unit[i] @ unit[j]).item() for i in range(20) for j in range(i)]
    assert diagnostics.mean_cosine(table) == pytest.approx(sum(pairs) / len(pairs), rel=1e-9)


def test_zero_rows_do_not_enter_the_mean_cosine():
    table = table_of(20, 5)
    assert diagnostics.mean_cosine(torch.cat([table, torch.zeros(7, 5)])) == pytest.approx(
        diagnostics.mean_cosine(table)
    )


def test_an_isotropic_table_has_full_rank_by_every_measure():
    table = torch.cat([torch.eye(8), -torch.eye(8)]) * 0.05
    found = diagnostics.collapse(table)
    for name in ("effective_rank", "information_abundance", "participation_ratio", "stable_rank"):
        assert found[name] == pytest.approx(8, rel=1e-9)


def test_a_table_on_a_line_has_rank_one_by_every_measure():
    table = torch.randn(50, 1) @ torch.randn(1, 8) + 5
    found = diagnostics.collapse(table.double())
    for name in ("effective_rank", "information_abundance", "participation_ratio", "stable_rank"):
        assert found[name] == pytest.approx(1, abs=1e-4)


def test_a_table_of_equal_rows_has_rank_zero_and_cosine_one():
    table = torch.rand(1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(997, 8)
    found = diagnostics.collapse(table)
    assert found.pop("mean_cosine") == pytest.approx(1)
    assert set(found.values()) == {0.0}
    assert diagnostics.spectrum(table).tolist() == [0.0] * 8


def test_measures_do_not_depend_on_the_scale_of_the_table():
    big, small = diagnostics.collapse(table_of() * 1e6), diagnostics.collapse(table_of() * 1e-6)
    assert big == pytest.approx(small, rel=1e-5)


def test_a_table_that_is_not_finite_is_refused():
    table = table_of()
    table[3, 2] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        diagnostics.collapse(table)


def test_components_count_what_holds_a_share_of_the_variance():
    s = torch.tensor([3.0, 2.0, 1.0, 0.0], dtype=torch.float64)  # energy 9, 4, 1, 0 of 14
    assert [diagnostics.components(s, share) for share in (0.5, 0.9, 0.93, 0.99)] == [1.0, 2.0, 3.0, 3.0]
    assert diagnostics.components(torch.zeros(3), 0.9) == 0.0


def test_alignment_and_uniformity_are_the_published_sums_over_pairs():
    x, y = table_of(30, 5, seed=1) - 3, table_of(30, 5, seed=2) - 3
    u, v = ([row.double() / row.double().norm() for row in z] for z in (x, y))
    distances = [float(((a - b) ** 2).sum()) for a, b in zip(u, v, strict=True)]
    pairs = [math.exp(-2 * float(((u[i] - u[j]) ** 2).sum())) for i in range(30) for j in range(30) if i != j]
    assert diagnostics.alignment(x, y) == pytest.approx(sum(distances) / 30, rel=1e-9)
    assert diagnostics.uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-9)


def test_directions_that_agree_are_aligned_and_not_uniform_whatever_their_lengths():
    one = torch.ones(10, 4) * torch.arange(1, 11)[:, None]
    assert diagnostics.alignment(one, 7 * one) == pytest.approx(0, abs=1e-12)
    assert diagnostics.alignment(one, -one) == pytest.approx(4, abs=1e-12)
    assert diagnostics.uniformity(one) == pytest.approx(0, abs=1e-12)
    assert diagnostics.uniformity(torch.zeros(5, 3)) == 0.0


def test_uniformity_of_many_rows_takes_an_even_sample_of_them():
    many = table_of(3 * diagnostics.SAMPLE, 4) - 3
    assert len(diagnostics.sample(many)) == diagnostics.SAMPLE
    assert diagnostics.uniformity(many) == diagnostics.uniformity(many[::3])


def text_of(n=40, r=12, seed=3):
    """A centred text matrix (n, r) and its left singular vectors, values and right vectors."""
    E = torch.randn(n, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    E = (E - E.mean(0)) * torch.logspace(0, -1, r)
    return E, *torch.linalg.svd(E, full_matrices=False)


@pytest.mark.parametrize("d", [0, 1, 5, 12, 20])
def test_mass_beyond_is_what_the_best_approximation_of_rank_d_loses(d):
    E, U, S, V = text_of()
    kept = (U[:, :d] * S[:d]) @ V[:d]
    assert diagnostics.mass_beyond(S, d) == pytest.approx(((E - kept).norm() / E.norm()).square().item(), abs=1e-12)


def test_mass_beyond_of_nothing_is_nothing():
    assert diagnostics.mass_beyond(torch.zeros(3), 1) == 0.0
    assert diagnostics.mass_beyond(torch.zeros(0), 1) == 0.0


@pytest.mark.parametrize("d", [2, 6])
def test_text_use_is_the_split_of_a_tables_variance_by_least_squares(d):
    """By regression instead of projection: what the leading components explain, what all of them do, what is left."""
    E, U, S, _ = text_of()
    table = E @ torch.randn(12, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    table += 0.5 * torch.randn(40, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64) + 3
    X = table - table.mean(0)

    def left(columns):
        return (X - columns @ torch.linalg.lstsq(columns, X).solution).square().sum() / X.square().sum()

    leading, whole = left(U[:, :d] * S[:d]).item(), left(E).item()
    found = diagnostics.text_use(table, U, d)
    assert found["table_mass_outside_text"] == pytest.approx(whole, rel=1e-9)
    assert found["table_mass_beyond_d"] == pytest.approx(leading - whole, rel=1e-9)
    assert 0.01 < whole < 0.6
    assert 0.01 < leading - whole < 0.8


def test_tables_of_leading_trailing_and_foreign_directions_say_so():
    _, U, S, _ = text_of()
    leading, trailing = U[:, :4] * S[:4], U[:, 4:9]
    foreign = torch.linalg.qr(torch.cat([torch.ones(40, 1), U, torch.randn(40, 3)], 1))[0][:, 13:]
    for table, beyond, outside in ((leading, 0, 0), (trailing, 1, 0), (foreign, 0, 1)):
        found = diagnostics.text_use(table + 2, U, 4)
        assert found == {
            "table_mass_beyond_d": pytest.approx(beyond, abs=1e-9),
            "table_mass_outside_text": pytest.approx(outside, abs=1e-9),
        }


def test_text_use_is_not_told_without_text_without_variance_or_at_too_high_a_cost(monkeypatch):
    _, U, _, _ = text_of()
    table = table_of(40, 5)
    assert diagnostics.text_use(table, U[:, :0], 3) == {}
    assert diagnostics.text_use(torch.ones(40, 5), U, 3) == {}
    assert diagnostics.text_use(table, U, 3) != {}
    monkeypatch.setattr(diagnostics, "PROJECTED", 40 * 12 * 5 - 1)
    assert diagnostics.text_use(table, U, 3) == {}

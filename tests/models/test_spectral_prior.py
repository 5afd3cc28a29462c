"""Our spectral prior: its table in float64, and what the residual of an item may do."""

import pytest
import torch
from synthetic_spectra import popular, toy_spectrum

from adapters.spectral_prior import SpectralPrior
from adapters.svd_whiten import SVDWhiten

D = 8


@pytest.fixture
def spectrum():
    """Item i has i mod 7 training events; the last one of 60 has no text."""
    return popular(toy_spectrum(missing=(59,)), [i % 7 for i in range(60)])


@pytest.mark.parametrize("tail", [True, False])
def test_it_starts_as_whitened_truncation(spectrum, tail):
    start = SpectralPrior(spectrum, D, kappa=3.0, tail=tail)()
    torch.testing.assert_close(start, 0.05 * SVDWhiten(spectrum, D)(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kappa", [0.0, 2.5])
@pytest.mark.parametrize("tail", [True, False])
def test_the_table_is_the_mapped_text_and_the_residual_by_share_of_events(spectrum, kappa, tail):
    adapter = SpectralPrior(spectrum, D, kappa=kappa, tail=tail)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    x = spectrum.U.double() * spectrum.unit
    expected = 0.05 * x[:, : len(adapter.map)] @ adapter.map.double()
    for i in range(spectrum.n):
        n, text = i % 7, i < spectrum.n - 1
        expected[i] += (n / (n + kappa) if kappa and text else 1.0) * adapter.residual[i].double()
    torch.testing.assert_close(adapter().double(), expected, rtol=1e-5, atol=1e-5)
    ids = torch.tensor([3, 0, spectrum.n - 1])
    torch.testing.assert_close(adapter.rows(ids).double(), expected[ids], rtol=1e-5, atol=1e-5)


def test_a_step_of_adam_moves_an_item_in_proportion_to_its_share(spectrum):
    adapter = SpectralPrior(spectrum, D, kappa=3.0)
    adapter.map.requires_grad_(False)
    start = adapter().detach()
    optimizer = torch.optim.Adam([adapter.residual], lr=1e-2)
    torch.manual_seed(0)
    (adapter() * torch.randn(spectrum.n, D)).sum().backward()
    optimizer.step()
    moved = (adapter().detach() - start).abs()
    for i in range(spectrum.n - 1):
        n = i % 7
        torch.testing.assert_close(moved[i], torch.full((D,), 1e-2 * n / (n + 3)), rtol=1e-3, atol=1e-7)


def test_it_refuses_more_columns_than_the_text_has(spectrum):
    with pytest.raises(ValueError, match="starts at d=500 components, but the text has rank"):
        SpectralPrior(spectrum, 500)

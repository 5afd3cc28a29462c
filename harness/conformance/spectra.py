"""Synthetic catalogues for tests of adapters, backbones and losses."""

from dataclasses import replace

import torch
from torch import Tensor

from adapters._base import Interactions, Spectrum


def spectrum_of(E: Tensor, *, flips: Tensor | None = None, tolerance: float = 1e-6) -> Spectrum:
    """The spectral basis of E (N, D) by a float64 SVD of its centred rows; zero rows are items without text.

    `flips`: (r,) of +-1, other signs for the columns of U and V.
    """
    has_text = (E != 0).any(1)
    mean = E[has_text].double().mean(0)
    X = (E.double() - mean) * has_text[:, None]
    U, S, Vh = torch.linalg.svd(X, full_matrices=False)
    r = int((tolerance * S[0] < S).sum())
    U, S, V = U[:, :r], S[:r], Vh[:r].T
    sign = V.gather(0, V.abs().argmax(0, keepdim=True)).sign() * (1 if flips is None else flips[:r])
    U, S, V = (U * sign * has_text[:, None]).float(), S.float(), (V * sign).float()
    return Spectrum(U, S, V, mean.float(), E, toy_interactions(len(E)))


def toy_interactions(n: int, users: int = 30, seed: int = 0) -> Interactions:
    """Histories of 2 to 9 of n items, low indices more often than high ones; user 3 has none."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 10, (users,), generator=g)
    lengths[3] = 0
    items = (torch.rand(int(lengths.sum()), generator=g).square() * n).long()
    return Interactions(items, torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]))


def toy_spectrum(
    n: int = 60, D: int = 12, *, missing: tuple[int, ...] = (), flips: Tensor | None = None, seed: int = 0
) -> Spectrum:
    """n anisotropic rows of width D: a common mean and columns of decaying size; rows `missing` are zero."""
    g = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(D, D, generator=g))
    E = torch.randn(n, D, generator=g) / (1 + torch.arange(D)) @ rotation + torch.randn(D, generator=g)
    E[list(missing)] = 0
    return spectrum_of(E, flips=flips)


def spectrum_of_variants(variants: Tensor) -> Spectrum:
    """The spectrum of several texts an item, (M, N, D): of the mean of the rows that are not zero."""
    counts = (variants != 0).any(2).sum(0).clamp_min(1)
    E = (variants.double().sum(0) / counts[:, None]).float()
    return replace(spectrum_of(E), variants=variants)


def toy_variants(n: int = 60, D: int = 12, M: int = 3, *, seed: int = 0) -> Spectrum:
    """Items with M texts; but item 1 lacks the first, item 2 all but the first, and item 3 all of them."""
    g = torch.Generator().manual_seed(seed + 100)
    variants = toy_spectrum(n, D, seed=seed).E + 0.3 * torch.randn(M, n, D, generator=g)
    variants[0, 1], variants[1:, 2], variants[:, 3] = 0, 0, 0
    return spectrum_of_variants(variants)

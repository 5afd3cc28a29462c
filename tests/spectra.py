"""Made-up catalogues for the tests of the model rooms."""

import torch
from torch import Tensor

from adapters._base import Spectrum


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
    return Spectrum((U * sign * has_text[:, None]).float(), S.float(), (V * sign).float(), mean.float(), E)


def toy_spectrum(
    n: int = 60, D: int = 12, *, missing: tuple[int, ...] = (), flips: Tensor | None = None, seed: int = 0
) -> Spectrum:
    """n anisotropic rows of width D: a common mean and columns of decaying size; rows `missing` are zero."""
    g = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(D, D, generator=g))
    E = torch.randn(n, D, generator=g) / (1 + torch.arange(D)) @ rotation + torch.randn(D, generator=g)
    E[list(missing)] = 0
    return spectrum_of(E, flips=flips)

"""Collapse measures of an item table: how many of its d dimensions carry anything.

All but the cosine are functions of the singular values of the column-centred table, taken from its d x d Gram matrix
in float64: O(N d^2), and equal to the SVD's down to 1e-8 of the largest. High rank is a sign of health, no proof of
quality: whitened truncation has full rank and is a weak model.
"""

from __future__ import annotations

import torch
from torch import Tensor


def collapse(table: Tensor) -> dict[str, float]:
    """Every measure of a table (N, d) by name. Raises ValueError if an entry is not finite."""
    s = singular_values(table)
    return {
        "effective_rank": effective_rank(s),
        "information_abundance": information_abundance(s),
        "participation_ratio": participation_ratio(s),
        "stable_rank": stable_rank(s),
        "mean_cosine": mean_cosine(table),
    }


def spectrum(table: Tensor) -> Tensor:
    """Singular values of the centred table (N, d) over the largest: (d,) float64, descending from 1 (zeros if all rows
    are equal)."""
    s = singular_values(table)
    return s / s[0] if s[0] > 0 else s


def singular_values(table: Tensor) -> Tensor:
    """Singular values of the column-centred table (N, d): (d,) float64, descending, on the table's device.

    What the Gram route cannot tell from 0, below about 1e-8 of the largest, is 0. Raises ValueError if an entry is
    not finite.
    """
    X = table.detach().double()
    if not torch.isfinite(X).all():
        raise ValueError("the item table holds values that are not finite")
    center = X.mean(0)
    X = X - center
    energy = torch.linalg.eigvalsh(X.T @ X).flip(0)
    rounding = max(X.shape) * torch.finfo(torch.float64).eps
    floor = rounding * torch.maximum(energy[0], rounding * center.square().sum())  # of the product, of the centring
    return torch.where(energy > floor, energy, 0).sqrt()


def effective_rank(s: Tensor) -> float:
    """exp of the entropy of s / sum(s) (Roy & Vetterli 2007); from 1 to d, 0 if there is no variance. s: (d,)."""
    p = s / s.sum()
    return torch.exp(-torch.xlogy(p, p).sum()).item() if s[0] > 0 else 0.0


def information_abundance(s: Tensor) -> float:
    """sum(s) / s_1 (Guo et al. 2023, arXiv 2310.04400); from 1 to d, 0 if there is no variance. s: (d,) descending."""
    return (s.sum() / s[0]).item() if s[0] > 0 else 0.0


def participation_ratio(s: Tensor) -> float:
    """(sum lambda)^2 / sum lambda^2 with lambda = s^2 (Gao et al. 2017); from 1 to d, 0 if there is no variance.

    IsoScore (Rudman et al. 2022, arXiv 2108.07344) is (PR - 1) / (d - 1).
    """
    energy = (s / s[0]).square()
    return (energy.sum().square() / energy.square().sum()).item() if s[0] > 0 else 0.0


def stable_rank(s: Tensor) -> float:
    """sum(s^2) / s_1^2 (Rudelson & Vershynin 2007); from 1 to d, 0 if there is no variance. s: (d,) descending."""
    return (s / s[0]).square().sum().item() if s[0] > 0 else 0.0


def mean_cosine(table: Tensor) -> float:
    """Mean cosine over all pairs of different rows of (N, d), zero rows left out; 0 if no pair is left. O(N d)."""
    rows = table.detach().double()
    norms = rows.norm(dim=1, keepdim=True)
    units = (rows / norms)[norms[:, 0] > 0]
    n = len(units)
    return ((units.sum(0).square().sum() - n) / (n * (n - 1))).item() if n > 1 else 0.0

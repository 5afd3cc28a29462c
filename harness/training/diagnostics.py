"""Collapse measures of an item table: how many of its d dimensions carry variance.

Most are functions of the singular values of the column-centred table, computed from its d x d Gram matrix in float64:
O(N d^2), and equal to those of an SVD down to 1e-8 of the largest. High rank is a sign of health, not proof of quality:
whitened truncation has full rank and is a weak model. Alignment and uniformity compare directions: those of states with
those of the items that came next.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SAMPLE = 4096  # max rows from which pairs are formed
PROJECTED = 2e10  # max multiplications to project a table onto the text: one or two seconds of a core


def collapse(table: Tensor) -> dict[str, float]:
    """All measures of a table (N, d) by name. Raises ValueError if an entry is not finite."""
    s = singular_values(table)
    return {
        "effective_rank": effective_rank(s),
        "information_abundance": information_abundance(s),
        "participation_ratio": participation_ratio(s),
        "stable_rank": stable_rank(s),
        "components_90": components(s, 0.90),
        "components_99": components(s, 0.99),
        "mean_cosine": mean_cosine(table),
        "uniformity": uniformity(table),
    }


def spectrum(table: Tensor) -> Tensor:
    """Singular values of the centred table (N, d), divided by the largest: (d,) float64, descending from 1; zeros if
    all rows are equal."""
    s = singular_values(table)
    return s / s[0] if s[0] > 0 else s


def singular_values(table: Tensor) -> Tensor:
    """Singular values of the column-centred table (N, d): (d,) float64, descending, on the table's device.

    Values below about 1e-8 of the largest, which the Gram matrix cannot resolve, are set to 0. Raises ValueError if an
    entry is not finite.
    """
    X = table.detach().double()
    if not torch.isfinite(X).all():
        raise ValueError("the item table has values that are not finite")
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


def components(s: Tensor, share: float) -> float:
    """Number of leading components with this share of the variance; 0 if there is no variance. s: (d,) descending."""
    energy = s.square().cumsum(0)
    return float((energy < share * energy[-1]).sum().item() + 1) if s[0] > 0 else 0.0


def mass_beyond(s: Tensor, d: int) -> float:
    """Share of the variance lost by keeping only the d leading components. s: (r,) descending."""
    energy = s.double().square()
    return (energy[d:].sum() / energy.sum()).item() if len(s) and energy[0] > 0 else 0.0


def text_use(table: Tensor, U: Tensor, d: int) -> dict[str, float]:
    """Split the variance of a table (N, k) along the text's left singular vectors U (N, r).

    ``table_mass_beyond_d``: share along the text's directions after the d leading ones; ``table_mass_outside_text``:
    share along none of them. Both are 0 for a table made only of the d leading components. Empty if there is no text
    or the product would cost more than `PROJECTED` multiplications.
    """
    if not U.shape[1] or U.shape[0] * U.shape[1] * table.shape[1] > PROJECTED:
        return {}
    X = table.detach().double()
    X = (X - X.mean(0)).to(U.dtype)
    whole = X.square().sum()
    if not whole > 0:
        return {}
    along = (U.T @ X).square().sum(1)
    outside = (1 - along.sum() / whole).clamp_min(0)
    return {"table_mass_beyond_d": (along[d:].sum() / whole).item(), "table_mass_outside_text": outside.item()}


def mean_cosine(table: Tensor) -> float:
    """Mean cosine over all pairs of different rows of (N, d), without zero rows; 0 if no pair is left. O(N d)."""
    rows = table.detach().double()
    norms = rows.norm(dim=1, keepdim=True)
    units = (rows / norms)[norms[:, 0] > 0]
    n = len(units)
    return ((units.sum(0).square().sum() - n) / (n * (n - 1))).item() if n > 1 else 0.0


def alignment(x: Tensor, y: Tensor) -> float:
    """Mean squared distance between the directions of x and y, row by row, (n, d) each: from 0 (all agree) to 4.

    Wang & Isola (2020, arXiv 2005.10242), alpha = 2. A zero row has no direction and stays zero.
    """
    return (_directions(x) - _directions(y)).square().sum(1).mean().item()


def uniformity(x: Tensor) -> float:
    """ln of the mean of exp(-2 |u - v|^2) over pairs of directions u, v of different rows of x (n, d), sampled to
    `SAMPLE` rows: 0 if all agree, about -4 if they spread over the sphere.

    Wang & Isola (2020), t = 2. Zero rows are excluded; 0 if no pair is left.
    """
    units = _directions(sample(x))
    units = units[units.square().sum(1) > 0.5]
    n = len(units)
    if n < 2:
        return 0.0
    closeness = (4 * (units @ units.T - 1)).exp()  # |u - v|^2 = 2 - 2 u.v
    return ((closeness.sum() - closeness.diagonal().sum()) / (n * (n - 1))).log().item()


def sample(x: Tensor) -> Tensor:
    """Up to `SAMPLE` evenly spaced rows of x."""
    return x[:: -(-len(x) // SAMPLE)] if len(x) else x


def _directions(x: Tensor) -> Tensor:
    return F.normalize(x.detach().double(), dim=1)

"""SpecTran: sparse attention over the whole spectrum of the text, plus a spectral position encoding.

Source: SpecTran (arXiv 2601.21986, 2026): E_s = U [phi(Q K^T) + A]^T, with U the left singular vectors, phi a
Softshrink with a learnable threshold, and A diagonal, a Taylor polynomial of the singular values on the first d
components. The paper leaves scaling, centring and initialisation open; our choices are stated below.

Letters: s_j = S_j / S_0; M = P + A the mixing matrix (d, r), P = phi(Q K^T / sqrt(d_k)), Q (d, d_k), K (r, d_k),
A_ii = sum_t beta_t s_i^t. M is the same for all items, so the table is one matrix product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Count, Degree, Kept, NonNegative, Phi, Pos, Positive, Spectrum, Start, Threshold

PHI = ("softshrink", "softmax", "identity", "none")
POS = ("taylor", "free_diag", "none")
START = ("whiten", "plain")


class SpecTran(Adapter):
    """T = sqrt(N_text - 1) U diag(s)^``value_power`` M^T, (N, d). The paper's overall scale (gamma) is the seam's gain.

    ``phi``: softshrink | softmax (the paper's ablation) | identity (no sparsity) | none (no attention).
    ``pos``: taylor, of degree ``degree`` | free_diag (d free weights) | none. ``start``: beta starts as (1, 0, ...)
    for ``whiten``, A_ii = 1, or (0, 1, 0, ...) for ``plain``, A_ii = s_i. A alone is then whitened or plain truncation
    at ``value_power`` 0; each unit of it multiplies component i by a further s_i.
    ``c``, ``rho``: scores start as about N(0, s0^2) with threshold lambda = c s0, and s0 is set so that the rows of P
    have root mean square norm rho for large d_k. Under ``whiten`` those of A have 1, so that P is too small to drown A;
    under ``plain`` they have the root mean square of s_1 .. s_d, which can be below rho: P then outweighs A. Under
    softmax the rows of P start near uniform, with norm r^(-1/2) whatever rho is: it scales the start of the scores.
    Rows differ, the more the smaller d_k is. A share 2 Phi(-c) of the scores starts above the threshold, .3 % at c = 3;
    with none there, the gradients of Q, K and lambda would stay zero, so greater c are refused. lambda is trained in
    units of s0 and used by its absolute value: it stays positive, and an optimiser step is small against the scores.
    ``lam_learnable`` False keeps it fixed.
    At ``c`` = 0 lambda starts at 0, where the absolute value has gradient 0, and stays there whatever
    ``lam_learnable``: the attention equals that of `spectran_dense`. Every c > 0 is trained.
    ``rank``: number of leading components used, None for all.
    Raises ValueError if a switch is unknown, c is above 3, d exceeds the number of components, neither P nor A is left,
    or ``start`` is plain at degree 0.
    """

    basis: Tensor
    powers: Tensor
    values: Tensor
    units: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        phi: Phi = "softshrink",
        pos: Pos = "taylor",
        degree: Degree = 2,
        start: Start = "whiten",
        value_power: NonNegative = 0.0,
        d_k: Count = 128,
        c: Threshold = 1.0,
        rho: Positive = 0.3,
        lam_learnable: bool = True,
        rank: Kept | None = None,
    ) -> None:
        super().__init__(spectrum, d)
        r = spectrum.rank if rank is None else min(rank, spectrum.rank)
        _check(phi, pos, start, degree)
        if d > r:
            raise ValueError(f"SpecTran needs at least d={d} components, but there are {r}")
        self.phi, self.pos, self.r = phi, pos, r
        s = spectrum.S[:r] / spectrum.S[0]
        self.frozen("basis", spectrum.U[:, :r])
        self.frozen("values", spectrum.unit * s**value_power)
        if phi != "none":
            self._init_attention(d_k, c if phi == "softshrink" else 0.0, rho, lam_learnable)
        if pos == "taylor":
            self.frozen("powers", s[:d, None] ** torch.arange(degree + 1))
            self.beta = nn.Parameter(torch.eye(degree + 1)[START.index(start)])
        elif pos == "free_diag":
            self.diagonal = nn.Parameter(s[:d] ** START.index(start))

    def _init_attention(self, d_k: int, c: float, rho: float, lam_learnable: bool) -> None:
        if c > 3:
            raise ValueError(f"c = {c:g} leaves too few scores above the threshold to train the attention: at most 3")
        self.s0 = rho / math.sqrt(self.r * softshrink_energy(c))
        self.Q = nn.Parameter(torch.randn(self.d, d_k) * math.sqrt(self.s0))
        self.K = nn.Parameter(torch.randn(self.r, d_k) * math.sqrt(self.s0))
        if self.phi == "softshrink":
            self.threshold = nn.Parameter(torch.tensor(float(c)), requires_grad=lam_learnable)

    @property
    def lam(self) -> Tensor:
        """The Softshrink threshold lambda >= 0, shape ()."""
        return self.s0 * self.threshold.abs()

    def attention(self) -> Tensor:
        """P, (d, r)."""
        if self.phi == "none":
            return self.basis.new_zeros(self.d, self.r)
        scores = self.Q @ self.K.T / math.sqrt(self.K.shape[1])
        if self.phi == "softshrink":
            return scores.sign() * (scores.abs() - self.lam).relu()  # F.softshrink cannot train its threshold
        return scores.softmax(1) if self.phi == "softmax" else scores

    def position(self) -> Tensor:
        """A, (d, r), zero off the diagonal."""
        if self.pos == "none":
            return self.basis.new_zeros(self.d, self.r)
        diagonal = self.powers @ self.beta if self.pos == "taylor" else self.diagonal
        return F.pad(torch.diag(diagonal), (0, self.r - self.d))

    def mixing(self) -> Tensor:
        """M = P + A, (d, r)."""
        return self.attention() + self.position()

    def weights(self) -> Tensor:
        """The factor on the rows of U, sqrt(N_text - 1) diag(s)^value_power M^T, (r, d)."""
        return (self.mixing() * self.values).T

    def forward(self) -> Tensor:
        return self.basis @ self.weights()

    def rows(self, ids: Tensor) -> Tensor:
        return self.basis[ids] @ self.weights()

    def linear_map(self) -> tuple[Tensor, Tensor]:
        weights = self.weights().detach().cpu() / self.spectrum.unit
        return self.spectrum.affine("whiten", F.pad(weights, (0, 0, 0, self.spectrum.rank - self.r)))

    @torch.no_grad()
    def active_fraction(self) -> float:
        """Share of nonzero entries in P; near 0 the attention can no longer learn."""
        return (self.attention() != 0).float().mean().item()

    @torch.no_grad()
    def diagnostics(self) -> dict[str, float]:
        """``active_fraction``; ``subordinate_mass``, the share of sum M^2 beyond component d (the paper's case study);
        ``attention_share``, ||P||^2 / (||P||^2 + ||A||^2); ``lambda`` with Softshrink; ``beta_<t>`` with Taylor.
        """
        energy, mass = self.mixing().square(), [m.square().sum() for m in (self.attention(), self.position())]
        measures = {
            "active_fraction": self.active_fraction(),
            "subordinate_mass": (energy[:, self.d :].sum() / energy.sum()).item(),
            "attention_share": (mass[0] / (mass[0] + mass[1])).item(),
        }
        if self.phi == "softshrink":
            measures["lambda"] = self.lam.item()
        if self.pos == "taylor":
            measures |= {f"beta_{t}": value for t, value in enumerate(self.beta.tolist())}
        return measures


def softshrink_energy(c: float) -> float:
    """E[phi(z)^2] for z ~ N(0, 1) and phi a Softshrink of threshold c: 2 [(1 + c^2) Phi(-c) - c pdf(c)].

    >>> round(softshrink_energy(0.0), 4), round(softshrink_energy(1.0), 4), round(softshrink_energy(2.0), 4)
    (1.0, 0.1507, 0.0115)
    """
    tail = math.erfc(c / math.sqrt(2)) / 2
    return 2 * ((1 + c * c) * tail - c * math.exp(-c * c / 2) / math.sqrt(2 * math.pi))


def _check(phi: str, pos: str, start: str, degree: int) -> None:
    for name, value, allowed in (("phi", phi, PHI), ("pos", pos, POS), ("start", start, START)):
        if value not in allowed:
            raise ValueError(f"{name} is '{value}'; it must be one of: {', '.join(allowed)}")
    if phi == "none" and pos == "none":
        raise ValueError("SpecTran needs attention (phi) or a position encoding (pos), but both are 'none'")
    if pos == "taylor" and degree < START.index(start):
        raise ValueError(f"start is 'plain', which needs a Taylor degree of at least 1, but degree is {degree}")

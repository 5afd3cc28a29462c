"""Losses and maps shared by methods that align two representations of the same items, one of them text.

Sources: the maps and InfoNCE of RLMRec (Ren et al. 2024, arXiv 2310.15950); the factorised linear map and the
soft-target loss of LLM-ESR (Liu et al. 2024, arXiv 2405.20646) and LLMEmb (Liu et al. 2024, arXiv 2409.19925).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LENGTH = 3.0  # of rows in `soft_contrast`: it then aligns at every tau from 1 to 10; at length 1 it has little effect


def info_nce(x: Tensor, y: Tensor, positive: Tensor, tau: float) -> Tensor:
    """Return the mean over p of -log exp(cos(x_p, y_positive(p)) / tau) / sum_j exp(cos(x_p, y_j) / tau), shape ().

    x: (p, D); y: (m, D), the candidates; positive: (p,) int64 in [0, m).
    """
    return F.cross_entropy(F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / tau, positive)


def soft_contrast(x: Tensor, y: Tensor, tau: float) -> Tensor:
    """Symmetric contrastive loss with soft targets between rows x and y (m, d) of the same m items, shape ().

    The loss of the reference code (`Contrastive_Loss2` of LLM-ESR and LLMEmb): logits X Y^T / tau, targets
    softmax((X X^T + Y Y^T) / 2 * tau), through which gradients flow, and the mean of two cross-entropies, of logits
    with targets and of their transposes. Dot products are not normalised: with rows of length 1 the targets are nearly
    uniform over a few hundred items, and the loss no longer aligns x with y. Pass rows of length about `LENGTH`.
    The targets of a row sum to 1, those of a column do not, so the order of x and y matters.
    """
    targets = ((x @ x.T + y @ y.T) / 2 * tau).softmax(1)
    logits = x @ y.T / tau
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


def perceptron(width: int, out: int) -> nn.Sequential:
    """RLMRec's map: one hidden layer of width (width + out) // 2, LeakyReLU, Xavier-uniform weights."""
    hidden = (width + out) // 2
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, out)
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.LeakyReLU(), second)


def two_linear(width: int, d: int) -> nn.Sequential:
    """The map of LLM-ESR and LLMEmb: two linear layers without an activation between them, hidden width half that of
    the text, Xavier-normal weights."""
    hidden = max(width // 2, 1)
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, d)
    for layer in (first, second):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, second)


def start_length(features: Tensor, d: int) -> float:
    """Root mean square length of the rows that `two_linear` initially computes from these features (N, width), zero
    rows (items without text) left out.

    An expectation over Xavier-normal weights, not the value of one draw, so a checkpoint need not store it. Positive.
    """
    width = features.shape[1]
    hidden = max(width // 2, 1)
    rows = features[has_text(features)]
    size = max(rows.square().sum(1).mean().item(), 1e-12) if len(rows) else 1e-12
    return (d * size * 2 / (width + hidden) * hidden * 2 / (hidden + d)) ** 0.5


def has_text(E: Tensor) -> Tensor:
    """Which items have text, (N,) bool; an alignment with text can only use these."""
    return (E != 0).any(1)


def users_of(offsets: Tensor) -> Tensor:
    """The user of each event, (events,) int64, from the offsets of users' events, (users + 1,) int64."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())

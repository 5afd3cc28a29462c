"""What methods share that align two descriptions of the same items: losses between them, and maps from text.

Sources: the maps and InfoNCE of RLMRec (Ren et al. 2024, arXiv 2310.15950); the factorised linear map and the
soft-target loss of LLM-ESR (Liu et al. 2024, arXiv 2405.20646) and LLMEmb (Liu et al. 2024, arXiv 2409.19925).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def info_nce(x: Tensor, y: Tensor, positive: Tensor, tau: float) -> Tensor:
    """Mean over p of -log exp(cos(x_p, y_positive(p)) / tau) / sum_j exp(cos(x_p, y_j) / tau), shape ().

    x: (p, D); y: (m, D), the candidates; positive: (p,) int64 in [0, m).
    """
    return F.cross_entropy(F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / tau, positive)


def soft_contrast(x: Tensor, y: Tensor, tau: float) -> Tensor:
    """Symmetric contrastive loss with soft targets between rows x and y (m, d) of the same m items, shape ().

    Logits X Y^T / tau and, column-wise, their transpose; targets softmax((X X^T + Y Y^T) / 2 * tau), through which the
    gradient goes as in the reference code; mean of the cross-entropies of the two directions. Ours: rows of length 1,
    so that tau means the same whatever the scale of a table (the reference takes plain dot products); and the same
    targets in both directions, as X X^T + Y Y^T is symmetric (the reference transposes them after the softmax, where
    their rows no longer sum to 1).
    """
    x, y = F.normalize(x, dim=1), F.normalize(y, dim=1)
    targets = ((x @ x.T + y @ y.T) / 2 * tau).softmax(1)
    logits = x @ y.T / tau
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def perceptron(width: int, out: int) -> nn.Sequential:
    """RLMRec's map: one hidden layer, halfway between the two widths, LeakyReLU, Xavier-uniform weights."""
    hidden = (width + out) // 2
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, out)
    for layer in (first, second):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, nn.LeakyReLU(), second)


def two_linear(width: int, d: int) -> nn.Sequential:
    """The map of LLM-ESR and LLMEmb: two linear layers with nothing in between, hidden width half that of the text,
    Xavier-normal weights."""
    hidden = max(width // 2, 1)
    first, second = nn.Linear(width, hidden), nn.Linear(hidden, d)
    for layer in (first, second):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(first, second)


def described(E: Tensor) -> Tensor:
    """Which items have text, (N,) bool: those that an alignment with text says something about."""
    return (E != 0).any(1)


def users_of(offsets: Tensor) -> Tensor:
    """The user of each event, (events,) int64, from where each user's events begin, (users + 1,) int64."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())

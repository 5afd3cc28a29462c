"""What methods share that align two descriptions of the same items: losses between them, and maps from text.

Sources: the maps and InfoNCE of RLMRec (Ren et al. 2024, arXiv 2310.15950); the factorised linear map and the
soft-target loss of LLM-ESR (Liu et al. 2024, arXiv 2405.20646) and LLMEmb (Liu et al. 2024, arXiv 2409.19925).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LENGTH = 3.0  # of rows in `soft_contrast`: there it aligns at every tau from 1 to 10, at length 1 it hardly pulls


def info_nce(x: Tensor, y: Tensor, positive: Tensor, tau: float) -> Tensor:
    """Mean over p of -log exp(cos(x_p, y_positive(p)) / tau) / sum_j exp(cos(x_p, y_j) / tau), shape ().

    x: (p, D); y: (m, D), the candidates; positive: (p,) int64 in [0, m).
    """
    return F.cross_entropy(F.normalize(x, dim=1) @ F.normalize(y, dim=1).T / tau, positive)


def soft_contrast(x: Tensor, y: Tensor, tau: float) -> Tensor:
    """Symmetric contrastive loss with soft targets between rows x and y (m, d) of the same m items, shape ().

    The loss of the reference code (`Contrastive_Loss2` of LLM-ESR and LLMEmb): logits X Y^T / tau, targets
    softmax((X X^T + Y Y^T) / 2 * tau), through which the gradient goes, and the mean of the cross-entropies of logits
    and targets and of their transposes. Dot products are plain: rows of length 1 make the targets nearly uniform over
    a few hundred items, and the loss then no longer aligns x with y. Give it rows of about `LENGTH`.
    """
    targets = ((x @ x.T + y @ y.T) / 2 * tau).softmax(1)
    logits = x @ y.T / tau
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


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


def start_length(features: Tensor, d: int) -> float:
    """The root mean square length of the rows that `two_linear` starts with on these features (N, width): that of
    Xavier-normal weights, not of one draw, so that it is no part of what training has to save. Positive."""
    width = features.shape[1]
    hidden = max(width // 2, 1)
    size = max(features.square().sum(1).mean().item(), 1e-12)
    return (d * size * 2 / (width + hidden) * hidden * 2 / (hidden + d)) ** 0.5


def described(E: Tensor) -> Tensor:
    """Which items have text, (N,) bool: those that an alignment with text says something about."""
    return (E != 0).any(1)


def users_of(offsets: Tensor) -> Tensor:
    """The user of each event, (events,) int64, from where each user's events begin, (users + 1,) int64."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1), offsets.diff())

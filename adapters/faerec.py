"""FAERec: an ID embedding started at the text's principal components, joined with mapped text by a gate per dimension,
and aligned with it item by item and feature by feature.

Source: SIGIR 2026, arXiv 2604.03688 (Fusion and Alignment Enhancement with Large Language Models for Tail-item
Sequential Recommendation) and its code. Letters: v_i, the ID vector, starts at the PCA scores of the text; t_i =
MLP(x_i), one hidden layer of half the text's width, GELU, dropout. The fused vector is g * v + (1 - g) * t with
g = sigmoid(W_2 Dropout(GELU(W_1 [v, t] + b_1)) + b_2). Added to the loss: ``weight`` (w L_item + (1 - w) L_feature).

- L_item: InfoNCE at temperature tau by cosine; the anchor is v_i, the candidates are the t_j of the batch.
- L_feature: sum_a (C_aa - 1)^2 + 0.005 sum_{a != b} C_ab^2, with C the correlations of the columns of v with those of t
  over the batch (the loss of Barlow Twins). It is computed for items of at least the batch's median popularity, and for
  the others, and added.
- w = w_min + (1 - w_min) (1 + cos(2 pi epoch / period)) / 2: the curriculum, which starts at the item level.

The batch is every event of the step's sequences (in the code without the last, which is only a target) and as many
uniformly drawn items, repetitions included. Here each distinct item is computed once and weighted by how often it
occurs: the same losses, with one draw of dropout per item.

Ours. The fused vector is both read by the encoder and scored against. In the code the encoder reads it, but training
scores against v, and ranking against LN(v + t). Only the encoder knows the positions, so the gate reads vectors without
them; the code adds positions and applies dropout before the gate, and a layer norm after it. v starts at standard
deviation 0.05 and t at about that size: the MLP reads text scaled to unit mean square, its weights start as
N(0, 1 / inputs), adjusted for GELU, its biases at zero, and its output is multiplied by 0.05. In the code v starts at
unscaled PCA scores, and the MLP's layers start as in PyTorch. Items without text are left out of both losses. The
uniformly drawn items may be in the user's history; in the code they are the negatives of its loss and are not.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import has_text
from ._base import Adapter, Count, NonNegative, Positive, Preprocess, Rate, Spectrum, Step
from .svd import COPY_STD

Least = Annotated[float, ">= 0", "<= 1"]

GAMMA = 0.005  # weight of the correlations between different features
GELU_SQUARE = 0.4252  # mean of GELU(z)^2 for z ~ N(0, 1)
SHORTEST = 1e-4  # vectors are divided by at least this length: dropout can leave t = 0, where the gradient explodes
LEAST_STD = 1e-5  # added to the standard deviation of a feature


class FAERec(Adapter):
    """T_i = g_i * v_i + (1 - g_i) * t_i, (N, d), with t from features(``preprocess``).

    ``weight``, ``tau``, ``w_min``, ``period`` (in epochs): of the auxiliary loss; ``dropout``: rate in the text's MLP;
    ``gate_dropout``: rate in the gate.
    Raises ValueError if d exceeds the rank or ``preprocess`` is unknown.
    """

    version = 2  # since then, items that are held out of training are not drawn
    fuses = True
    uses_interactions = True

    draws = True

    features: Tensor
    has_text: Tensor
    popularity: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        weight: NonNegative = 0.2,
        tau: Positive = 0.05,
        w_min: Least = 0.9,
        period: Count = 30,
        dropout: Rate = 0.3,
        gate_dropout: Rate = 0.1,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if d > spectrum.rank:
            raise ValueError(f"FAERec starts d={d} columns at principal components, but the text has {spectrum.rank}")
        self.weight, self.tau, self.w_min, self.period = weight, tau, w_min, period
        scores = spectrum.U[:, :d] * spectrum.S[:d]
        self.id = nn.Parameter(scores * (COPY_STD / scores.std()))
        X = spectrum.features(preprocess)
        texts = has_text(spectrum.E)
        size = X[texts].square().mean().clamp_min(1e-12).sqrt()
        self.frozen_text("features", preprocess, lambda X: X / size)
        self.frozen("has_text", texts)
        self.frozen("popularity", spectrum.interactions.counts(self.n).clamp_min(1))
        width = X.shape[1]
        hidden = max(width // 2, 1)
        first, second = nn.Linear(width, hidden), nn.Linear(hidden, d)
        for layer, square in ((first, 1.0), (second, GELU_SQUARE)):
            nn.init.normal_(layer.weight, std=(square * layer.in_features) ** -0.5)
            nn.init.zeros_(layer.bias)
        self.map = nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), second)
        into, out = nn.Linear(2 * d, 2 * d), nn.Linear(2 * d, d)
        nn.init.zeros_(out.bias)
        self.gate = nn.Sequential(into, nn.GELU(), nn.Dropout(gate_dropout), out, nn.Sigmoid())

    def forward(self) -> Tensor:
        return self.fused(self.id, self.text(self.read("features")))

    def rows(self, ids: Tensor) -> Tensor:
        return self.fused(F.embedding(ids, self.id), self.text(self.read("features", ids)))

    def text(self, x: Tensor) -> Tensor:
        """Map rows of features (m, features) to vectors (m, d)."""
        return COPY_STD * self.map(x)

    def fused(self, v: Tensor, t: Tensor) -> Tensor:
        g = self.gate(torch.cat([v, t], 1))
        return g * v + (1 - g) * t

    def aux(self, step: Step) -> Tensor | None:
        events = step.sequences[step.sequences > 0] - 1
        ids, counts = torch.cat([events, step.draw(self.n, events.shape)]).unique(return_counts=True)
        ids, counts = ids[self.has_text[ids]], counts[self.has_text[ids]]
        if not len(ids):
            return None
        v, t = F.embedding(ids, self.id), self.text(self.read("features", ids))
        w = curriculum(step.epoch, self.w_min, self.period)
        loss = w * item_loss(v, t, counts, self.tau)
        if w < 1:
            loss = loss + (1 - w) * self.feature_loss(v, t, counts, self.popularity[ids])
        return self.weight * loss

    def feature_loss(self, v: Tensor, t: Tensor, counts: Tensor, popularity: Tensor) -> Tensor:
        """Sum of `correlation_loss` over the popular and the unpopular items; fewer than two items count nothing."""
        popular = popularity >= weighted_median(popularity, counts)
        groups = [group for group in (popular, ~popular) if group.sum() > 1]
        return sum((correlation_loss(v[group], t[group], counts[group]) for group in groups), v.new_zeros(()))


def curriculum(epoch: int, least: float, period: int) -> float:
    """Share of the item-level loss in an epoch, counted from 0: from 1 to ``least`` and back over ``period`` epochs.

    >>> curriculum(0, 0.9, 30), round(curriculum(15, 0.9, 30), 6)
    (1.0, 0.9)
    """
    return least + (1 - least) * (1 + math.cos(2 * math.pi * epoch / period)) / 2


def item_loss(v: Tensor, t: Tensor, counts: Tensor, tau: float) -> Tensor:
    """InfoNCE by cosine between rows v and t (m, d) of the same m items, item i occurring counts[i] times, shape ().

    An item that occurs several times is a candidate of the others as often, and of itself once.
    """
    cosines = F.normalize(v, dim=1, eps=SHORTEST) @ F.normalize(t, dim=1, eps=SHORTEST).T / tau
    often = counts.to(v.dtype).log().expand(len(v), -1)
    logits = cosines + often - often.diagonal().diag()
    losses = F.cross_entropy(logits, torch.arange(len(v), device=v.device), reduction="none")
    return (losses * counts).sum() / counts.sum()


def correlation_loss(v: Tensor, t: Tensor, counts: Tensor) -> Tensor:
    """Squared distance of the correlations C (d, d) of v's columns with t's from the identity, shape ().

    Entries off the diagonal weigh `GAMMA`. v, t: (m, d); row i occurs counts[i] times.
    """
    weights, total = counts.to(v.dtype)[:, None], counts.sum()
    C = (weights * _standardised(v, weights, total)).T @ _standardised(t, weights, total) / total
    on = (C.diagonal() - 1).square().sum()
    return on + GAMMA * (C.square().sum() - C.diagonal().square().sum())


def _standardised(x: Tensor, weights: Tensor, total: Tensor) -> Tensor:
    centred = x - (weights * x).sum(0) / total
    variance = (weights * centred.square()).sum(0) / (total - 1)
    return centred / (variance.clamp_min(1e-24).sqrt() + LEAST_STD)  # at 0 the root has no gradient


def weighted_median(values: Tensor, counts: Tensor) -> Tensor:
    """The lower median of values (m,), each occurring counts times, shape ().

    >>> weighted_median(torch.tensor([5, 1, 3]), torch.tensor([1, 2, 1]))
    tensor(1)
    """
    order = values.argsort()
    reached = counts[order].cumsum(0)
    return values[order[torch.searchsorted(reached, (reached[-1] - 1) // 2, right=True)]]

"""LLM-ESR: two views of an item, one free and one from its text, that read each other before a shared encoder.

Source: LLM-ESR (Liu et al. 2024, arXiv 2405.20646). Dual-view modelling: a collaborative table started at the PCA
scores of the text, and a semantic one, two linear layers over the frozen text; each view's sequence is replaced by
softmax(Q K^T / sqrt(d)) V, with Q of the other view and K, V of its own (two heads); one encoder reads both, and states
and item vectors are the two results side by side. Retrieval augmented self-distillation: alpha * MSE between a user's
state and the mean state of similar users, held fixed. Optional in the reference code and off in its scripts: beta *
soft-target contrastive loss between the two views of an item (`_align.soft_contrast`, tau 1).

Ours. Causal encoders get a causal mask in the cross-attention too (the reference has none, and its training states then
see their targets). Vectors reach the attention before positions are added, as only the encoder knows them, and enter
its scores times sqrt(d), as in the reference. ``residual`` adds the attention to the sequence it would replace: the
reference adds nothing, but there the attention has seen the positions; here, replaced by what starts as a mean over the
history, a sequence was slow to learn (MovieLens-100K, SASRec: validation NDCG@10 .101 after 16 epochs, .113 after 9
with it). Similar users: the paper embeds a prompt that lists a user's titles; here it is the mean of the centred text
of the training items, compared by cosine. The state of a user is that before the last event of a row, as in the
reference. The loss between the views takes dot products, so that lengths count: both views, which start at 0.05
sqrt(d), enter it times the constant that brings them to `LENGTH`. It is taken over the step's different items, not
once an event.

One of the similar users is drawn for each row and step instead of encoding them all, 10 encoders more: with t_j the
state of user j and m their mean, E_j ||s - t_j||^2 = ||s - m||^2 + Var(t_j), whose last term has no gradient, so that
the gradient is the same in expectation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import LENGTH, described, soft_contrast, start_length, two_linear
from ._base import Adapter, Count, Interactions, NonNegative, Preprocess, Spectrum, Step
from .svd import COPY_STD

HEADS = 2
TAU = 1.0  # of the loss between the views
COORDINATES = 128  # leading ones of the text by which users are compared
BLOCK = 2**24  # similarities held at a time


class LLMESR(Adapter):
    """[A, c B], (N, 2 d): A (N, d) trainable, started at the PCA scores with standard deviation 0.05;
    B = (X W_1 + b_1) W_2 + b_2, X = features(``preprocess``), with the constant c that brings it to about 0.05 too.

    ``alpha``, ``beta``: weights of self-distillation and of the loss between the views; ``sim_users``: similar users a
    user is distilled from; ``residual``: see above. Users whose training items have no text are left out on both sides,
    items without text in the loss between the views. In eval mode all similar users are encoded.
    Raises ValueError where d exceeds the rank or is odd, ``sim_users`` is below 1, or ``preprocess`` is unknown.
    """

    version = 2
    views = 2
    fuses = True
    encodes = True
    uses_interactions = True

    features: Tensor
    described: Tensor
    similar: Tensor
    items: Tensor
    offsets: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        alpha: NonNegative = 0.1,
        beta: NonNegative = 0.0,
        sim_users: Count = 10,
        residual: bool = True,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if d > spectrum.rank:
            raise ValueError(f"LLM-ESR starts d={d} columns at principal components, but the text has {spectrum.rank}")
        if d % HEADS:
            raise ValueError(f"LLM-ESR splits d={d} among {HEADS} heads, which does not divide it")
        if sim_users < 1:
            raise ValueError(f"sim_users is {sim_users}; a user is distilled from at least 1")
        self.alpha, self.beta = alpha, beta
        scores = spectrum.U[:, :d] * spectrum.S[:d]
        self.table = nn.Parameter(scores * (COPY_STD / scores.std()))
        self.frozen("features", spectrum.features(preprocess))
        self.map = two_linear(self.features.shape[1], d)
        self.scale = COPY_STD * d**0.5 / start_length(self.features, d)
        self.mixer = self.mixer_of(d, {"residual": residual})
        self.frozen("described", described(spectrum.E))
        self.frozen("similar", _similar_users(spectrum, sim_users))
        self.frozen("items", spectrum.interactions.items)
        self.frozen("offsets", spectrum.interactions.offsets)

    @classmethod
    def mixer_of(cls, d: int, params: dict[str, Any]) -> nn.Module:
        return _Exchange(d, residual=params["residual"])

    def forward(self) -> Tensor:
        return torch.cat([self.table, self.text(self.features)], 1)

    def rows(self, ids: Tensor) -> Tensor:
        return torch.cat([F.embedding(ids, self.table), self.text(self.features[ids])], 1)

    def text(self, features: Tensor) -> Tensor:
        """The semantic view of rows of features, (m, d)."""
        return self.map(features) * self.scale

    def aux(self, step: Step) -> Tensor | None:
        loss = self.alpha * self.distillation(step)
        return loss + self.beta * self.disagreement(step) if self.beta else loss

    def distillation(self, step: Step) -> Tensor:
        """Mean squared distance of the states of the step's users to those of similar users, shape ()."""
        known = self.similar[step.users, 0] >= 0
        if not known.any():
            return step.states.new_zeros(())
        sequences, similar = step.sequences[known], self.similar[step.users[known]]
        if self.training:
            similar = similar.gather(1, torch.randint(similar.shape[1], (len(similar), 1), device=similar.device))
        length = max(sequences.shape[1] - 1, 1)  # what a backbone takes
        with torch.no_grad():
            states = step.encode(self.histories(similar.flatten(), length))
            target = states.unflatten(0, similar.shape).mean(1)
        return F.mse_loss(step.encode(_without_last(sequences, length)), target)

    def disagreement(self, step: Step) -> Tensor:
        """Soft-target contrastive loss between the two views of the step's items, shape ()."""
        ids = step.items()
        ids = ids[self.described[ids]]
        if not len(ids):
            return step.states.new_zeros(())
        loud = LENGTH / (COPY_STD * self.d**0.5)
        return soft_contrast(loud * F.embedding(ids, self.table), loud * self.text(self.features[ids]), TAU)

    def histories(self, users: Tensor, length: int) -> Tensor:
        """The last ``length`` training events of users (m,) as item numbers (m, length), padded on the right."""
        ends = self.offsets[users + 1]
        starts = torch.maximum(self.offsets[users], ends - length)
        at = starts[:, None] + torch.arange(length, device=users.device)
        real = at < ends[:, None]
        return (self.items[torch.where(real, at, 0)] + 1) * real


class _Exchange(nn.Module):
    """Each view of a sequence, (B, L, 2 d), reads the other."""

    def __init__(self, d: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.read_table, self.read_text = _CrossAttention(d), _CrossAttention(d)

    def forward(self, x: Tensor, real: Tensor, causal: bool) -> Tensor:
        table, text = x.chunk(2, -1)
        read = torch.cat([self.read_table(text, table, real, causal), self.read_text(table, text, real, causal)], -1)
        return x + read if self.residual else read


class _CrossAttention(nn.Module):
    """Attention of ``HEADS`` heads in which one view asks and the other answers, (B, L, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out = nn.Linear(d, d)
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, asking: Tensor, answering: Tensor, real: Tensor, causal: bool) -> Tensor:
        loud = asking.shape[2] ** 0.5
        q, k, v = (
            h.unflatten(2, (HEADS, -1)).transpose(1, 2)
            for h in (self.q(asking * loud), self.k(answering * loud), self.v(answering))
        )
        if causal:  # padding stands on the right, where the mask hides it
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:  # every position may read itself: a row of nothing but padding stays finite
            own = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=(real[:, None] | own)[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


def _similar_users(spectrum: Spectrum, count: int) -> Tensor:
    """The ``count`` users nearest to each by the cosine of their mean text, (users, count) int64, nearest first; -1 for
    users without events or text, who are nobody's neighbour."""
    mean = _mean_text(spectrum, spectrum.interactions)
    known = (mean != 0).any(1).nonzero().squeeze(1)
    count = min(count, len(known) - 1)
    found = torch.full((len(mean), max(count, 1)), -1)
    if count < 1:
        return found
    unit = F.normalize(mean[known], dim=1)
    for at in torch.arange(len(known)).split(max(BLOCK // len(known), 1)):
        cosines = unit[at] @ unit.T
        cosines[torch.arange(len(at)), at] = -2.0  # nobody is his own neighbour
        found[known[at]] = known[cosines.topk(count).indices]
    return found


def _mean_text(spectrum: Spectrum, interactions: Interactions) -> Tensor:
    """The mean of the leading centred text coordinates of each user's training items, (users, COORDINATES or less)."""
    coordinates = spectrum.U[:, :COORDINATES] * spectrum.S[:COORDINATES]
    return F.embedding_bag(interactions.items, coordinates, interactions.offsets[:-1], mode="mean")


def _without_last(sequences: Tensor, length: int) -> Tensor:
    """Item numbers (B, L) without the last of each row, (B, length); a row of one item keeps it."""
    kept = ((sequences > 0).sum(1, keepdim=True) - 1).clamp_min(1)
    return sequences[:, :length] * (torch.arange(length, device=sequences.device) < kept)

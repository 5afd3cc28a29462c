"""LLM-ESR: two views of an item, a free one and one from its text, that attend to each other before a shared encoder.

Source: LLM-ESR (Liu et al. 2024, arXiv 2405.20646). Dual-view modelling: the collaborative view is a table initialised
with the PCA scores of the text, the semantic view two linear layers over the frozen text. The sequence of each view is
replaced by softmax(Q K^T / sqrt(d)) V, with Q from the other view and K, V from the view itself (two heads). One
encoder reads both; states and item vectors are the concatenation of the two views. Retrieval augmented
self-distillation: alpha * MSE between a user's state and the mean state of similar users, without gradient through the
latter. Optional in the reference code and off in its scripts: beta * soft-target contrastive loss between the two views
of an item (`_align.soft_contrast`, tau 1).

Ours. Causal encoders get a causal mask in the cross-attention too (the reference has none, and its training states then
see their targets). Only the encoder knows the positions, so the attention reads vectors without them, multiplied by
sqrt(d) in its scores with every encoder; the reference multiplies for SASRec and BERT4Rec, not for GRU4Rec.
``residual`` adds the attention to the sequence instead of replacing it: the reference replaces it, but its attention
has seen the positions. Here the replacement starts as a mean over the history and was slow to learn (MovieLens-100K,
SASRec: validation NDCG@10 .101 after 16 epochs, .113 after 9 with ``residual``).
Similar users: the paper embeds a prompt that lists a user's titles; here users are compared by the cosine of the mean
centred text of their training items. The state of a user is that before the last training event, as in the reference; a
causal encoder has computed it for the main loss already, and its row is not encoded a second time: the same expected
gradient, under the dropout of the main loss. Of a history in several rows, every row is taught; the reference has one
row per user. A similar user is encoded once per step, under one dropout mask for all rows that it teaches.
The loss between the views uses dot products, so lengths matter: both views start at 0.05 sqrt(d) and are multiplied by
the constant that gives them length `LENGTH`. It counts each distinct item of the step once, not each event.

One similar user is drawn per row and step instead of encoding all of them, which would cost 10 more encoder passes.
With t_j the state of user j and m their mean, E_j ||s - t_j||^2 = ||s - m||^2 + Var(t_j), whose last term has no
gradient, so the expected gradient is the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._align import LENGTH, has_text, soft_contrast, start_length, two_linear
from ._base import Adapter, Count, Interactions, NonNegative, Preprocess, Spectrum, Step
from .svd import COPY_STD

HEADS = 2
TAU = 1.0  # of the loss between the views
COORDINATES = 128  # leading text coordinates by which users are compared
BLOCK = 2**24  # similarities in memory at once
GROUPS = 4  # of similar users, by length of history; each is encoded at the width of its longest


class LLMESR(Adapter):
    """[A, c B], (N, 2 d): A (N, d) trainable, initialised with the PCA scores at standard deviation 0.05;
    B = (X W_1 + b_1) W_2 + b_2, X = features(``preprocess``); the constant c scales B to about 0.05 too.

    ``alpha``, ``beta``: weights of self-distillation and of the loss between the views; ``sim_users``: number of
    similar users per user; ``residual``: see above. Self-distillation leaves out users whose training items have no
    text, on both sides; the loss between the views leaves out items without text. In eval mode all similar users are
    encoded.
    Raises ValueError if d exceeds the rank or is odd, ``sim_users`` is below 1, or ``preprocess`` is unknown.
    """

    version = 4
    views = 2
    fuses = True
    encodes = True
    uses_interactions = True
    draws = True

    features: Tensor
    has_text: Tensor
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
            raise ValueError(f"sim_users is {sim_users}; it must be at least 1")
        self.alpha, self.beta = alpha, beta
        scores = spectrum.U[:, :d] * spectrum.S[:d]
        self.table = nn.Parameter(scores * (COPY_STD / scores.std()))
        self.frozen_text("features", preprocess)
        self.map = two_linear(self.features.shape[1], d)
        self.scale = COPY_STD * d**0.5 / start_length(self.features, d)
        self.mixer = self.mixer_of(d, {"residual": residual})
        self.frozen("has_text", has_text(spectrum.E))
        self.frozen("similar", _similar_users(spectrum, sim_users))
        self.frozen("items", spectrum.interactions.items)
        self.frozen("offsets", spectrum.interactions.offsets)

    @classmethod
    def mixer_of(cls, d: int, params: dict[str, Any]) -> nn.Module:
        return _Exchange(d, residual=params["residual"])

    def forward(self) -> Tensor:
        return torch.cat([self.table, self.text(self.read("features"))], 1)

    def rows(self, ids: Tensor) -> Tensor:
        return torch.cat([F.embedding(ids, self.table), self.text(self.read("features", ids))], 1)

    def text(self, features: Tensor) -> Tensor:
        """The semantic view of rows of features, (m, d)."""
        return self.map(features) * self.scale

    def aux(self, step: Step) -> Tensor | None:
        loss = self.alpha * self.distillation(step)
        return loss + self.beta * self.disagreement(step) if self.beta else loss

    def distillation(self, step: Step) -> Tensor:
        """Mean squared difference between the states of the step's users and of similar users, shape ()."""
        taught = self.similar[step.users, 0] >= 0
        if step.ends is not None:
            taught &= step.ends >= 0
        if not taught.any():
            return step.states.new_zeros(())
        sequences, similar = step.sequences[taught], self.similar[step.users[taught]]
        if self.training:
            similar = similar.gather(1, torch.randint(similar.shape[1], (len(similar), 1), device=similar.device))
        with torch.no_grad():
            target = self.states(similar, step).mean(1)
        own = step.encode(_without_last(sequences)) if step.ends is None else step.states[step.ends[taught]]
        return F.mse_loss(own, target)

    def states(self, users: Tensor, step: Step) -> Tensor:
        """States of users (m, c) before their last training events, (m, c, 2 d).

        Each user is encoded once, beside users of similar length: most histories are much shorter than the longest.
        """
        distinct, place = users.unique(return_inverse=True)
        lengths = (self.offsets[distinct + 1] - self.offsets[distinct] - 1).clamp(1, step.longest)
        order = lengths.argsort()
        parts = [step.encode(self.histories(distinct[at], int(lengths[at].max()))) for at in order.chunk(GROUPS)]
        return torch.cat(parts)[order.argsort()][place]

    def disagreement(self, step: Step) -> Tensor:
        """Soft-target contrastive loss between the two views of the step's items, shape ()."""
        ids = step.items()
        ids = ids[self.has_text[ids]]
        if not len(ids):
            return step.states.new_zeros(())
        scale = LENGTH / (COPY_STD * self.d**0.5)
        return soft_contrast(scale * self.text(self.read("features", ids)), scale * F.embedding(ids, self.table), TAU)

    def histories(self, users: Tensor, length: int) -> Tensor:
        """The last ``length`` training events of users (m,) before the very last one, as item numbers (m, length),
        padded on the right; a user with one event keeps it."""
        firsts = self.offsets[users]
        ends = torch.maximum(self.offsets[users + 1] - 1, firsts + 1)
        starts = torch.maximum(firsts, ends - length)
        at = starts[:, None] + torch.arange(length, device=users.device)
        real = at < ends[:, None]
        return (self.items[torch.where(real, at, 0)] + 1) * real


class _Exchange(nn.Module):
    """Cross-attention between the two views of sequences, (B, L, 2 d)."""

    def __init__(self, d: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.read_table, self.read_text = _CrossAttention(d), _CrossAttention(d)

    def forward(self, x: Tensor, real: Tensor, causal: bool) -> Tensor:
        table, text = x.chunk(2, -1)
        read = torch.cat([self.read_table(text, table, real, causal), self.read_text(table, text, real, causal)], -1)
        return x + read if self.residual else read


class _CrossAttention(nn.Module):
    """Attention of ``HEADS`` heads from queries of one view to keys and values of the other, (B, L, d)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(d, d, bias=False) for _ in range(3))
        self.out = nn.Linear(d, d)
        for layer in (self.q, self.k, self.v, self.out):
            nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor, keys: Tensor, real: Tensor, causal: bool) -> Tensor:
        scale = queries.shape[2] ** 0.5
        q, k, v = (
            h.unflatten(2, (HEADS, -1)).transpose(1, 2)
            for h in (self.q(queries * scale), self.k(keys * scale), self.v(keys))
        )
        if causal:  # the causal mask hides the padding, which is on the right
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:  # every position reads itself too, so rows of padding only stay finite
            diagonal = torch.eye(real.shape[1], dtype=torch.bool, device=real.device)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=(real[:, None] | diagonal)[:, None])
        return self.out(mixed.transpose(1, 2).flatten(2))


def _similar_users(spectrum: Spectrum, count: int) -> Tensor:
    """The ``count`` users most similar to each user by the cosine of their mean text, (users, count) int64, nearest
    first. Users without events or text get -1 and are similar to nobody."""
    mean = _mean_text(spectrum, spectrum.interactions)
    users = (mean != 0).any(1).nonzero().squeeze(1)
    count = min(count, len(users) - 1)
    similar = torch.full((len(mean), max(count, 1)), -1)
    if count < 1:
        return similar
    unit = F.normalize(mean[users], dim=1)
    for at in torch.arange(len(users)).split(max(BLOCK // len(users), 1)):
        cosines = unit[at] @ unit.T
        cosines[torch.arange(len(at)), at] = -2.0  # a user is not similar to itself
        similar[users[at]] = users[cosines.topk(count).indices]
    return similar


def _mean_text(spectrum: Spectrum, interactions: Interactions) -> Tensor:
    """Mean of the leading centred text coordinates of each user's training items, (users, up to COORDINATES)."""
    coordinates = spectrum.U[:, :COORDINATES] * spectrum.S[:COORDINATES]
    return F.embedding_bag(interactions.items, coordinates, interactions.offsets[:-1], mode="mean")


def _without_last(sequences: Tensor) -> Tensor:
    """Remove the last item of each row of item numbers (B, L), giving (B, L - 1); a row of one item keeps it."""
    length = max(sequences.shape[1] - 1, 1)
    kept = ((sequences > 0).sum(1, keepdim=True) - 1).clamp_min(1)
    return sequences[:, :length] * (torch.arange(length, device=sequences.device) < kept)

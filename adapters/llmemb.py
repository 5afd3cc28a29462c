"""LLMEmb: a factorised linear map of the frozen text, aligned with collaborative item vectors.

Source: LLMEmb, recommendation adaptation training (Liu et al. 2024, arXiv 2409.19925). e_i = W_2 (W_1 s_i + b_1) + b_2
replaces the item embedding, s_i frozen, hidden width half that of the text. L_align, a contrastive loss between e_i and
the embedding of item i in a trained SASRec, is added with weight alpha. The loss is that of the reference code
(`_align.soft_contrast`), which uses alpha .01 and tau 2.

Ours: the collaborative vectors. A trained SASRec would need a second training run in every trial, twice the budget of
any other row. Instead they are computed from the same training sequences: approximately the truncated singular value
decomposition U_d Sigma_d^(1/2) of the positive pointwise mutual information M_ij = max(0, log(n_ij n / (n_i n_j))) of
items within ``window`` events of each other, the matrix that skip-gram embeddings factorise (Levy & Goldberg 2014,
Neural Word Embedding as Implicit Matrix Factorization). A fixed number of passes of subspace iteration does not
converge where the spectrum is flat: on synthetic sequences (1,200 items, 3,000 users, d 64), Y Y^T differs from that of
the exact decomposition by 18 % in Frobenius norm. The loss uses dot products, so lengths matter: these vectors have
length `LENGTH`, and e_i is multiplied by a constant that gives it this length at initialisation. Left out: the
fine-tuning of the language model (that concerns the encoder) and its PCA (``preprocess`` is searched instead). The loss
counts each distinct item of the step once, not each event.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ._align import LENGTH, has_text, soft_contrast, start_length, two_linear, users_of
from ._base import Adapter, Count, Interactions, NonNegative, Positive, Preprocess, Spectrum, Step

SPARE, PASSES = 16, 16  # extra columns and passes of the subspace iteration
NOISE = 1e-6  # vectors shorter than this share of the longest are rounding errors


class LLMEmb(Adapter):
    """T = (X W_1 + b_1) W_2 + b_2, (N, d), X = features(``preprocess``).

    aux = ``alpha`` * soft-target contrastive loss at ``tau`` between the frozen collaborative vector Y_i and c T_i over
    the step's distinct items with both text and a positive co-occurrence in training. The constant c scales T to the
    length of Y at initialisation.
    Raises ValueError if ``preprocess`` is unknown or ``window`` is below 1.
    """

    version = 3
    uses_interactions = True
    draws = True

    features: Tensor
    collaborative: Tensor
    aligned: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        alpha: NonNegative = 0.01,
        tau: Positive = 2.0,
        window: Count = 5,
        preprocess: Preprocess = "raw",
    ) -> None:
        super().__init__(spectrum, d)
        if window < 1:
            raise ValueError(f"window is {window}; it must be at least 1 event")
        self.alpha, self.tau, self.preprocess = alpha, tau, preprocess
        self.frozen_text("features", preprocess)
        self.map = two_linear(self.features.shape[1], d)
        self.scale = LENGTH / start_length(self.features, d)
        Y = _leading(_ppmi(spectrum.interactions, self.n, window), d)
        lengths = Y.norm(dim=1, keepdim=True)
        placed = lengths > NOISE * lengths.max()
        self.frozen("collaborative", (LENGTH * Y / lengths.where(placed, torch.inf)).float())
        self.frozen("aligned", placed.squeeze(1) & has_text(spectrum.E))

    def forward(self) -> Tensor:
        return self.map(self.read("features"))

    def rows(self, ids: Tensor) -> Tensor:
        return self.map(self.read("features", ids))

    def aux(self, step: Step) -> Tensor | None:
        ids = step.items()
        ids = ids[self.aligned[ids]]
        if not len(ids):
            return None
        return self.alpha * soft_contrast(self.collaborative[ids], self.scale * self.rows(ids), self.tau)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        (W1, b1), (W2, b2) = ((p.detach().cpu().double() for p in layer.parameters()) for layer in self.map)
        W, b = self.spectrum.affine(self.preprocess, W1.T @ W2.T)
        return W, b + (W2 @ b1 + b2).float()

    def diagnostics(self) -> dict[str, float]:
        """``aligned_share``: the share of items that the auxiliary loss covers."""
        return {"aligned_share": self.aligned.float().mean().item()}


def _ppmi(interactions: Interactions, n: int, window: int) -> Tensor:
    """Positive pointwise mutual information of distinct items within ``window`` events of each other in a history,
    (N, N) sparse, symmetric, float64."""
    users, items = users_of(interactions.offsets), interactions.items
    keys = [items[:0]]
    for gap in range(1, window + 1):
        before, after = items[:-gap], items[gap:]
        kept = (users[gap:] == users[:-gap]) & (before != after)
        keys.append((torch.minimum(before, after) * n + torch.maximum(before, after))[kept])
    keys, counts = torch.cat(keys).unique(return_counts=True)
    pairs = torch.stack([keys // n, keys % n])
    pairs, counts = torch.cat([pairs, pairs.flip(0)], 1), counts.repeat(2).double()
    total = counts.new_zeros(n).index_add(0, pairs[0], counts)
    values = (counts * counts.sum() / (total[pairs[0]] * total[pairs[1]])).log()
    kept = values > 0
    return torch.sparse_coo_tensor(pairs[:, kept], values[kept], (n, n), check_invariants=True).coalesce()


def _leading(M: Tensor, d: int) -> Tensor:
    """Approximate U_d Sigma_d^(1/2), (N, d), of a symmetric sparse M (N, N) by subspace iteration from a fixed start.

    `PASSES` passes with `SPARE` spare columns, not converged where singular values are close to each other (see above).
    Identical in every run, and without a dense N x N matrix. Columns beyond N are zero.
    """
    n = len(M)
    start = torch.randn(n, min(d + SPARE, n), generator=torch.Generator().manual_seed(0), dtype=M.dtype)
    Q = torch.linalg.qr(start)[0]
    for _ in range(PASSES):
        Q = torch.linalg.qr(M @ Q)[0]
    values, vectors = torch.linalg.eigh(Q.T @ (M @ Q))
    order = values.abs().argsort(descending=True)[:d]  # singular values of a symmetric matrix
    Y = Q @ vectors[:, order] * values[order].abs().sqrt()
    return F.pad(Y, (0, d - Y.shape[1]))

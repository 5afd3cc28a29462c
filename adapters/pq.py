"""PQ: text is quantised to a few discrete codes per item, and an item is the mean of the learned vectors of its codes.

Sources: VQ-Rec (Hou et al., WWW 2023, arXiv 2210.12316) and RPG (Hou et al., KDD 2025, arXiv 2506.05781): optimised
product quantisation (OPQ, Ge et al., CVPR 2013) of the text, in RPG after whitened PCA to 512 components. The columns
are split into m groups, each group is clustered by k-means into K codes, and the item vector is the mean of m code
vectors out of m K. Both quantise with FAISS (``OPQ32,IVF1,PQ32x8``). Here k-means is scikit-learn's, from random rows,
with 10 Lloyd iterations; under OPQ it takes turns with the orthogonal Procrustes solution for the rotation, 8 times 2
iterations, starting from no rotation. Ours: the text is always whitened; codes are learned from all items with text
(theirs only from those in the training events); the mean of the code vectors starts with the standard deviation of an
ID embedding. Left out: VQ-Rec's pre-training on other domains with its permutation of code vectors, and RPG's
prediction of each code by a head of its own, because all rows of a bench share one score.

Codes are a function of the text and the hyper-parameters, not of the trial's seed. They are computed in float64,
k-means on one thread. Other processors, and in OPQ other numbers of threads, round float64 sums differently, which can
only change the codes if an item is halfway between two centroids to about 15 digits.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._base import Adapter, Count, Spectrum
from .svd import COPY_STD

ROTATIONS = ("none", "opq")
ITERATIONS = 10  # of Lloyd; FAISS's 25 lower the error by 1 % (docs/decisions/0011-by-hand-or-library.md)
ROUNDS, ITERATIONS_A_ROUND = 8, 2  # of OPQ
KEPT = 32  # codes of that many (text, hyper-parameters) are kept in the process: trials of a cell share them

_codes: dict[tuple[object, ...], Tensor] = {}


class PQ(Adapter):
    """T_i = (1 / m) sum_j C_j[code_ij], (N, d): code (N, m), C (m, K, d) trained.

    The codes quantise the ``components`` leading columns of the whitened text (all if the text has fewer) in ``m``
    groups of neighbouring columns whose sizes differ by at most one, after a ``rotation``: ``none`` or ``opq``. m is at
    most the number of columns, K = ``centroids`` at most half the number of distinct texts. The row of an item without
    text is zero. Items of equal text share their row. There is no map for unseen items.
    Raises ValueError if ``rotation`` is unknown, ``m``, ``centroids`` or ``components`` is below 1, or the text has
    rank 0.
    """

    codes: Tensor
    has_text: Tensor
    members: Tensor
    starts: Tensor

    def __init__(
        self,
        spectrum: Spectrum,
        d: int,
        *,
        m: Count = 32,
        centroids: Count = 256,
        components: Count = 512,
        rotation: Literal["none", "opq"] = "none",
    ) -> None:
        super().__init__(spectrum, d)
        for name, value in {"m": m, "centroids": centroids, "components": components}.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if rotation not in ROTATIONS:
            raise ValueError(f"rotation is '{rotation}'; it must be one of: {', '.join(ROTATIONS)}")
        if spectrum.rank == 0:
            raise ValueError("PQ needs text of rank 1 or more, but all items have the same text or none")
        has_text = (spectrum.E != 0).any(1)
        X = spectrum.features("whiten")[has_text, :components]
        codes = _cached_codes(X, min(m, X.shape[1]), centroids, rotation == "opq")
        self.K = int(codes.max()) + 1
        m = codes.shape[1]
        places = torch.zeros(spectrum.n, m, dtype=torch.int64)
        places[has_text] = codes
        places += torch.arange(m) * self.K
        order = places.flatten().argsort(stable=True)
        counts = places.flatten().bincount(minlength=m * self.K)
        self.frozen("codes", places)
        self.frozen("has_text", has_text[:, None])
        self.frozen("members", order // m)  # the items of each code, code by code
        self.frozen("starts", counts.cumsum(0) - counts)
        self.vectors = nn.Parameter(torch.randn(m * self.K, d) * COPY_STD * m**0.5)

    def forward(self) -> Tensor:
        return _MeanOfCodes.apply(self.vectors, self.codes, self.members, self.starts) * self.has_text

    def rows(self, ids: Tensor) -> Tensor:
        return F.embedding_bag(self.codes[ids], self.vectors, mode="mean") * self.has_text[ids]

    def diagnostics(self) -> dict[str, float]:
        """``codes_an_item``: m; ``distinct_codes``: share of the items with text whose codes no other item has."""
        codes = self.codes[self.has_text.squeeze(1)]
        _, counts = codes.unique(dim=0, return_counts=True)
        return {"codes_an_item": float(codes.shape[1]), "distinct_codes": (counts == 1).sum().item() / len(codes)}


class _MeanOfCodes(torch.autograd.Function):
    """The mean (N, d) of the vectors (m K, d) at codes (N, m), for codes that never change.

    The gradient of a vector sums those of its items, ``members`` (N m,) from ``starts`` (m K,) on: the same look-up
    with both sides exchanged. PyTorch's own gradient sorts all codes at every step.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, codes: Tensor, members: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(members, starts)
        ctx.m = codes.shape[1]
        return F.embedding_bag(codes, vectors, mode="mean")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        members, starts = ctx.saved_tensors
        return F.embedding_bag(members, grads[0], starts, mode="sum") / ctx.m, None, None, None


def _cached_codes(X: Tensor, m: int, K: int, rotate: bool) -> Tensor:
    """`quantised` codes of X, computed once a process and content."""
    content = hashlib.sha256(X.numpy().tobytes()).hexdigest()
    key = (content, tuple(X.shape), m, K, rotate)
    if key not in _codes:
        if len(_codes) >= KEPT:
            del _codes[next(iter(_codes))]  # the oldest
        _codes[key] = quantised(X, m, K, rotate)[0]
    return _codes[key]


def quantised(X: Tensor, m: int, K: int, rotate: bool) -> tuple[Tensor, Tensor]:
    """Product-quantise rows X (n, p) float32, m <= p; returns codes (n, m) int64 in [0, K) and the rows (n, p) float64
    that they stand for.

    K is lowered to half the number of distinct rows: with a centroid a row, codes would be arbitrary numbers of items.
    ``rotate``: learn a rotation of the columns first (OPQ).
    """
    from scipy.linalg import orthogonal_procrustes  # here, so that other adapters load neither library
    from threadpoolctl import threadpool_limits

    K = max(min(K, len({bytes(row) for row in X.contiguous().numpy()}) // 2), 1)
    Y, R = X.double(), None
    with threadpool_limits(1):  # sums of several threads are rounded in varying order
        codes, centres = _clustered(Y, [None] * m, K, ITERATIONS_A_ROUND if rotate else ITERATIONS)
        for _ in range(ROUNDS - 1 if rotate else 0):
            R = torch.from_numpy(orthogonal_procrustes(Y.numpy(), _decoded(codes, centres).numpy())[0])
            codes, centres = _clustered(Y @ R, centres, K, ITERATIONS_A_ROUND)
    rows = _decoded(codes, centres)
    return codes, rows if R is None else rows @ R.T


def _clustered(Y: Tensor, starts: list[Any], K: int, iterations: int) -> tuple[Tensor, list[Any]]:
    """Codes (n, m) and centres (K, columns) of k-means in each of m groups of columns; starts: the centres to begin
    with, None for random rows."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    codes, centres = [], []
    once: dict[str, Any] = {"n_init": 1, "max_iter": iterations, "tol": 0, "random_state": 0, "algorithm": "lloyd"}
    for part, start in zip(Y.tensor_split(len(starts), 1), starts, strict=True):
        means = KMeans(K, init="random" if start is None else start, **once)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows in these columns than in all
            means.fit(part.contiguous().numpy())
        codes.append(torch.from_numpy(means.labels_).long())
        centres.append(means.cluster_centers_)
    return torch.stack(codes, 1), centres


def _decoded(codes: Tensor, centres: list[Any]) -> Tensor:
    """The rows (n, p) that codes (n, m) stand for."""
    return torch.cat([torch.from_numpy(rows)[column] for rows, column in zip(centres, codes.T, strict=True)], 1)

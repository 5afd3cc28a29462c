"""Spectral basis of a matrix that need not fit in memory; `harness.text.embeddings` caches it.

Letters: N items, D text dimension, n items with text, r rank kept; X = E - mean (rows without text: zero) and
X = U diag(S) V^T its thin singular value decomposition. A is the taller of X and X^T, l x s with s = min(N, D).

The basis is transductive: it uses the text of all items of the catalogue, including items that occur only in
validation or test. It reads no interactions.

Three passes over E, piece by piece: a survey (mean, missing rows, duplicates), the Gram matrix A^T A in float64, and,
after its eigendecomposition A^T A = W diag(sigma^2) W^T, the projection Z = A W / sigma. W and Z are V and U, or U and
V. The drawback is that a Gram matrix squares the singular values, so those below sqrt(2^-52) S[0] = 1.5e-8 S[0] are
lost. Hence nothing below 1e-6 S[0] is kept; there the columns of U are still orthonormal to 1e-5, and S, taken from the
lengths of the columns A W and not from the eigenvalues, is accurate to 1e-9.

Memory beyond the mapped files is the maximum of 40 s^2 bytes (the eigendecomposition), three blocks of `ROWS` x s in
float64 (the passes) and 20 N bytes (counting duplicates): 0.7 GB for D = 4096 and 0.1 GB for D = 1024, even beyond five
million items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from harness.system import files
from harness.types import HarnessError, Json

SMALL = 5e-3  # spread of entries of an embedding, about a step of the optimiser, below which a note says so
ROWS = 4096  # of A per matrix product: enough for the throughput of large products
CHUNK = 2**20  # bytes of float64 per piece of elementwise work: fits the cache
PRECISIONS = {"bfloat16": (7, -126), "float16": (10, -14), "float32": (23, -126)}  # mantissa bits, lowest exponent
EXPONENT = np.uint64(0x7FF0_0000_0000_0000)  # exponent bits of a float64; masking the others leaves a power of two
SURVEY, EIGEN = 100, 9  # measured costs in multiply-adds of the Gram matrix: per entry, and per s^3


class ProgressListener(Protocol):
    """Callback for progress; `phase` announces a phase of `size` units that will not report progress."""

    def __call__(self, done: int, total: int, phase: str = "", size: int = 0) -> None: ...


def decompose(E: np.ndarray, folder: Path, progress: ProgressListener, *, center: bool, tolerance: float) -> Json:
    """Write U, S, V and mean of E, (N, D) float32, to `folder` as float32 .npy files; return `Basis.info`.

    Raises HarnessError if fewer than two rows are not zero or if no direction is left.
    """
    E = np.asarray(E)  # creating a row of an np.memmap costs more than hashing it
    work = _Work(E.shape, progress)
    survey = _survey(E, center, work)
    gram, rounding = _gram(E, survey, work)
    energy = float(np.trace(gram))
    work.announce("decomposing", EIGEN * len(gram) ** 3)
    sigma, W = _eigen(gram)
    del gram
    work.add(EIGEN * len(W) ** 3)
    keep = sigma > np.maximum(tolerance * sigma[0], 2 * _noise(W, rounding))
    if not keep.any():
        raise HarnessError("The embeddings are equal up to rounding, so they have no spectral basis.")
    sigma, W = sigma[keep], W[:, keep]
    S = _write(E, survey, sigma, W, folder, work)
    return _info(E, survey, S, max(0.0, energy - float((sigma**2).sum()))) | {"centred": center}


class _Work:
    """Progress of the passes and the eigendecomposition of E, in multiply-adds of the Gram matrix."""

    def __init__(self, shape: tuple[int, ...], progress: ProgressListener) -> None:
        entries, s = shape[0] * shape[1], min(shape)
        self.total = entries * (SURVEY + 3 * s) + EIGEN * s**3  # a symmetric Gram matrix costs half a projection
        self.done, self.progress = 0, progress

    def add(self, units: int) -> None:
        self.done += units
        self.progress(self.done, self.total)

    def announce(self, phase: str, size: int) -> None:
        self.progress(self.done, self.total, phase, size)


def parts(long: int, short: int) -> Iterator[slice]:
    """Slices of an axis of length `long`, sized so that `short` x slice fits CHUNK as float64."""
    return _cut(long, max(1, CHUNK // (8 * max(1, short))))


def _cut(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


@dataclass(frozen=True)
class _Survey:
    """Statistics from one pass over the rows of E. has_text: (N,) bool; mean: (D,) float64."""

    has_text: np.ndarray
    mean: np.ndarray
    mean_cosine: float
    duplicates: int
    precision: str


def _survey(E: np.ndarray, center: bool, work: _Work) -> _Survey:
    """Duplicates are counted by 64-bit hashes of rows: N different rows collide with probability N^2 / 2^65."""
    N, D = E.shape
    has_text, hashes = np.zeros(N, bool), np.zeros(N, np.int64)
    sums = np.zeros((2, D))  # of the rows, and of the rows scaled to length 1
    fits = list(PRECISIONS)
    for part in parts(N, D):
        rows = E[part]
        exact = rows.astype(np.float64)
        length = np.sqrt(np.einsum("ij,ij->i", exact, exact))
        has_text[part] = real = length > 0
        sums += np.stack([real, np.divide(1, length, where=real, out=np.zeros_like(length))]) @ exact
        hashes[part] = [hash(row.tobytes()) for row in rows]
        fits = [name for name in fits if _fits(rows, name)]
        work.add(exact.size * SURVEY)
    n = int(has_text.sum())
    if n < 2:
        raise HarnessError(f"A spectral basis needs at least 2 items with an embedding; {n} of {N:,} have one.")
    total, direction = sums
    mean_cosine = (direction @ direction - n) / (n * (n - 1))
    ordered = np.sort(hashes[has_text])
    duplicates = int((ordered[1:] == ordered[:-1]).sum())
    return _Survey(has_text, total / n if center else np.zeros(D), float(mean_cosine), duplicates, fits[0])


def _fits(rows: np.ndarray, precision: str) -> bool:
    """Whether a coarser type represents all of the float32 values exactly."""
    if precision == "float32":
        return True
    if precision == "bfloat16":
        return not (np.ascontiguousarray(rows).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool((rows.astype(precision) == rows).all())


def _blocks(E: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield E, or E^T if that is taller, in float64, ROWS rows at a time: slice, (c, s).

    Each block overwrites the previous one.
    """
    N, D = E.shape
    if N >= D:
        block = np.empty((min(ROWS, N), D))
        for part in _cut(N, ROWS):
            filled = block[: part.stop - part.start]
            filled[:] = E[part]
            yield part, filled
    else:
        block = np.empty((N, min(ROWS, D)))
        for part in _cut(D, ROWS):
            filled = block[:, : part.stop - part.start]
            filled[:] = E[:, part]
            yield part, filled.T


def _centre(A: np.ndarray, part: slice, survey: _Survey) -> None:
    """Turn rows of E or E^T, as yielded by `_blocks`, into rows of X or X^T, in place."""
    if len(survey.has_text) >= len(survey.mean):
        A -= survey.mean
        A[~survey.has_text[part]] = 0
    else:
        A -= survey.mean[part, None]
        A[:, ~survey.has_text] = 0


def _gram(E: np.ndarray, survey: _Survey, work: _Work) -> tuple[np.ndarray, np.ndarray]:
    """A^T A, (s, s), and the expected squared rounding error of E summed over its longer axis, (s,); float64."""
    s = min(E.shape)
    gram, product, rounding = np.zeros((s, s)), np.empty((s, s)), np.zeros(s)
    for part, A in _blocks(E):
        rounding += _rounding(A, survey.precision)
        _centre(A, part, survey)
        gram += np.matmul(A.T, A, out=product)  # NumPy detects the transpose and computes only half
        work.add(A.size * s)
    return gram, rounding


def _rounding(A: np.ndarray, precision: str) -> np.ndarray:
    """Expected squared rounding error of each column of A, (s,).

    The error of an entry x of a type with p mantissa bits is uniform within half of its last place,
    2^(exponent(x) - p), so its variance is that place squared / 12.
    """
    bits, lowest = PRECISIONS[precision]
    energy = np.zeros(A.shape[1])
    for part in parts(*A.shape):
        power = (A[part].view(np.uint64) & EXPONENT).view(np.float64)
        np.maximum(power, 2.0**lowest, out=power)
        power *= A[part] != 0
        energy += np.einsum("ij,ij->j", power, power)
    return energy * 4.0**-bits / 12


def _eigen(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of the eigenvalues, descending, and eigenvectors of a positive semi-definite matrix."""
    eigenvalues, W = np.linalg.eigh(gram)
    return np.sqrt(eigenvalues[::-1].clip(0)), W[:, ::-1]


def _noise(W: np.ndarray, rounding: np.ndarray) -> np.ndarray:
    """Length of the rounding error along each column of W, (s,)."""
    energy = np.zeros(W.shape[1])
    for part in parts(*W.shape):
        energy += rounding[part] @ W[part] ** 2
    return np.sqrt(energy)


def _write(E: np.ndarray, survey: _Survey, sigma: np.ndarray, W: np.ndarray, folder: Path, work: _Work) -> np.ndarray:
    """Write U, S, V and mean; return S, (r,) float64. W is changed in place."""
    tall = len(E) >= E.shape[1]
    W *= _sign(W) if tall else survey.has_text[:, None]  # eigh leaves 1e-17 in empty rows
    shape = (max(E.shape), len(sigma))
    target = folder / ("U.npy" if tall else "V.npy")
    Z = np.lib.format.open_memmap(target, "w+", np.float32, shape)
    files.reserve(target)
    length = _project(E, survey, W / sigma, Z, work)
    sign = 1.0 if tall else _sign(Z)
    scale = sign / length
    if (np.abs(scale - 1) > 2.0**-26).any():  # a smaller change would not alter a float32
        for part in parts(*shape):
            Z[part] *= scale
    Z.flush()
    S = sigma * length
    for name, array in {"V" if tall else "U": W * sign, "S": S, "mean": survey.mean}.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32), allow_pickle=False)
    return S


def _project(E: np.ndarray, survey: _Survey, W: np.ndarray, Z: np.ndarray, work: _Work) -> np.ndarray:
    """Fill Z, (l, r) float32, with A W; return its column lengths, (r,) float64."""
    squares = np.zeros(W.shape[1])
    product = np.empty((min(ROWS, len(Z)), W.shape[1]))
    for part, A in _blocks(E):
        _centre(A, part, survey)
        z = np.matmul(A, W, out=product[: len(A)])
        squares += np.einsum("ij,ij->j", z, z)
        Z[part] = z
        work.add(2 * A.size * len(W))
    return np.sqrt(squares)


def _sign(V: np.ndarray) -> np.ndarray:
    """+-1 per column, (r,), to make its largest entry by size positive; among nearly equal sizes the first counts."""
    largest, sign = np.zeros(V.shape[1]), np.zeros(V.shape[1])
    for part in parts(*V.shape):
        np.maximum(largest, np.abs(V[part]).max(0), out=largest)
    for part in parts(*V.shape):
        large = np.abs(V[part]) >= largest * (1 - 1e-5)
        first = np.take_along_axis(V[part], large.argmax(0)[None], 0)[0]
        sign = np.where((sign == 0) & large.any(0), np.where(first < 0, -1.0, 1.0), sign)
    return sign


def _small(spread: float) -> str:
    return (
        f"entries vary by {spread:.1g} only: an adapter of raw or centred text then learns its biases faster than the "
        f"text, one of whitened text does not; multiply the matrix by {10.0 ** round(-1 - np.log10(spread)):.0f}"
    )


def _info(E: np.ndarray, survey: _Survey, S: np.ndarray, cut: float) -> Json:
    N, D = E.shape
    n, r = int(survey.has_text.sum()), len(S)
    p = S / S.sum()
    possible = min(D, n)
    notes = [f"rank {r} of {possible}: the other {possible - r} directions are empty or rounding noise"]
    notes = notes if r < min(D, n - 1) else []
    notes += [f"{N - n:,} of {N:,} items have no embedding"] if n < N else []
    notes += [f"{survey.duplicates:,} items have the embedding of another one"] if survey.duplicates else []
    spread = float(np.sqrt((S**2).sum() / (n * D)))  # of an entry around its mean
    notes += [_small(spread)] if spread < SMALL else []
    return {
        "rank": r,
        "dim": D,
        "items": N,
        "missing": N - n,
        "duplicates": survey.duplicates,
        "mean_cosine": survey.mean_cosine,
        "energy_kept": float((S**2).sum() / ((S**2).sum() + cut)),
        "effective_rank": float(np.exp(-(p * np.log(p)).sum())),
        "condition_number": float(S[0] / S[-1]),
        "precision": survey.precision,
        "notes": notes,
    }

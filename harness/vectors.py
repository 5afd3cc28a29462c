"""Texts -> embeddings E -> spectral basis; addressed by content, computed once, on disk under ``<home>/cache``.

Letters: N items, D text dimension, N_text items with text, r rank kept; X = E - mean (rows without text: zero) and
X = U diag(S) V^T its thin singular value decomposition. Light to import: torch is loaded by the encoder that needs it.

The basis comes of the Gram matrix of the short side of X, built in float64 slab by slab, so that memory beyond E and U
is bounded and E is never held in float64. The price is that a Gram matrix squares the singular values: what lies below
sqrt(2^-52) S[0] = 1.5e-8 S[0] drowns. Hence nothing below 1e-6 S[0] is kept; at that cut the columns of U are still
orthonormal to 1e-5, and S, taken from the lengths of the columns X V and not from the eigenvalues, is good to 1e-9.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from harness import files
from harness.encoders._base import Derived, Encoder, Progress, Texts, encoder
from harness.types import HarnessError, digest

if TYPE_CHECKING:
    from harness.data import Prepared

__all__ = ["BASIS_VERSION", "Basis", "Encoder", "Texts", "basis", "embed", "embedding_hash", "encoder", "texts_of"]

BASIS_VERSION = 1
SLAB = 16 * 2**20  # bytes of a slab of float64; about five are held at a time
CHECKED = 256 * 2**20  # arrays up to this many bytes have their sha256 checked when opened: under 0.3 s
LOWEST_TOLERANCE = 1e-6
PRECISIONS = {"bfloat16": (7, -126), "float16": (10, -14), "float32": (23, -126)}  # mantissa bits, lowest exponent


def texts_of(prepared: Prepared) -> Texts:
    """What an encoder needs of a prepared data set."""
    columns = prepared.catalogue.select("item_id", "text", "source_row").to_dict(as_series=False)
    return Texts(columns["item_id"], columns["text"], columns["source_row"], prepared.card["source_rows"])


def embedding_hash(encoder: Encoder, texts: Texts) -> str:
    """Identity of an encoder's matrix over a catalogue, known without computing it."""
    return digest({"encoder": encoder.identity(), "inputs": encoder.inputs(texts)})


def embed(encoder: Encoder, texts: Texts, home: Path) -> np.ndarray:
    """E, (N, D) float32, memory-mapped from ``<home>/cache/embeddings/<hash>/E.npy``; zero rows have no text.

    Computed once. Raises HarnessError if the matrix is not (N, D), holds NaN or infinity (the first item is named),
    has no row that is not zero, or has only equal rows; or if the file on disk is damaged.
    """

    def build(folder: Path) -> None:
        if isinstance(encoder, Derived):
            E = encoder.derive(embed(encoder.inner, texts, home))
        else:
            E = np.asarray(encoder.encode(texts, reporter(encoder.word)), np.float32)
        _check(E, encoder.word, texts)
        np.save(folder / "E.npy", E, allow_pickle=False)
        _seal(folder, {"encoder": encoder.identity()})

    folder = home / "cache" / "embeddings" / embedding_hash(encoder, texts)
    return _unseal(files.build_folder(folder, build))[0]["E"]


def reporter(what: str, stream: TextIO | None = None) -> Progress:
    """Tells on `stream` (stderr) how far `what` is: in place on a terminal, else a line every ten seconds."""
    out = stream or sys.stderr
    start = last = time.monotonic()
    live = out.isatty()

    def tell(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < (0.2 if live else 10) and (done < total or last == start):
            return
        last, left = now, (now - start) / done * (total - done)
        line = f"{what}: {done:,} of {total:,} texts, {left:.0f} s left"
        print(f"\r\x1b[K{line}" if live else line, end="\n" if not live or done == total else "", file=out, flush=True)

    return tell


def _check(E: np.ndarray, word: str, texts: Texts) -> None:
    if E.ndim != 2 or len(E) != len(texts):
        raise HarnessError(f"'{word}' made an array of shape {E.shape} for {len(texts):,} items; it must be 2-D.")
    first, differ = None, False
    for part in _parts(len(E), E.shape[1]):
        rows = E[part]
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            i = part.start + int(bad[0])
            raise HarnessError(f"'{word}': the embedding of item '{texts.item_ids[i]}' (row {i}) is NaN or infinite.")
        rows = rows[rows.any(1)]
        first = rows[0] if first is None and len(rows) else first
        differ = differ or (first is not None and bool((rows != first).any()))
    if first is None:
        raise HarnessError(f"'{word}': no item has an embedding; all {len(E):,} rows are zero.")
    if not differ:
        raise HarnessError(f"'{word}': all items with text have one and the same embedding.")


def _parts(long: int, short: int) -> Iterator[slice]:
    """Slices that cut an axis of length `long` so that `short` x slice fits in SLAB as float64."""
    step = max(1, SLAB // (8 * max(1, short)))
    return (slice(start, min(start + step, long)) for start in range(0, long, step))


@dataclass(frozen=True)
class Basis:
    """The spectral basis of E: X = U diag(S) V^T. All float32, memory-mapped, read-only.

    U: (N, r), orthonormal columns, zero rows where there is no text. S: (r,), descending to 1e-6. V: (D, r),
    orthonormal columns whose largest entry is positive. mean: (D,), over the rows with text; zeros if not centred.
    With centring the columns of U have mean zero over those rows, so sqrt(N_text - 1) U has unit variance in every
    column: the PCA-whitened scores. A new row x is whitened by sqrt(N_text - 1) (x - mean) V S^-1.

    ``info``: rank, dim (D), items (N), missing, duplicates (rows equal to an earlier one), mean_cosine (over pairs),
    energy_kept (share of the squared Frobenius norm), effective_rank (exp of the entropy of S / sum S; Roy &
    Vetterli 2007), condition_number (S[0] / S[r-1]), centred, precision (the coarsest float type that holds E),
    and notes, sentences a reader should see.
    """

    U: np.ndarray
    S: np.ndarray
    V: np.ndarray
    mean: np.ndarray
    hash: str
    info: dict[str, Any]


def basis(E: np.ndarray, key: str, home: Path, *, center: bool = True, tolerance: float = LOWEST_TOLERANCE) -> Basis:
    """The basis of E, (N, D) float32, cached under ``<home>/cache/bases/<hash>``; `key` is the hash of E.

    Kept are the directions above both ``tolerance * S[0]`` and twice the rounding noise of the float type E was
    stored in (each entry is off by up to half its last place). Without the second, null directions of a float16 or
    bfloat16 matrix, 1e-4 S[0] of pure noise, would be whitened to the variance of the rest.
    Raises HarnessError for a tolerance below 1e-6 or not below 1, if no direction is left, or on a damaged file.
    """
    if not LOWEST_TOLERANCE <= tolerance < 1:
        raise HarnessError(f"The rank tolerance is {tolerance}; it must be at least {LOWEST_TOLERANCE} and below 1.")
    name = digest({"embedding": key, "center": center, "tolerance": tolerance, "version": BASIS_VERSION})

    def build(folder: Path) -> None:
        survey = _survey(E, center)
        S, rest = _decompose(E, survey, tolerance, folder)
        _seal(folder, _info(E, survey, S, rest) | {"centred": center})

    arrays, info = _unseal(files.build_folder(home / "cache" / "bases" / name, build))
    return Basis(arrays["U"], arrays["S"], arrays["V"], arrays["mean"], name, info)


@dataclass(frozen=True)
class _Survey:
    """What one pass over the rows of E tells. has_text: (N,) bool; mean: (D,) float64."""

    has_text: np.ndarray
    mean: np.ndarray
    mean_cosine: float
    duplicates: int
    precision: str


def _survey(E: np.ndarray, center: bool) -> _Survey:
    N, D = E.shape
    has_text = np.zeros(N, bool)
    total, direction = np.zeros(D), np.zeros(D)
    seen: set[bytes] = set()
    fits = dict.fromkeys(PRECISIONS, True)
    for part in _parts(N, D):
        rows = E[part]
        has_text[part] = rows.any(1)
        rows = rows[has_text[part]]
        fits = {name: fits[name] and _fits(rows, name) for name in fits}
        seen.update(hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows)
        exact = rows.astype(np.float64)
        total += exact.sum(0)
        direction += (exact / np.linalg.norm(exact, axis=1, keepdims=True)).sum(0)
    n = int(has_text.sum())
    if n < 2:
        raise HarnessError(f"A spectral basis needs at least 2 items with an embedding; {n} of {N:,} have one.")
    mean_cosine = (direction @ direction - n) / (n * (n - 1))
    precision = next(name for name in PRECISIONS if fits[name])
    return _Survey(has_text, total / n if center else np.zeros(D), float(mean_cosine), n - len(seen), precision)


def _fits(rows: np.ndarray, precision: str) -> bool:
    """Whether float32 values are all values of a coarser type."""
    if precision == "bfloat16":
        return not (np.ascontiguousarray(rows).view(np.uint32) & 0xFFFF).any()
    with np.errstate(over="ignore"):
        return bool((rows.astype(precision) == rows).all())


def _slabs(E: np.ndarray, has_text: np.ndarray, mean: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """X - or X^T, if that is the taller - in float64, some of its rows at a time: slice, (c, min(N, D))."""
    N, D = E.shape
    for part in _parts(max(N, D), min(N, D)):
        if N >= D:
            yield part, (E[part] - mean) * has_text[part, None]
        else:
            yield part, ((E[:, part] - mean[part]) * has_text[:, None]).T


def _decompose(E: np.ndarray, survey: _Survey, tolerance: float, folder: Path) -> tuple[np.ndarray, float]:
    """Write U, S, V and mean into `folder`; return S, (r,) float64, and the energy that was cut off.

    A is the taller of X and X^T; A^T A = W diag(sigma^2) W^T gives one side, Z = A W / sigma the other.
    """
    gram = np.zeros((min(E.shape), min(E.shape)))
    for _, A in _slabs(E, survey.has_text, survey.mean):
        gram += A.T @ A
    sigma, W = _eigen(gram)
    noise = np.sqrt(_rounding(E, survey) @ W**2)
    keep = sigma > np.maximum(tolerance * sigma[0], 2 * noise)
    if not keep.any():
        raise HarnessError("The embeddings are equal up to rounding, so they have no spectral basis.")
    cut = float(np.trace(gram) - (sigma[keep] ** 2).sum())
    tall = len(E) >= E.shape[1]
    sigma, W = sigma[keep], W[:, keep] * (1 if tall else survey.has_text[:, None])  # eigh leaves 1e-17 in empty rows
    shape = (max(E.shape), len(sigma))
    Z = np.lib.format.open_memmap(folder / ("U.npy" if tall else "V.npy"), "w+", np.float32, shape)
    squares = np.zeros(len(sigma))
    for part, A in _slabs(E, survey.has_text, survey.mean):
        z = A @ W / sigma
        squares += (z**2).sum(0)
        Z[part] = z
    length = np.sqrt(squares)
    sign = _sign(W if tall else Z)
    for part in _parts(*shape):
        Z[part] *= sign / length
    Z.flush()
    S = sigma * length
    for name, array in {"V" if tall else "U": W * sign, "S": S, "mean": survey.mean}.items():
        np.save(folder / f"{name}.npy", array.astype(np.float32), allow_pickle=False)
    return S, max(0.0, cut)


def _eigen(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of the eigenvalues, descending, and the eigenvectors of a positive semi-definite matrix."""
    eigenvalues, W = np.linalg.eigh(gram)
    return np.sqrt(eigenvalues[::-1].clip(0)), W[:, ::-1]


def _rounding(E: np.ndarray, survey: _Survey) -> np.ndarray:
    """Expected squared rounding error of E, summed over its longer axis: (min(N, D),) float64.

    An entry x of a type with p mantissa bits is off by a uniform half of its last place, 2^(exponent(x) - p), hence
    by a variance of that place squared / 12.
    """
    bits, lowest = PRECISIONS[survey.precision]
    energy = np.zeros(min(E.shape))
    for _, A in _slabs(E, survey.has_text, np.zeros(E.shape[1])):
        exponent = np.maximum(np.frexp(A)[1] - 1, lowest)
        energy += (np.ldexp(1.0, 2 * (exponent - bits)) * (A != 0)).sum(0) / 12
    return energy


def _sign(V: np.ndarray) -> np.ndarray:
    """+-1 a column, (r,), that makes the entry of largest size positive; of nearly equal sizes the first counts."""
    size = np.abs(V)
    at = np.argmax(size >= size.max(0) * (1 - 1e-5), axis=0)
    return np.where(V[at, np.arange(V.shape[1])] < 0, -1.0, 1.0)


def _info(E: np.ndarray, survey: _Survey, S: np.ndarray, cut: float) -> dict[str, Any]:
    N, D = E.shape
    n, r = int(survey.has_text.sum()), len(S)
    p = S / S.sum()
    possible = min(D, n)
    notes = [f"rank {r} of {possible}: the other {possible - r} directions are empty or rounding noise"]
    notes = notes if r < min(D, n - 1) else []
    notes += [f"{N - n:,} of {N:,} items have no embedding"] if n < N else []
    notes += [f"{survey.duplicates:,} items have the embedding of another one"] if survey.duplicates else []
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


def _seal(folder: Path, info: dict[str, Any]) -> None:
    """Sync a folder's arrays to disk and write what they must be when they are opened again."""
    arrays = {}
    for path in sorted(folder.glob("*.npy")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        arrays[path.stem] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": files.sha256(path)}
    files.write_json(folder / "about.json", {"arrays": arrays, "info": info})


def _unseal(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The memory-mapped arrays of a folder and its info. Raises HarnessError if one is not what was written.

    Shape and dtype are always compared; the sha256 of arrays above CHECKED bytes is not.
    """
    arrays = {}
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        for name, was in about["arrays"].items():
            path = folder / f"{name}.npy"
            array = arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            same = (list(array.shape), str(array.dtype)) == (was["shape"], was["dtype"])
            if not same or (array.nbytes <= CHECKED and files.sha256(path) != was["sha256"]):
                raise ValueError(f"{name}.npy is not what was written")
        return arrays, about["info"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(f"{folder} is damaged ({error}). Delete that folder; it is computed again.") from error

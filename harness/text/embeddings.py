"""Compute and cache embeddings E of texts and their spectral basis, keyed by content, under ``<home>/cache``.

Letters: N items, D text dimension, N_text items with text, r rank kept; X = E - mean (rows without text: zero) and
X = U diag(S) V^T its thin singular value decomposition, computed by `text.basis`. Light to import: only encoders that
need torch load it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from harness.system import checksums, files
from harness.system.checksums import Damaged
from harness.text.basis import ProgressListener, decompose, parts
from harness.text.encoders._base import Derived, Encoder, TextEncoder, Texts
from harness.text.encoders.api import Api, EncodingCost
from harness.text.encoders.variants import Variants, differ, mean
from harness.types import HarnessError, Json, digest

if TYPE_CHECKING:
    from harness.data.splits import Prepared


BASIS_VERSION = 1
Encode = Callable[[TextEncoder, Texts], tuple[np.ndarray, dict[str, int]]]  # as `TextEncoder.encode_in`
LOWEST_TOLERANCE = 1e-6


def texts_of(prepared: Prepared) -> Texts:
    """The encoder's view of a prepared data set."""
    columns = prepared.catalogue.select("item_id", "text", "source_row").to_dict(as_series=False)
    return Texts(
        columns["item_id"],
        columns["text"],
        columns["source_row"],
        prepared.card.source_rows or 0,
        prepared.matrices,
        prepared.name,
    )


def can_encode(encoder: Encoder, texts: Texts) -> bool:
    """Whether the encoder has input: some need at least one item with text."""
    return not any(source.needs_text for source in sources(encoder)) or any(text is not None for text in texts.texts)


def sources(encoder: Encoder) -> list[Encoder]:
    """The encoders whose matrices an encoder is computed from; itself if it is computed from no other."""
    if isinstance(encoder, Derived):
        return sources(encoder.inner)
    if isinstance(encoder, Variants):
        return [source for one in encoder.encoders for source in sources(one)]
    return [encoder]


def embedding_hash(encoder: Encoder, texts: Texts) -> str:
    """Hash that identifies an encoder's matrix for a catalogue, without computing the matrix."""
    encoder = encoder.on(texts)
    return digest({"encoder": encoder.identity(), "inputs": encoder.inputs(texts)})


def check_unchanged(encoder: Encoder, texts: Texts, key: str) -> None:
    """Raise HarnessError if the hash of an encoder's matrix is no longer `key`: its files were written meanwhile."""
    if embedding_hash(encoder, texts) != key:
        raise HarnessError(f"'{encoder.word}' changed while it was read; run the command again.")


def embed(encoder: Encoder, texts: Texts, home: Path) -> np.ndarray:
    """E, (N, D) float32, memory-mapped from ``<home>/cache/embeddings/<hash>/E.npy``; zero rows have no text.

    Computed once: one process encodes, others wait for it. Finished rows of a text encoder are kept in ``<hash>.part``
    beside that folder until E is complete, so that a killed run resumes. Raises HarnessError if the matrix is not
    (N, D), has NaN or infinity (naming the first item), or if all its rows are zero or equal. A damaged file is set
    aside and recomputed, unless computing it costs money: then HarnessError says what to do.
    """
    return matrices(encoder, texts, home)["E"]


def matrices(encoder: Encoder, texts: Texts, home: Path) -> dict[str, np.ndarray]:
    """`E` as `embed` returns it and, if items have several texts, `variants`, (M, N, D) float32, whose mean it is.

    Rows of `variants` are zero for texts that an item lacks. Without an item whose texts differ there are no variants.
    """
    return _opened(lambda: _embedded(encoder, texts, home), _repay_hint(encoder))[0]


def cached(key: str, home: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an embedding by its hash, as `matrices` returns them; None if not cached. A damaged one is set
    aside, and Damaged is raised: encoding its texts again may cost money."""
    folder = home / "cache" / "embeddings" / key
    try:
        return _unseal(folder)[0] if folder.is_dir() else None
    except Damaged as error:
        checksums.set_aside(folder, error.__cause__)
        remedy = "Give the command again to encode its texts again."
        raise Damaged(folder, error.__cause__, remedy) from error


def is_cached(key: str, home: Path) -> bool:
    """Whether the home has an embedding with this hash; its files are not checked."""
    return (home / "cache" / "embeddings" / key).is_dir()


def embedding_info(encoder: Encoder, texts: Texts, home: Path, encode: Encode | None = None) -> Json:
    """Information about an embedding: for a text encoder, the counts `missing`, `distinct` and `cut`; for several texts
    an item, `texts` (the most that an item has) and `incomplete` (items with fewer, but at least one).

    encode: computes the rows of a text encoder if the embedding is missing, instead of this process.
    """
    info = _opened(lambda: _embedded(encoder, texts, home, encode), _repay_hint(encoder))[1]
    return {key: value for key, value in info.items() if key != "encoder"}


def cost(encoder: Api, texts: Texts, home: Path, price: float) -> EncodingCost:
    """Remaining cost of an embedding at `price` per million tokens. Sends nothing and needs no key."""
    folder = _folder(encoder, texts, home)
    if folder.is_dir():
        return EncodingCost(0, 0, 0.0)
    return encoder.cost(texts, price, _partial(folder))


def _repay_hint(encoder: Encoder) -> str:
    """Advice if the embedding is damaged and computing it again would cost money; "" if it is free."""
    if not isinstance(encoder, Api):
        return ""
    return "Put a good copy in its place, or rerun the command to compute it, and pay for it, again."


def _folder(encoder: Encoder, texts: Texts, home: Path) -> Path:
    return home / "cache" / "embeddings" / embedding_hash(encoder, texts)


def _partial(folder: Path) -> Path:
    """Folder for the finished rows of an incomplete embedding."""
    return folder.with_name(f"{folder.name}.part")


def _embedded(encoder: Encoder, texts: Texts, home: Path, encode: Encode | None = None) -> Path:
    """The folder of an embedding, computed if it is missing."""
    encoder = encoder.on(texts)
    folder = _folder(encoder, texts, home)
    partial = _partial(folder)

    def build(target: Path) -> None:
        counts: Json = {}
        if isinstance(encoder, Derived):
            inner = matrices(encoder.inner, texts, home)
            if "variants" in inner:
                E, _ = _joined(target, list(_side_by_side(encoder, inner["variants"])), texts)
            else:
                E = encoder.derive(inner["E"])
            counts = embedding_info(encoder.inner, texts, home)
        elif isinstance(encoder, Variants):
            rows = [embed(one, texts, home) for one in encoder.encoders]
            encoder.check(rows)
            E, counts = _joined(target, rows, texts)
            if not counts:
                print(f"{encoder.word}: no item has texts with different rows.", file=sys.stderr, flush=True)
        elif isinstance(encoder, TextEncoder) and encode is not None:
            E, counts = encode(encoder, texts)
        elif isinstance(encoder, TextEncoder):
            E, counts = encoder.encode_in(partial, texts, reporter(encoder.word), lambda shape: _on_disk(target, shape))
        else:
            E = np.asarray(encoder.encode(texts, reporter(encoder.word)), np.float32)
        try:
            check_unchanged(encoder, texts, folder.name)
            _check(E, encoder.word, texts)
        except HarnessError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if isinstance(E, np.memmap) and (target / "E.npy").exists():
            E.flush()
        else:
            np.save(target / "E.npy", E, allow_pickle=False)
        _seal(target, {"encoder": encoder.identity(), **counts})

    if folder.is_dir() and not partial.is_dir():
        for source in sources(encoder):
            source.match(texts)
    else:
        with _locked(home / "cache" / "locks" / f"{folder.name}.lock", encoder.word):
            for left in folder.parent.glob(f".{folder.name}.*"):  # left by a killed process
                shutil.rmtree(left, ignore_errors=True)
            files.build_folder(folder, build)
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def _on_disk(folder: Path, shape: tuple[int, ...], name: str = "E.npy") -> np.memmap:
    """Zeros, float32, mapped to a file."""
    array = np.lib.format.open_memmap(folder / name, mode="w+", dtype=np.float32, shape=shape)
    files.reserve(folder / name)
    return array


def _joined(folder: Path, matrices: Sequence[np.ndarray], texts: Texts) -> tuple[np.ndarray, dict[str, int]]:
    """Write matrices (N, D) as variants.npy, (M, N, D), and their mean as E.npy; return E and the counts `texts` and
    `incomplete` of `embedding_info`. Without an item whose texts differ: no variants.npy, no counts.

    Raises HarnessError if the rows of an item add up to zero, which would mark an item without text.
    """
    N, D = matrices[0].shape
    stack, E = _on_disk(folder, (len(matrices), N, D), "variants.npy"), _on_disk(folder, (N, D))
    counts = np.zeros(N, int)
    for kept, matrix in zip(stack, matrices, strict=True):
        kept[:] = matrix
        counts += matrix.any(1)
    mean(stack, E)
    cancelled = np.flatnonzero((counts > 0) & ~E.any(1))
    if len(cancelled):
        item = texts.item_ids[cancelled[0]]
        raise HarnessError(f"The embeddings of the texts of item '{item}' add up to zero. Leave one of the texts out.")
    if not differ(stack, E):
        (folder / "variants.npy").unlink()
        return E, {}
    stack.flush()
    return E, {"texts": int(counts.max()), "incomplete": int(((counts > 0) & (counts < counts.max())).sum())}


def _side_by_side(encoder: Derived, stack: np.ndarray) -> np.ndarray:
    """The variants (M, N, D) of a derived encoder, which gets the texts of an item as one row, (N, M D)."""
    M, N, D = stack.shape
    derived = encoder.derive(stack.transpose(1, 0, 2).reshape(N, M * D))
    return derived.reshape(N, M, D).transpose(1, 0, 2)


@contextmanager
def _locked(path: Path, word: str) -> Iterator[None]:
    """Hold a lock that ends with the process; if another process has it, print a line and wait."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{word}: another process is encoding these texts; waiting for it.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def reporter(task: str, stream: TextIO | None = None, unit: str = "texts") -> ProgressListener:
    """Print the progress of `task` to `stream` (default stderr): in place on a terminal, else a line every ten seconds.

    Progress is in units, or in percent if `unit` is empty. A phase that cannot report its progress is announced with
    its expected duration, unless that is shorter than the time between two lines.
    """
    out = stream or sys.stderr
    start = last = time.monotonic()
    live = out.isatty()
    patience = 0.2 if live else 10

    def report(done: int, total: int, phase: str = "", size: int = 0) -> None:
        nonlocal last
        if not done:  # there is no rate yet
            return
        now = time.monotonic()
        left, ahead = ((now - start) / done * units for units in (total - done, size))
        if max(now - last, ahead) < patience and (done < total or last == start):
            return
        last = now
        line = f"{task}: {f'{done:,} of {total:,} {unit}' if unit else f'{done / total:.0%}'}, {left:.0f} s left"
        line += f"; {phase}, about {ahead:.0f} s" if ahead >= patience else ""
        print(f"\r\x1b[K{line}" if live else line, end="\n" if not live or done == total else "", file=out, flush=True)

    return report


def _check(E: np.ndarray, word: str, texts: Texts) -> None:
    if E.ndim != 2 or len(E) != len(texts) or not E.shape[1]:
        raise HarnessError(f"'{word}' returned shape {E.shape} for {len(texts):,} items; it must be 2-D, a row each.")
    first, differ = None, False
    for part in parts(len(E), E.shape[1]):
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
        raise HarnessError(f"'{word}': all items with text have the same embedding.")


@dataclass(frozen=True)
class Basis:
    """The spectral basis of E: X = U diag(S) V^T. All float32, memory-mapped, read-only.

    U: (N, r), orthonormal columns, zero rows for items without text. S: (r,), descending to 1e-6. V: (D, r),
    orthonormal columns whose largest entry is positive. mean: (D,), over the rows with text; zeros if not centred.
    With centring, the columns of U have mean zero over those rows, so sqrt(N_text - 1) U has unit variance in every
    column: the PCA-whitened scores. A new row x is whitened by sqrt(N_text - 1) (x - mean) V S^-1.

    ``info``: rank, dim (D), items (N), missing, duplicates (rows equal to an earlier one), mean_cosine (over pairs),
    energy_kept (share of the squared Frobenius norm), effective_rank (exp of the entropy of S / sum S; Roy &
    Vetterli 2007), condition_number (S[0] / S[r-1]), centred, precision (the coarsest float type that represents E
    exactly), and notes (sentences for the reader).
    """

    U: np.ndarray
    S: np.ndarray
    V: np.ndarray
    mean: np.ndarray
    hash: str
    info: Json


def basis(E: np.ndarray, key: str, home: Path, *, center: bool = True, tolerance: float = LOWEST_TOLERANCE) -> Basis:
    """The basis of E, (N, D) float32, cached under ``<home>/cache/bases/<hash>``; `key` is the hash of E.

    Directions are kept if they exceed both ``tolerance * S[0]`` and twice the rounding noise of the float type E was
    stored in (each entry is off by up to half its last place). Without the second threshold, null directions of a
    float16 or bfloat16 matrix, 1e-4 S[0] of pure noise, would be whitened to the variance of the rest.
    Raises HarnessError unless 1e-6 <= tolerance < 1, or if no direction is left. A damaged basis is set aside and
    recomputed.
    """
    if not LOWEST_TOLERANCE <= tolerance < 1:
        raise HarnessError(f"The rank tolerance is {tolerance}; it must be at least {LOWEST_TOLERANCE} and below 1.")
    name = digest({"embedding": key, "center": center, "tolerance": tolerance, "version": BASIS_VERSION})

    def build(folder: Path) -> None:
        progress = reporter(f"basis of {len(E):,} x {E.shape[1]:,}", unit="")
        _seal(folder, decompose(E, folder, progress, center=center, tolerance=tolerance))

    arrays, info = _opened(lambda: files.build_folder(home / "cache" / "bases" / name, build))
    return Basis(arrays["U"], arrays["S"], arrays["V"], arrays["mean"], name, info)


def _seal(folder: Path, info: Json) -> None:
    """Sync a folder's arrays to disk and record their shapes, dtypes and checksums."""
    arrays, names = {}, []
    for path in sorted(folder.glob("*.npy")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        names.append(path.name)
        arrays[path.stem] = {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": files.sha256(path)}
    about = {"arrays": arrays, "info": info}
    files.write_json(folder / "about.json", about | {"digest": digest(about)})
    checksums.stamp(folder, names)


def _unseal(folder: Path) -> tuple[dict[str, np.ndarray], Json]:
    """The memory-mapped arrays of a folder and its info. Raises Damaged if one differs from what was written: shape and
    dtype are always compared, the sha256 as in `checksums.check`."""
    arrays = {}
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if about.pop("digest", None) not in (None, digest(about)):
            raise ValueError("about.json has changed since it was written")
        for name, recorded in about["arrays"].items():
            array = arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if (list(array.shape), str(array.dtype)) != (recorded["shape"], recorded["dtype"]):
                raise ValueError(f"{name}.npy has changed since it was written")
        checksums.check(folder, {f"{name}.npy": array["sha256"] for name, array in about["arrays"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise Damaged(folder, error) from error
    return arrays, about["info"]


def _opened(make: Callable[[], Path], hint: str = "") -> tuple[dict[str, np.ndarray], Json]:
    """Arrays and info of the folder that `make` returns, after building it if it is missing. A damaged folder is set
    aside and rebuilt; with a `hint`, HarnessError is raised with it instead."""
    folder = make()
    try:
        return _unseal(folder)
    except Damaged as error:
        aside = checksums.set_aside(folder, error.__cause__)
        if hint and aside is not None:
            raise HarnessError(f"{error} It was set aside as {aside.name}. {hint}") from error
    return _unseal(make())

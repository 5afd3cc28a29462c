"""Texts -> embeddings E -> spectral basis; addressed by content, computed once, on disk under ``<home>/cache``.

Letters: N items, D text dimension, N_text items with text, r rank kept; X = E - mean (rows without text: zero) and
X = U diag(S) V^T its thin singular value decomposition, made by `text.basis` and kept here. Light to import: torch
is loaded by the encoder that needs it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from harness.system import checksums, files
from harness.system.checksums import Damaged
from harness.text.basis import ProgressListener, decompose, parts
from harness.text.encoders._base import Derived, Encoder, TextEncoder, Texts
from harness.text.encoders.api import Api, EncodingCost
from harness.types import HarnessError, digest

if TYPE_CHECKING:
    from harness.data.splits import Prepared


BASIS_VERSION = 1
LOWEST_TOLERANCE = 1e-6


def texts_of(prepared: Prepared) -> Texts:
    """What an encoder needs of a prepared data set."""
    columns = prepared.catalogue.select("item_id", "text", "source_row").to_dict(as_series=False)
    return Texts(
        columns["item_id"],
        columns["text"],
        columns["source_row"],
        prepared.card["source_rows"],
        prepared.matrices,
        prepared.name,
    )


def can_encode(encoder: Encoder, texts: Texts) -> bool:
    """Whether there is anything for it to read: a text encoder wants at least one item with text."""
    inner = encoder
    while isinstance(inner, Derived):
        inner = inner.inner
    return not isinstance(inner, TextEncoder) or any(text is not None for text in texts.texts)


def embedding_hash(encoder: Encoder, texts: Texts) -> str:
    """Identity of an encoder's matrix over a catalogue, known without computing it."""
    encoder = encoder.on(texts)
    return digest({"encoder": encoder.identity(), "inputs": encoder.inputs(texts)})


def embed(encoder: Encoder, texts: Texts, home: Path) -> np.ndarray:
    """E, (N, D) float32, memory-mapped from ``<home>/cache/embeddings/<hash>/E.npy``; zero rows have no text.

    Computed once: one process encodes, others wait for it. What a text encoder has made is kept in ``<hash>.part``
    beside that folder until E is whole, so that a killed run goes on. Raises HarnessError if the matrix is not (N, D),
    holds NaN or infinity (the first item is named), has no row that is not zero, or has only equal rows. A damaged
    file is set aside and made again; one that was paid for is set aside, and HarnessError says what next.
    """
    return _opened(lambda: _embedded(encoder, texts, home), _price(encoder))[0]["E"]


def kept(key: str, home: Path) -> np.ndarray | None:
    """E of an embedding's hash as `embed` gives it, None where the cache has it not. Raises HarnessError if damaged."""
    folder = home / "cache" / "embeddings" / key
    return _unseal(folder)[0]["E"] if folder.is_dir() else None


def embedding_info(encoder: Encoder, texts: Texts, home: Path) -> dict[str, Any]:
    """What is known of an embedding beside E; of a text encoder's the counts `missing`, `distinct` and `cut`."""
    info = _opened(lambda: _embedded(encoder, texts, home), _price(encoder))[1]
    return {key: value for key, value in info.items() if key != "encoder"}


def cost(encoder: Api, texts: Texts, home: Path, price: float) -> EncodingCost:
    """What is left to pay for an embedding, at a price a million tokens; nothing is sent, no key is needed."""
    folder = _folder(encoder, texts, home)
    if folder.is_dir():
        return EncodingCost(0, 0, 0.0)
    return encoder.cost(texts, price, _made(folder))


def _price(encoder: Encoder) -> str:
    """What is said before an embedding that costs money is computed a second time."""
    if not isinstance(encoder, Api):
        return ""
    return "Put a good copy in its place, or run the command again: it is then computed, and paid, anew."


def _folder(encoder: Encoder, texts: Texts, home: Path) -> Path:
    return home / "cache" / "embeddings" / embedding_hash(encoder, texts)


def _made(folder: Path) -> Path:
    """Where the rows of an embedding are kept that is not whole yet."""
    return folder.with_name(f"{folder.name}.part")


def _embedded(encoder: Encoder, texts: Texts, home: Path) -> Path:
    """The folder of an embedding, made if it is not there."""
    encoder = encoder.on(texts)
    folder = _folder(encoder, texts, home)
    made = _made(folder)

    def build(target: Path) -> None:
        counts: dict[str, Any] = {}
        if isinstance(encoder, Derived):
            E = encoder.derive(embed(encoder.inner, texts, home))
            counts = embedding_info(encoder.inner, texts, home)
        elif isinstance(encoder, TextEncoder):
            E, counts = encoder.encode_in(made, texts, reporter(encoder.word), lambda shape: _on_disk(target, shape))
        else:
            E = np.asarray(encoder.encode(texts, reporter(encoder.word)), np.float32)
        try:
            _check(E, encoder.word, texts)
        except HarnessError:
            shutil.rmtree(made, ignore_errors=True)
            raise
        if isinstance(E, np.memmap) and (target / "E.npy").exists():
            E.flush()
        else:
            np.save(target / "E.npy", E, allow_pickle=False)
        _seal(target, {"encoder": encoder.identity(), **counts})

    if not folder.is_dir() or made.is_dir():
        with _alone(home / "cache" / "locks" / f"{folder.name}.lock", encoder.word):
            for left in folder.parent.glob(f".{folder.name}.*"):  # of a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            files.build_folder(folder, build)
            shutil.rmtree(made, ignore_errors=True)
    return folder


def _on_disk(folder: Path, shape: tuple[int, int]) -> np.ndarray:
    """Zeros, float32, that are the file E.npy."""
    E = np.lib.format.open_memmap(folder / "E.npy", mode="w+", dtype=np.float32, shape=shape)
    files.reserve(folder / "E.npy")
    return E


@contextmanager
def _alone(path: Path, word: str) -> Iterator[None]:
    """Hold a lock that goes with the process; if another process has it, say so and wait."""
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


def reporter(what: str, stream: TextIO | None = None, unit: str = "texts") -> ProgressListener:
    """Tells on `stream` (stderr) how far `what` is: in place on a terminal, else a line every ten seconds.

    How far is told in units, or in percent if `unit` is empty. A phase of so many units that cannot tell how far it is
    is announced, unless it is expected to end before a line would be due.
    """
    out = stream or sys.stderr
    start = last = time.monotonic()
    live = out.isatty()
    patience = 0.2 if live else 10

    def tell(done: int, total: int, phase: str = "", size: int = 0) -> None:
        nonlocal last
        now = time.monotonic()
        left, ahead = ((now - start) / done * units for units in (total - done, size))
        if max(now - last, ahead) < patience and (done < total or last == start):
            return
        last = now
        line = f"{what}: {f'{done:,} of {total:,} {unit}' if unit else f'{done / total:.0%}'}, {left:.0f} s left"
        line += f"; {phase}, about {ahead:.0f} s" if ahead >= patience else ""
        print(f"\r\x1b[K{line}" if live else line, end="\n" if not live or done == total else "", file=out, flush=True)

    return tell


def _check(E: np.ndarray, word: str, texts: Texts) -> None:
    if E.ndim != 2 or len(E) != len(texts):
        raise HarnessError(f"'{word}' made an array of shape {E.shape} for {len(texts):,} items; it must be 2-D.")
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
        raise HarnessError(f"'{word}': all items with text have one and the same embedding.")


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
    Raises HarnessError for a tolerance below 1e-6 or not below 1, or if no direction is left. A damaged basis is set
    aside and computed again.
    """
    if not LOWEST_TOLERANCE <= tolerance < 1:
        raise HarnessError(f"The rank tolerance is {tolerance}; it must be at least {LOWEST_TOLERANCE} and below 1.")
    name = digest({"embedding": key, "center": center, "tolerance": tolerance, "version": BASIS_VERSION})

    def build(folder: Path) -> None:
        tell = reporter(f"basis of {len(E):,} x {E.shape[1]:,}", unit="")
        _seal(folder, decompose(E, folder, tell, center=center, tolerance=tolerance))

    arrays, info = _opened(lambda: files.build_folder(home / "cache" / "bases" / name, build))
    return Basis(arrays["U"], arrays["S"], arrays["V"], arrays["mean"], name, info)


def _seal(folder: Path, info: dict[str, Any]) -> None:
    """Sync a folder's arrays to disk and write what they must be when they are opened again."""
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


def _unseal(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The memory-mapped arrays of a folder and its info. Raises Damaged if one is not what was written: shape and
    dtype are always compared, the sha256 as `sealed.check` says."""
    arrays = {}
    try:
        about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        if about.pop("digest", None) not in (None, digest(about)):
            raise ValueError("about.json is not what was written")
        for name, was in about["arrays"].items():
            array = arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            if (list(array.shape), str(array.dtype)) != (was["shape"], was["dtype"]):
                raise ValueError(f"{name}.npy is not what was written")
        checksums.check(folder, {f"{name}.npy": was["sha256"] for name, was in about["arrays"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        raise Damaged(folder, error) from error
    return arrays, about["info"]


def _opened(make: Callable[[], Path], again: str = "") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What is in the folder that `make` gives, which makes it if it is not there. A damaged one is set aside and made
    again, unless `again` says what that would cost: then HarnessError is raised with it."""
    folder = make()
    try:
        return _unseal(folder)
    except Damaged as error:
        aside = checksums.set_aside(folder, error.__cause__)
        if again and aside is not None:
            raise HarnessError(f"{error} It is set aside as {aside.name}. {again}") from error
    return _unseal(make())

"""Check embeddings: shape, NaN, zero and equal rows, whole numbers, rank and mean cosine."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from harness.checks._base import Facts
from harness.data.findings import ERROR, INFO, WARNING, Finding, examples, level
from harness.text import basis
from harness.types import HarnessError

DUPLICATES = 0.05
NARROW = 0.9  # mean cosine above which all items look alike
MOST_COUNTED = 16  # largest plausible value in a matrix of counts
FULL = 0.5  # rank / dimensions; below it, the width overstates the content


def find(facts: Facts) -> Iterator[Finding]:
    """Find faults in shape and rows of the embedding, and report its rank and mean cosine."""
    E = facts.embedding
    if E is None:
        return
    names = [str(row) for row in range(len(E))]
    if facts.prepared is not None:
        names = facts.prepared.catalogue["item_id"].to_list()
    if E.ndim != 2 or len(E) != len(names) or not E.shape[1]:
        says = f"an array of shape {E.shape} for {len(names):,} items"
        yield Finding("shape", ERROR, len(E), len(names), "rows", says, "Write one row per item of the catalogue.")
        return
    finite, real = np.ones(len(E), bool), np.zeros(len(E), bool)
    for part in basis.parts(*E.shape):
        finite[part], real[part] = np.isfinite(E[part]).all(1), E[part].any(1)
    if not finite.all():
        says = "rows with NaN or infinity; harness refuses the matrix"
        who = examples(names[row] for row in np.flatnonzero(~finite))
        remedy = "Re-encode these items; float16 overflows above 65,504."
        yield Finding("NaN rows", ERROR, int((~finite).sum()), len(E), "rows", says, remedy, who)
    yield from _zeros(facts, names, real)
    yield from _whole(E)
    yield from _spectrum(E if finite.all() else E[finite])


def _zeros(facts: Facts, names: list[str], real: np.ndarray) -> Iterator[Finding]:
    has_text = np.ones(len(names), bool)
    if facts.prepared is not None:
        has_text = facts.prepared.catalogue["text"].is_not_null().to_numpy()
    for kind, which, says in (
        (WARNING, ~real & has_text, "zero rows of items with text"),
        (INFO, ~real & ~has_text, "zero rows of items without text"),
    ):
        if which.any():
            who = examples(names[row] for row in np.flatnonzero(which))
            remedy = "Check that the rows belong to these items." if kind == WARNING else "No action needed."
            yield Finding("zero rows", kind, int(which.sum()), len(names), "rows", says, remedy, who)


def _whole(E: np.ndarray) -> Iterator[Finding]:
    """Find a matrix of whole numbers too large to be counts."""
    whole, largest = True, 0.0
    for part in basis.parts(*E.shape):
        rows = E[part]
        whole = whole and bool((rows == np.floor(rows)).all())
        largest = max(largest, float(np.abs(rows).max()))
        if not whole:
            return
    if largest > MOST_COUNTED:
        says = f"rows of whole numbers up to {largest:,.0f}, read as magnitudes: quantised values or packed bits?"
        remedy = "Unpack bits with np.unpackbits; rescale quantised values to the range of each dimension."
        yield Finding("whole numbers", WARNING, len(E), len(E), "rows", says, remedy)


def _spectrum(E: np.ndarray) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            info = basis.decompose(np.asarray(E, np.float32), Path(folder), _silent, center=True, tolerance=1e-6)
    except HarnessError as error:
        yield Finding("no directions", ERROR, len(E), len(E), "rows", str(error), "Re-encode the texts.")
        return
    n, possible = info["items"] - info["missing"], min(info["dim"], info["items"] - info["missing"] - 1)
    if info["duplicates"]:
        says = "rows equal to an earlier one: no adapter can distinguish these items by text"
        kind = level(info["duplicates"] / n, DUPLICATES)
        remedy = "Check whether the texts are equal too; if not, the rows belong to other items."
        yield Finding("duplicate rows", kind, info["duplicates"], n, "rows", says, remedy)
    if info["rank"] < possible:
        says = f"directions are empty or rounding noise: numerical rank {info['rank']} of {possible}"
        kind = WARNING if info["rank"] < FULL * possible else INFO
        remedy = "Truncate at the rank before dividing by singular values, as harness does."
        yield Finding("rank", kind, possible - info["rank"], possible, "directions", says, remedy)
    cosine = info["mean_cosine"]
    kind = WARNING if cosine > NARROW else INFO
    says = f"mean cosine between two items {cosine:.3f}: this part of each vector is common to all"
    yield Finding("mean cosine", kind, n, n, "rows", says, "Search text preprocessing (center, whiten) too.")


def _silent(done: int, total: int, phase: str = "", size: int = 0) -> None:
    """Ignore progress."""

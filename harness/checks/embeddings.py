"""Embeddings: rows that are no vectors, that are zero or equal, and how many directions they span."""

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
NARROW = 0.9  # mean cosine beyond which all items look alike
MOST_COUNTED = 16  # what a matrix of counts may hold
FULL = 0.5  # of the directions: below it the width promises too much


def find(facts: Facts) -> Iterator[Finding]:
    """Shape, NaN, zero and duplicate rows, rank and mean cosine of the embedding."""
    E = facts.embedding
    if E is None:
        return
    names = [str(row) for row in range(len(E))]
    if facts.prepared is not None:
        names = facts.prepared.catalogue["item_id"].to_list()
    if E.ndim != 2 or len(E) != len(names):
        says = f"an array of shape {E.shape} for {len(names):,} items"
        yield Finding("shape", ERROR, len(E), len(names), "rows", says, "Give every item of the catalogue one row.")
        return
    finite, real = np.ones(len(E), bool), np.zeros(len(E), bool)
    for part in basis.parts(*E.shape):
        finite[part], real[part] = np.isfinite(E[part]).all(1), E[part].any(1)
    if not finite.all():
        says = "rows that hold NaN or infinity; harness refuses the matrix"
        who = examples(names[row] for row in np.flatnonzero(~finite))
        remedy = "Encode these items again; float16 overflows beyond 65,504."
        yield Finding("NaN rows", ERROR, int((~finite).sum()), len(E), "rows", says, remedy, who)
    yield from _zeros(facts, names, real)
    yield from _whole(E)
    yield from _spectrum(E if finite.all() else E[finite])


def _zeros(facts: Facts, names: list[str], real: np.ndarray) -> Iterator[Finding]:
    has_text = np.ones(len(names), bool)
    if facts.prepared is not None:
        has_text = facts.prepared.catalogue["text"].is_not_null().to_numpy()
    for kind, which, says in (
        (WARNING, ~real & has_text, "zero rows of items that have a text"),
        (INFO, ~real & ~has_text, "zero rows of items without text"),
    ):
        if which.any():
            who = examples(names[row] for row in np.flatnonzero(which))
            remedy = "Look whether the rows belong to these items." if kind == WARNING else "Nothing need be done."
            yield Finding("zero rows", kind, int(which.sum()), len(names), "rows", says, remedy, who)


def _whole(E: np.ndarray) -> Iterator[Finding]:
    """Whole numbers beyond those of counts."""
    whole, largest = True, 0.0
    for part in basis.parts(*E.shape):
        rows = E[part]
        whole = whole and bool((rows == np.floor(rows)).all())
        largest = max(largest, float(np.abs(rows).max()))
        if not whole:
            return
    if largest > MOST_COUNTED:
        says = f"rows of whole numbers up to {largest:,.0f}, read as magnitudes: quantised numbers, or packed bits?"
        remedy = "Unpack bits with np.unpackbits; bring quantised numbers back to the scale of each dimension."
        yield Finding("whole numbers", WARNING, len(E), len(E), "rows", says, remedy)


def _spectrum(E: np.ndarray) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryDirectory() as folder:
            told = basis.decompose(np.asarray(E, np.float32), Path(folder), _silent, center=True, tolerance=1e-6)
    except HarnessError as error:
        yield Finding("no directions", ERROR, len(E), len(E), "rows", str(error), "Encode the texts again.")
        return
    n, possible = told["items"] - told["missing"], min(told["dim"], told["items"] - told["missing"] - 1)
    if told["duplicates"]:
        says = "rows equal to one before them: no adapter can tell these items apart by text"
        kind = level(told["duplicates"] / n, DUPLICATES)
        remedy = "Look whether the texts are equal too; if not, the rows are those of other items."
        yield Finding("duplicate rows", kind, told["duplicates"], n, "rows", says, remedy)
    if told["rank"] < possible:
        says = f"directions are empty or rounding noise: numerical rank {told['rank']} of {possible}"
        kind = WARNING if told["rank"] < FULL * possible else INFO
        remedy = "Cut at the rank before dividing by singular values, as harness does."
        yield Finding("rank", kind, possible - told["rank"], possible, "directions", says, remedy)
    cosine = told["mean_cosine"]
    kind = WARNING if cosine > NARROW else INFO
    says = f"mean cosine between two items {cosine:.3f}: so much of each vector is common to all"
    yield Finding("mean cosine", kind, n, n, "rows", says, "Search text preprocessing (center, whiten) along.")


def _silent(done: int, total: int, phase: str = "", size: int = 0) -> None:
    """Takes progress and tells nobody."""

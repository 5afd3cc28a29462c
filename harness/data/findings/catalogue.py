"""A catalogue so small that a metric says nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.data.findings import INFO, WARNING, Finding


def find(items: int, cutoffs: Sequence[int], headline: int) -> Iterator[Finding]:
    """A warning if the catalogue has no more `items` than the headline's cut-off, a note if no more than another."""
    reached = [k for k in cutoffs if items <= k]
    if reached:
        metrics = ", ".join(f"HR@{k}" for k in reached)
        says = f"a catalogue of no more items than k: every row has 1 as {metrics}, by construction"
        remedy = "Take more items; with so few, compare by MRR."
        kind = WARNING if headline in reached else INFO
        yield Finding("small catalogue", kind, items, items, "items", says, remedy)

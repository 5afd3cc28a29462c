"""Find catalogues so small that a metric is always 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.data.findings import INFO, WARNING, Finding


def find(items: int, cutoffs: Sequence[int], headline: int) -> Iterator[Finding]:
    """Yield a warning if the catalogue has at most `headline` items, an info if at most another of the `cutoffs`."""
    reached = [k for k in cutoffs if items <= k]
    if reached:
        metrics = ", ".join(f"HR@{k}" for k in reached)
        says = f"a catalogue with at most k items: every row has {metrics} = 1 by construction"
        remedy = "Use more items, or compare by MRR."
        kind = WARNING if headline in reached else INFO
        yield Finding("small catalogue", kind, items, items, "items", says, remedy)

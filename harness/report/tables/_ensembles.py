"""Ensembles in a section: which rows clear them, and what they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from harness.report.tables._format import label
from harness.report.tables._section import SectionComparison
from harness.stats.crossed_effects import ALPHA
from harness.types import NO_TEXT, Cell

CONTROLS = ("id+id", "id+text")  # a fused method must beat both to show that its fusion helps
NOTE = (
    "Ensembles add the scores of trained rows, standardised per query; the weight of two different rows is chosen on "
    "validation. They train nothing and cost the sum of their parts. Their seeds are rounds of disjoint runs; tests "
    "against their own parts ignore the shared runs, which makes them conservative."
)


def remarks(comparison: SectionComparison) -> list[str]:
    """Explain the section's ensembles and name the rows that are significantly better than the controls."""
    ensembles = [row.cell for row in comparison.ranked if row.cell.is_ensemble]
    controls = [cell for cell in ensembles if cell.adapter in CONTROLS]
    return [NOTE, *(_clearing(comparison, control) for control in controls)] if ensembles else []


def _clearing(comparison: SectionComparison, control: Cell) -> str:
    assert comparison.pairs is not None
    p, bar = comparison.pairs.adjusted(control), comparison.get(control)
    assert bar is not None
    above = [row for row in comparison.ranked if row.headline > bar.headline and p.get(row.cell, 1.0) < ALPHA]
    names = ", ".join(label(row.cell) for row in above if not row.cell.is_ensemble) or "no row"
    return f"Better than {label(control)} (Holm-adjusted p < {ALPHA}): {names}."


def with_ensembles(rising: set[Cell], cells: Iterable[Cell]) -> set[Cell]:
    """Add to the rows that are still improving the ensembles of which a part is."""
    return rising | {cell for cell in cells if cell.is_ensemble and _has_part_in(cell, rising)}


def _has_part_in(cell: Cell, rows: Collection[Cell]) -> bool:
    encoders = (cell.encoder, NO_TEXT)
    return any(Cell(cell.dataset, encoder, cell.backbone, part) in rows for part in cell.parts for encoder in encoders)

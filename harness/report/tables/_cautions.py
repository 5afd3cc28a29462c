"""Reasons to doubt a section's numbers, in sentences: ties, unfinished training, scores below chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.report.tables._format import label
from harness.report.tables._scores import REFERENCE, is_reference
from harness.report.tables._table import Row
from harness.types import MIDDLE

TIED = 0.01  # share of test targets with a tie from which a row is named
CUTOFF = 10  # of the hit ratio that is compared with chance


def cautions(rows: Sequence[Row], card: dict[str, Any], ties: str) -> tuple[str, ...]:
    """Cautions of one section. card: of its data set; ties: the rule that its ranks were measured under."""
    scored = [row for row in rows if row.metrics]
    found = [_old_rule() if ties == MIDDLE and scored else "", _tied(scored), *_rising(scored), _chance(scored, card)]
    found += [_one_seed(scored)]
    return tuple(filter(None, found))


def _old_rule() -> str:
    return (
        "Measured under the tie rule of an earlier version: a tied target counts at its mid-rank, which favours or "
        "hurts coarse scores. Repeat the bench to measure every metric as its expectation over the order of ties."
    )


def _tied(rows: Sequence[Row]) -> str:
    named = [f"{label(row.cell)} {100 * row.tied:.1f} %" for row in rows if row.tied is not None and row.tied >= TIED]
    if not named:
        return ""
    return (
        f"Test targets that share their score with another item: {', '.join(named)}. Their metrics are expectations "
        "over the random order of ties; identical texts, coarse texts and counts give such scores."
    )


def _rising(rows: Sequence[Row]) -> list[str]:
    rising = [row for row in rows if "rising" in row.marks]
    if not rising:
        return []
    names = ", ".join(label(row.cell) for row in rising)
    found = [f"Still rising at the last epoch allowed: {names}. More epochs would raise these scores."]
    if any(is_reference(row.cell) for row in rising):
        found.append(
            f"Gains over {REFERENCE} are preliminary, since {REFERENCE} is still rising: they compare speed too."
        )
    return found


def _one_seed(rows: Sequence[Row]) -> str:
    trained = [row for row in rows if not row.cell.is_baseline]
    if len(trained) < 2 or any(row.seeds_done > 1 for row in trained):
        return ""
    return "One seed per row: intervals and tests cover other users, not other seeds of the same configuration."


def _chance(rows: Sequence[Row], card: dict[str, Any]) -> str:
    """Rows that find less than a random ranking would."""
    items = card.get("items")
    if not isinstance(items, int) or items <= CUTOFF:
        return ""
    chance, metric = CUTOFF / items, f"HR@{CUTOFF}"
    below = [row for row in rows if metric in row.metrics and row.metrics[metric].mean < chance]
    if not below:
        return ""
    named = ", ".join(f"{label(row.cell)} {row.metrics[metric].mean:.4f}" for row in below)
    return f"{metric} below chance ({chance:.4f} = {CUTOFF} of {items:,} items): {named}."

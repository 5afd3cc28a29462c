"""How the intervals and tests of a table are computed, and what they do not cover."""

from __future__ import annotations

from harness.report.tables import _slices
from harness.report.tables._table import Table
from harness.stats import resampling
from harness.stats.crossed_effects import FEW
from harness.types import Json

STATISTICS = {
    "intervals": f"{round(100 * resampling.LEVEL)} %, Student's t with users and seeds as crossed random effects, seed "
    f"variance pooled over the section; parts of the test: bootstrap, {_slices.ROUNDS:,} rounds; "
    f"data sets: bootstrap, {resampling.ROUNDS:,} rounds",
    "test": f"paired t over users and seeds, two-sided; with fewer than {FEW} users also sign flips",
    "correction": "Holm, over the section's rows against id, and over all pairs for every other comparison",
}
OVER_FOLDS = {
    "intervals": f"{round(100 * resampling.LEVEL)} %, Student's t over folds, with their number less one as degrees of "
    f"freedom; parts of the test: bootstrap of users and seeds, {_slices.ROUNDS:,} rounds; data sets: "
    f"bootstrap over them and their folds, {resampling.ROUNDS:,} rounds",
    "test": "paired t over folds, two-sided",
}
NOT_COVERED = {"not covered": "the search: with other draws it may find other configurations (--search-seed 1)"}


def statistics(table: Table) -> Json:
    """Return the part of the header about statistics."""
    folds = (table.header.get("protocol") or {}).get("folds")
    trials = (table.header.get("budget") or {}).get("trials") or 0
    return STATISTICS | (OVER_FOLDS if folds else {}) | (NOT_COVERED if trials > 1 else {})

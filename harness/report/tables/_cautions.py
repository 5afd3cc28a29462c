"""Reasons to doubt a section, in sentences: unlike training, ties, unfinished training, scores below chance."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.tables._format import fact, label
from harness.report.tables._scores import REFERENCE, is_reference
from harness.report.tables._table import Row
from harness.types import MIDDLE, SHARED, Json, Params

TIED = 0.01  # share of tied test targets from which a row is listed
VERSION = "version of "
NAMED = 3  # rows named for a value
CUTOFF = 10  # cut-off of the hit ratio that is compared with chance


def cautions(rows: Sequence[Row], card: Json, ties: str, folds: bool = False) -> tuple[str, ...]:
    """Return the cautions of one section. card: data card of its data set; ties: the tie rule of its ranks; folds:
    whether the scores are means over test windows, whose variance includes that of seeds."""
    scored = [row for row in rows if row.metrics]
    sentences = [_unlike(scored), _old_rule() if ties == MIDDLE and scored else "", _tied(scored), *_rising(scored)]
    sentences += [_chance(scored, card), "" if folds else _one_seed(scored), _chosen_here(scored)]
    return tuple(filter(None, sentences))


def _unlike(rows: Sequence[Row]) -> str:
    """Name the shared parameters that rows have at different fixed values, search in different ranges, or that only
    some of them search; and what they have different versions of."""
    known = [row for row in rows if row.cell.is_trained and row.fit and row.spent.searched is not None]
    names = {name for row in known for name in _params(row) if name.startswith(SHARED)}
    names |= {name for row in known for name in row.spent.searched or () if name.startswith(SHARED)}
    names |= {name for row in known for name in row.spent.shared if name.startswith(VERSION)}
    parts = []
    for name in sorted(names):
        told = any(name in row.spent.shared for row in known)  # then rows whose launch did not record it are left out
        users: dict[str, list[str]] = {}
        for row in known:
            if value := _value(row, name, told):
                users.setdefault(value, []).append(label(row.cell))
        if len(users) > 1:
            parts.append(f"{name} {', '.join(f'{value} ({_some(names)})' for value, names in users.items())}")
    return f"Rows were not trained alike, so they differ by more than the adapter: {'; '.join(parts)}." if parts else ""


def _value(row: Row, name: str, told: bool) -> str:
    """Return what a row has for a shared parameter or version, "" if it is not known. told: other rows' is recorded."""
    if name in row.spent.shared:
        value = fact("", row.spent.shared[name])
        return value if name.startswith(VERSION) else f"searched in {value}"
    if name in (row.spent.searched or ()):
        return "" if told else "searched"
    return "" if name.startswith(VERSION) else fact("", _params(row).get(name, "default"))


def _params(row: Row) -> Params:
    return row.fit.params if row.fit else {}


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:NAMED])} and {more} more"


def _old_rule() -> str:
    return (
        "Measured with the tie rule of an earlier version: a tied target counts at its mid-rank, which can raise or "
        "lower the metrics of coarse scores. Rerun the bench to measure expectations over the order of ties."
    )


def _tied(rows: Sequence[Row]) -> str:
    shares = [f"{label(row.cell)} {100 * row.tied:.1f} %" for row in rows if row.tied is not None and row.tied >= TIED]
    if not shares:
        return ""
    return (
        f"Test targets tied with another item: {', '.join(shares)}. Their metrics are expectations over the random "
        "order of ties. Identical texts, coarse texts and counts cause ties."
    )


def _rising(rows: Sequence[Row]) -> list[str]:
    rising = [row for row in rows if "rising" in row.marks]
    if not rising:
        return []
    names = ", ".join(label(row.cell) for row in rising)
    sentences = [f"Still improving at the last allowed epoch: {names}. More epochs would raise these scores."]
    if any(is_reference(row.cell) for row in rising):
        sentences.append(
            f"Gains over {REFERENCE} are preliminary: it is still improving, so they also reflect training speed."
        )
    return sentences


def _one_seed(rows: Sequence[Row]) -> str:
    """Warn if what seeds differ by is unknown, or known from a single row."""
    trained = [row for row in rows if row.cell.is_trained]
    several = [row for row in trained if row.seeds_done > 1]
    if len(trained) < 2 or len(several) > 1 or len(several) == len(trained):
        return ""
    if not several:
        return "One seed per row: intervals and tests account for the choice of users, not of seeds."
    return (
        f"Only {label(several[0].cell)} has more than one seed: the variance over seeds is estimated from it alone, "
        "and tests report too many differences. Add seeds."
    )


def _chosen_here(rows: Sequence[Row]) -> str:
    """Warn about configurations that were chosen on the same data set, prepared in another way."""
    transferred = [row for row in rows if row.spent.tuned == "transferred" and row.spent.warm_start == row.cell.dataset]
    if not transferred:
        return ""
    return (
        "Configurations are the winners of other searches on this data set. If those ordered or filtered its events in "
        "another way, their validation can contain targets of this test."
    )


def _chance(rows: Sequence[Row], card: Json) -> str:
    """List the rows that score below a random ranking."""
    items = card.get("items")
    if not isinstance(items, int) or items <= CUTOFF:
        return ""
    chance, metric = CUTOFF / items, f"HR@{CUTOFF}"
    below = [row for row in rows if metric in row.metrics and row.metrics[metric].mean < chance]
    if not below:
        return ""
    scores = ", ".join(f"{label(row.cell)} {row.metrics[metric].mean:.4f}" for row in below)
    return f"{metric} below chance ({chance:.4f} = {CUTOFF} of {items:,} items): {scores}."

"""The sentence under each table that states the budget of its rows, and which rows had less."""

from __future__ import annotations

from collections.abc import Sequence

from harness.report.tables._format import label, trials
from harness.report.tables._table import Row, Section, Table


def parity(table: Table, section: Section, named: int | None = None) -> str:
    """State the planned budget of the section's rows, and which rows had less; name at most `named` of them."""
    budget = table.header.get("budget") or {}
    trained = [row for row in section.rows if row.cell.is_trained] or section.rows
    seeds = sorted({row.seeds_planned for row in trained if row.state != "skipped"})
    parts = [*_searches(trained), *_limits(trained)]
    parts += [f"up to {section.pace * budget['epochs']} epochs"] if "epochs" in budget else []
    parts += [f"{_either(seeds)} seed{'s' if seeds != [1] else ''}"] if seeds else []
    less = [
        f"{label(row.cell)} ({trials(row)} trials, {row.seeds_done}/{row.seeds_planned} seeds)"
        for row in _short(section)
    ]
    smaller = [label(row.cell) for row in section.rows if "less" in row.marks]
    skipped = sum(row.state == "skipped" for row in section.rows if row.cell.is_trained)
    complete = "all other rows complete" if skipped else "all rows complete"
    tail = f"; below plan: {_some(less, named)}" if less else f"; {complete}"
    tail += f"; {skipped} row{'s' * (skipped > 1)} skipped" if skipped else ""
    tail += f"; smaller plan than others: {_some(smaller, named)}" if smaller else ""
    sentence = f"Parity: {', '.join(parts)} planned for each trained row{tail}."
    return " ".join([sentence, *_warm_starts(trained), *_dimensions(trained), *_settings(table, trained)])


def _some(names: list[str], most: int | None) -> str:
    """Join at most `most` names, and count the others."""
    if most is not None and len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return ", ".join(names)


def _searches(rows: Sequence[Row]) -> list[str]:
    """Say how many trials the searches of trained rows had, and what rows without a search trained."""
    given = [row for row in rows if row.cell.is_trained and row.state != "skipped"]
    planned = sorted({row.trials.planned for row in rows if row.trials.planned})
    searches = [f"{_either(planned)} trial{'s' if planned != [1] else ''}"] if planned else []
    if any(not row.trials.planned for row in given):
        taken = sorted({(row.spent.warm_start, row.spent.source_trials) for row in given if row.spent.source_trials})
        winners = f"winners of {_either([n for _, n in taken])} trials on {taken[0][0]}" if taken else ""
        searches.append(f"no search ({winners or 'default configurations'})")
    return [" or ".join(searches)] if searches else []


def _warm_starts(rows: Sequence[Row]) -> list[str]:
    """Return a sentence per source whose best configurations started searches: its trials are no part of the plan."""
    warm = [row for row in rows if row.trials.planned and row.spent.warm_start]
    sentences = []
    for source in sorted({row.spent.warm_start for row in warm}):
        users = [label(row.cell) for row in warm if row.spent.warm_start == source]
        who = "all trained rows" if len(users) == len(rows) else ", ".join(users)
        known = "" if source == "yes" else f" ({source})"
        sentences.append(f"Not counted: the earlier searches whose best configurations{known} started those of {who}.")
    return sentences


def _limits(rows: Sequence[Row]) -> list[str]:
    """Say which limit of time the searches had: of all rows, or of those that had one."""
    limits = {limit: [label(r.cell) for r in rows if r.spent.cell_seconds == limit] for limit in _seconds(rows)}
    if not any(limits):
        return []
    if len(limits) == 1:
        return [f"up to {next(iter(limits)):g} seconds of trials"]
    return [f"up to {limit:g} seconds of trials for {', '.join(names)}" for limit, names in limits.items() if limit]


def _seconds(rows: Sequence[Row]) -> list[float]:
    """The limits of time of the searched rows; 0 for those that had none."""
    return sorted({row.spent.cell_seconds or 0.0 for row in rows if row.trials.planned})


def _dimensions(rows: Sequence[Row]) -> list[str]:
    """Return a sentence if searches with equal trials have different numbers of dimensions."""
    counts = {len(row.spent.searched) for row in rows if row.spent.searched and row.trials.planned}
    if len(counts) < 2:
        return []
    return [f"With these trials the rows search {min(counts)} to {max(counts)} dimensions."]


def _settings(table: Table, rows: Sequence[Row]) -> list[str]:
    """Return a sentence per published setting: its description, and the rows with its parameters."""
    sentences = []
    for name in sorted({row.spent.setting for row in rows} - {""}):
        about = (table.header.get("settings") or {}).get(name, "").rstrip(".")
        users = [label(row.cell) for row in rows if row.spent.setting == name]
        who = "all trained rows" if len(users) == len(rows) else ", ".join(users)
        sentences.append(f"Published setting {name}{f' ({about})' if about else ''}: {who}.")
    return sentences


def _short(section: Section) -> list[Row]:
    return [
        row
        for row in section.rows
        if row.trials.done + row.trials.pruned < row.trials.planned or row.seeds_done < row.seeds_planned
    ]


def _either(values: list[int]) -> str:
    return " or ".join(map(str, values))

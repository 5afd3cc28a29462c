"""Texts around a table's numbers (header, captions, notes), shared by the formats for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from harness.data import cards
from harness.metrics.lists import _all as lists
from harness.report.tables._across import ELO_ROUNDS, Across, Standing
from harness.report.tables._across import label as method_label
from harness.report.tables._columns import Column, all_columns, filled
from harness.report.tables._format import (
    DASH,
    FRONT,
    MEANINGS,
    SYMBOLS,
    fact,
    interval,
    label,
    percent,
    score,
)
from harness.report.tables._frames import Record
from harness.report.tables._scores import REFERENCE
from harness.report.tables._slices import Slice
from harness.report.tables._statistics import statistics
from harness.report.tables._table import Row, Section, Table
from harness.stats import resampling
from harness.stats.crossed_effects import ALPHA, POWER
from harness.types import EXPECTED, MIDDLE, Json, Protocol

FEW = 30  # users in a part of the test; with fewer, a bootstrap interval undercovers
TITLES = {
    "suite": "Suite",
    "protocol": "Protocol",
    "prep": "Preparation",
    "budget": "Budget of every cell",
    "engine": "Search",
    "statistics": "Statistics",
    "code": "Code",
    "provenance": "Provenance",
}
ABOVE = ("suite", "protocol", "prep", "budget", "engine", "statistics", "code")  # before the tables
TIES = {EXPECTED: "expectation over their order", MIDDLE: "mid-rank (earlier rule)"}
CODE = ("harness", "git", "code", "dirty", "date")  # keys of the provenance
CONDITIONS = ("processor", "vectors", "cores", "slots", "threads", "gpu")  # keys of the provenance that bear on times
GIT = ("git", "dirty")  # unknown to an installed package
CARD = (
    *("hash", "users", "items", "events", "raw_users", "raw_items", "raw_events", "density", "mean_length"),
    *("tie_share", "test_tie_share", "cold_test_share"),
)


def facts(values: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Return (name, text) of each value; nested objects are flattened with a dot."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += facts(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}".replace("_", " "), ", ".join(fact(key, item) for item in value)))
        else:
            pairs.append((f"{prefix}{key}".replace("_", " "), fact(key, value)))
    return pairs


def line(title: str, values: Record) -> str:
    return f"{title}: " + " · ".join(f"{name} {text}" for name, text in facts(values))


def header(table: Table, part: str) -> Json:
    """Return a part of the header; the protocol also with its fixed rules, without options that its split ignores."""
    if part == "statistics":
        return statistics(table)
    if part == "code":
        provenance = table.header.get("provenance") or {}
        return {key: provenance[key] for key in CODE if key in provenance and (provenance.get("git") or key not in GIT)}
    values = dict(table.header.get(part) or {})
    if part == "budget" and (others := table.other_plans):
        values |= {"other cells": others}
    if part == "budget" and table.header.get("at_trials"):
        return values | {"cut": f"as if each search had ended after {table.header['at_trials']} trials"}
    if part != "protocol" or not values:
        return values
    if values.get("split") not in ("gts", "windows"):
        values.pop("quantile", None)
    if values.get("split") == "users":
        values.setdefault("train_users", Protocol().train_users)
    if values.get("cold_items"):
        values.setdefault("split_seed", Protocol().split_seed)
    opened, others = table.header.get("test_opened"), table.header.get("test_opened_by_others")
    return (
        values
        | {"candidates": "all items", "ties": TIES[table.header.get("ties", EXPECTED)]}
        | ({"test evaluations": opened} if opened else {})
        | ({"test evaluations of other winners of these rows": others} if others else {})
    )


def header_lines(table: Table, parts: tuple[str, ...]) -> list[str]:
    headers = [(part, header(table, part)) for part in parts]
    return [line(title_of(part, values), values) for part, values in headers if values]


def title_of(part: str, values: Json) -> str:
    """Return the title of a part of the header."""
    return "Budget of the newest launch" if part == "budget" and "other cells" in values else TITLES[part]


def title(section: Section) -> str:
    return f"{section.dataset} × {section.backbone}"


def data(section: Section) -> Json:
    """Return the facts of a data set's card that its tables show."""
    card = {key: section.card[key] for key in CARD if section.card.get(key) is not None}
    for name in ("users", "items", "events"):
        if card.get(f"raw_{name}") == card.get(name):
            card.pop(f"raw_{name}", None)
    return card | ({"test_users": section.test_users} if section.test_users else {})


def section_lines(section: Section) -> list[str]:
    """Return the verdict, a line about the data set, and each of its warnings."""
    lines = [section.verdict] if section.verdict else []
    lines += [line("Data", data(section))] if data(section) else []
    return lines + [f"Warning: {text}" for text in warnings(section)]


def warnings(section: Section) -> list[str]:
    """Return the warnings of the data card, then the cautions about the section's numbers."""
    return [*(section.card.get("warnings") or []), *section.cautions]


def cards_of(table: Table) -> list[tuple[str, list[str]]]:
    """Return the lines of each data set's card, each data set once."""
    unique = {section.dataset: cards.DataCard.from_json(section.card) for section in table.sections}
    by_dataset = {name: [f"{label}: {text}" for label, text in cards.rows(card)] for name, card in unique.items()}
    return [(dataset, lines) for dataset, lines in by_dataset.items() if lines]


def notes(section: Section) -> list[str]:
    """Return remarks on the section's components, then every incomplete row with its state and reason."""
    incomplete = [row for row in section.rows if row.fit is None or row.state != "done" or row.reason]
    holes = [f"{label(row.cell)}: {row.state}" + (f", {row.reason}" if row.reason else "") for row in incomplete]
    return [*section.remarks, *holes]


def tied(section: Section) -> list[str]:
    """Return the names of the rows that do not differ significantly from the best."""
    return [label(row.cell) for row in section.rows if "tied" in row.marks]


def footnotes(table: Table, columns: Sequence[Column] | None = None) -> list[str]:
    """Explain the numbers and marks that occur in the table."""
    used = {mark for row in _rows(table) for mark in row.marks}
    return explanations(table, columns) + [f"{SYMBOLS[mark]} {text}" for mark, text in MEANINGS.items() if mark in used]


def explanations(table: Table, columns: Sequence[Column] | None = None) -> list[str]:
    """Explain the numbers of the given columns, of all by default; columns without values are left out."""
    rows = list(_rows(table))
    titles = {column.title for column in filled(columns or all_columns(table), rows)}
    lines = [
        _ranking(table),
        *_gain_notes(table, titles),
        *(_noted(notes | (OF_WINDOWS if _folds(table) else {}), titles & set(notes)) for notes in COLUMN_NOTES),
        _cost_note(table, titles),
    ]
    lines += [_noted(SPECTRUM_NOTES, titles), list_note(titles), small_parts(table)]
    return [line for line in lines if line]


def _rows(table: Table) -> Iterator[Row]:
    return (row for section in table.sections for row in section.rows)


def _folds(table: Table) -> int:
    """Return the number of test windows; 0 for a protocol without them."""
    return (table.header.get("protocol") or {}).get("folds") or 0


def averaged(table: Table) -> str:
    """Return what a score is the mean over."""
    return "test windows, users and seeds" if _folds(table) else "users and seeds"


def _ranking(table: Table) -> str:
    bootstrap = table.across or any(section.slices for section in table.sections)
    how = "with users and seeds as crossed random effects. The seed variance is pooled over the section, so rows with "
    how += "one seed use it too."
    if folds := _folds(table):
        how = f"over {folds} test windows ({folds - 1} degrees of freedom)."
    return f"Rows are ranked by test {table.headline}. [low, high]: 95 % interval of the mean, {how}" + (
        " Parts of the test and comparisons over data sets: bootstrap." if bootstrap else ""
    )


def _gain_notes(table: Table, titles: set[str]) -> Iterator[str]:
    pair, over = ("window", "test windows") if _folds(table) else ("user", "users and seeds")
    if f"vs {REFERENCE} %" in titles:
        yield f"vs {REFERENCE} %: gain in test {table.headline} over '{REFERENCE}', with an interval paired by {pair}."
    if "vs best rival %" in titles:
        rival = "gain over the best other row that is not a baseline"
        yield f"vs best rival %: {rival}, with an interval paired by {pair}."
    if any(sum(bool(row.metrics) for row in section.rows) > 1 for section in table.sections):
        yield (
            f"Tests: paired t test of {table.headline} over {over}. p-values against '{REFERENCE}' are Holm-adjusted "
            "over the section's rows, all others over all pairs, since the data choose the best row."
        )


COLUMN_NOTES = (  # title of a column -> its explanation; a line per dict
    {
        "group": f"Group: rows sharing a letter do not differ significantly (adjusted p ≥ {ALPHA}).",
        "effect size": f"Effect size: mean over standard deviation of the users' differences from '{REFERENCE}'.",
    },
    {
        "first": "First: share of resamples of users and seeds in which the row ranks first.",
        "tied": "Tied: share of test targets tied with another item; their metrics are expectations over tie order.",
    },
    {
        "detectable %": f"Detectable: smallest gain found with {round(100 * POWER)} % power at Holm's strictest step.",
    },
)
OF_WINDOWS = {"first": "First: share of resamples of test windows in which the row ranks first."}
COST_NOTES = {
    "trials d/p/f of n": "Trials d/p/f of n: done, pruned and failed trials of n planned.",
    "dims": "Dims: number of searched dimensions.",
    "search": "Search: time of all search trials of the cell.",
    "train": "Train: time of one confirmed run.",
    "params": "Params: trained parameters.",
    "peak MB": "Peak: peak resident memory of the process, with data kept from earlier trials, so without a front.",
    "GPU": "GPU: time of one confirmed run times its share of a GPU.",
    "peak GPU MB": "Peak GPU: peak memory of its tensors on the GPU.",
}
SPECTRUM_NOTES = {
    "erank start": "Erank start: effective rank of the item table before training.",
    "erank": "Erank: effective rank of the item table after training.",
    "text beyond d": "Text beyond d: share of the text's variance after its d leading components.",
    "table beyond d": "Table beyond d: share of the item table's variance along the text's later components.",
    "outside text": "Outside text: share of the item table's variance along no component of the text.",
}


def list_note(titles: Collection[str]) -> str:
    """Explain the metrics of lists that have a column."""
    known = {name: f"{name}: {lists.summary(metric)}" for name, metric in lists.names().items()}
    return _noted(known, set(titles))


def _noted(notes: dict[str, str], titles: set[str]) -> str:
    return " ".join(text for title, text in notes.items() if title in titles)


def _cost_note(table: Table, titles: set[str]) -> str:
    front = (
        f"{FRONT} on the Pareto front of {table.headline} and this cost." if any(r.front for r in _rows(table)) else ""
    )
    return " ".join(filter(None, [_noted(COST_NOTES, titles), front, _unmeasured(table), _conditions(table)]))


def small_parts(table: Table) -> str:
    """Warn of parts of the test with few users: the bootstrap cannot draw values that they lack."""
    small = any(one.users < FEW for section in table.sections for one in section.slices)
    return f"Parts of the test with fewer than {FEW} users have intervals that are too narrow." if small else ""


def _unmeasured(table: Table) -> str:
    fitted = [row for row in _rows(table) if row.fit]
    measured = any(row.costs["energy_wh"] is not None for row in fitted)
    return "" if measured or not fitted else "Energy was not measured: this machine does not report it."


def _conditions(table: Table) -> str:
    """Warn of times that were not measured on the same processor with as much of it."""
    provenance = table.header.get("provenance") or {}
    conditions = {**(provenance.get("machine") or {}), **provenance}
    unlike = {key: conditions[key] for key in CONDITIONS if isinstance(conditions.get(key), list)}
    if not unlike:
        return ""
    return f"Times of rows were not measured alike: {'; '.join(f'{key} {text}' for key, text in facts(unlike))}."


def across_rows(one: Across) -> tuple[list[str], list[list[str]]]:
    """Return titles and texts of a comparison over data sets, best first."""
    titles = ["method", "mean rank [95 %]", "win rate", f"mean gain over {REFERENCE} %"]
    rated = one.critical_difference is not None
    rows = [[_method(s), _plain(s.rank, 2), _plain(s.wins, 2), percent(s.gain)] for s in one.standings]
    if rated:
        titles += ["Elo", "group"]
        rows = [
            [*row, _plain(s.elo, 0) if s.elo else DASH, s.group] for row, s in zip(rows, one.standings, strict=True)
        ]
    return titles, rows


def across_lines(one: Across) -> list[str]:
    """State which methods are compared, which are left out, and how."""
    lines = [
        f"{len(one.standings)} rows with results on all of {len(one.datasets)} data sets: {', '.join(one.datasets)}."
    ]
    lines += [f"Left out: {'; '.join(one.left_out)}."] if one.left_out else []
    if one.critical_difference is not None:
        lines.append(
            f"Critical difference of mean ranks: {one.critical_difference:.2f} (Nemenyi, 5 %); rows within it share a "
            f"letter. Elo: Bradley-Terry rating from wins on data sets, mean 1000; intervals: {ELO_ROUNDS} rounds."
        )
    within = "test windows" if one.folds else "users and seeds"
    how = f"Intervals: bootstrap over data sets and, within each, {within}. Win rate: a tie counts half."
    return [*lines, how, one.too_few] if one.too_few else [*lines, how]


def _method(standing: Standing) -> str:
    return method_label((standing.adapter, standing.encoder)) + (" (baseline)" if standing.baseline else "")


def _plain(value: resampling.Interval, digits: int) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def slice_groups(section: Section) -> dict[str, list[Slice]]:
    """Group the section's slices by dimension."""
    groups: dict[str, list[Slice]] = {}
    for one in section.slices:
        groups.setdefault(one.dimension, []).append(one)
    return groups


def slice_rows(section: Section, slices: list[Slice]) -> tuple[list[str], list[list[str]]]:
    """Return titles and texts of slices side by side: score with interval, and gain over `id`."""
    titles = ["row", *(f"{one.name} ({one.queries:,})" for one in slices)]
    by_cell = [{score.cell: score for score in one.scores} for one in slices]
    rows = []
    for row in (row for row in section.rows if row.metrics):
        scores = [scores_of[row.cell] for scores_of in by_cell]
        texts = [interval(s.score) + (f", {percent(s.vs_id)} %" if s.vs_id else "") for s in scores]
        rows.append([label(row.cell), *texts])
    return titles, rows


def budget_rows(section: Section) -> tuple[list[str], list[list[str]]]:
    """Return titles and texts of searches at smaller budgets: best of the first k, expected best of any k."""
    searched = [row for row in section.rows if row.best_of]
    steps = sorted({one.k for row in searched for one in row.best_of})
    rows = []
    for row in searched:
        texts = {one.k: f"{score(one.observed)} ({score(one.expected)})" for one in row.best_of}
        rows.append([label(row.cell), *(texts.get(k, DASH) for k in steps)])
    return ["row", *(f"k = {k}" for k in steps)], rows

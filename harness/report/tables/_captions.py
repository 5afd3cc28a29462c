"""What stands around a table's numbers, in words: shared by the formats that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.data import cards
from harness.report.tables._across import Across, Standing
from harness.report.tables._across import label as method_label
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
    trials,
)
from harness.report.tables._scores import REFERENCE
from harness.report.tables._slices import Slice
from harness.report.tables._table import Row, Section, Table
from harness.stats import resampling
from harness.stats.crossed_effects import ALPHA, POWER
from harness.stats.crossed_effects import FEW as FEW_USERS
from harness.types import EXPECTED, MIDDLE

FEW = 30  # users of a part of the test, below which a bootstrap covers less than it says
TITLES = {
    "protocol": "Protocol",
    "prep": "Preparation",
    "budget": "Budget of every cell",
    "engine": "Search",
    "statistics": "Statistics",
    "code": "Code",
    "provenance": "Provenance",
}
ABOVE = ("protocol", "prep", "budget", "engine", "statistics", "code")  # before the tables; provenance may stand after
TIES = {EXPECTED: "expectation over their order", MIDDLE: "mid-rank (earlier rule)"}
CODE = ("harness", "git", "dirty", "date")  # of the provenance
GIT = ("git", "dirty")  # what an installed package has nothing to say of
CARD = ("hash", "users", "items", "events", "density", "mean_length", "tie_share", "test_tie_share", "cold_test_share")


def facts(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """(name, text) of each plain value; nested objects are flattened with a dot."""
    pairs = []
    for key, value in values.items():
        if isinstance(value, dict):
            pairs += facts(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            pairs.append((f"{prefix}{key}".replace("_", " "), ", ".join(fact(key, item) for item in value)))
        else:
            pairs.append((f"{prefix}{key}".replace("_", " "), fact(key, value)))
    return pairs


def line(title: str, values: dict[str, Any]) -> str:
    return f"{title}: " + " · ".join(f"{name} {text}" for name, text in facts(values))


STATISTICS = {
    "intervals": f"{round(100 * resampling.LEVEL)} %, Student's t over users and seeds as crossed random effects, seed "
    f"variance pooled over a section; parts of the test and data sets: bootstrap, {resampling.ROUNDS:,} rounds",
    "test": f"paired t over users and seeds, two-sided; below {FEW_USERS} users also sign flips",
    "correction": "Holm, over the section's rows against the best and against id, and over all pairs for groups",
}


def header(table: Table, part: str) -> dict[str, Any]:
    """A part of the header; the protocol with what no choice can change, and without what its split does not use."""
    if part == "statistics":
        return STATISTICS
    if part == "code":
        known = table.header.get("provenance") or {}
        return {key: known[key] for key in CODE if key in known and (known.get("git") or key not in GIT)}
    values = dict(table.header.get(part) or {})
    if part == "budget" and table.header.get("at_trials"):
        return values | {"cut": f"as if each search had ended after its first {table.header['at_trials']} trials"}
    if part != "protocol" or not values:
        return values
    if values.get("split") == "loo":
        values.pop("quantile", None)
    opened = table.header.get("test_opened")
    return (
        values
        | {"candidates": "all items", "ties": TIES[table.header.get("ties", EXPECTED)]}
        | ({"test openings": opened} if opened else {})
    )


def header_lines(table: Table, parts: tuple[str, ...]) -> list[str]:
    found = [(part, header(table, part)) for part in parts]
    return [line(TITLES[part], values) for part, values in found if values]


def title(section: Section) -> str:
    return f"{section.dataset} × {section.backbone}"


def data(section: Section) -> dict[str, Any]:
    """What of a data set's card stands at its tables."""
    known = {key: section.card[key] for key in CARD if section.card.get(key) is not None}
    return known | ({"test_users": section.test_users} if section.test_users else {})


def section_lines(section: Section) -> list[str]:
    """The data set in a line, and each of its warnings."""
    lines = [line("Data", data(section))] if data(section) else []
    return lines + [f"Warning: {text}" for text in warnings(section)]


def warnings(section: Section) -> list[str]:
    """Those of the data set's card, then those of the section's own numbers."""
    return [*(section.card.get("warnings") or []), *section.cautions]


def cards_of(table: Table) -> list[tuple[str, list[str]]]:
    """Each data set once, with all that its card says."""
    found = {s.dataset: [f"{label}: {text}" for label, text in cards.rows(s.card)] for s in table.sections}
    return [(name, lines) for name, lines in found.items() if lines]


def parity(table: Table, section: Section) -> str:
    """What each row of the section was given, and which rows had less."""
    budget = table.header.get("budget") or {}
    tuned = [row for row in section.rows if row.trials.planned]
    planned = sorted({row.trials.planned for row in tuned})
    trained = [row for row in section.rows if not row.cell.is_baseline] or section.rows
    seeds = sorted({row.seeds_planned for row in trained if row.state != "skipped"})
    parts = [f"{_either(planned)} trial{'s' if planned != [1] else ''}"] if planned else []
    parts += ["no search (default configurations)"] if budget.get("trials") == 0 else []
    parts += [f"up to {budget['cell_seconds']:g} trial seconds"] if budget.get("cell_seconds") else []
    parts += [f"up to {section.pace * budget['epochs']} epochs"] if "epochs" in budget else []
    parts += [f"{_either(seeds)} seed{'s' if seeds != [1] else ''}"] if seeds else []
    less = [
        f"{label(row.cell)} ({trials(row)} trials, {row.seeds_done}/{row.seeds_planned} seeds)"
        for row in _short(section)
    ]
    tail = f"; less than planned: {', '.join(less)}" if less else "; every row had all of it"
    told = f"Parity: planned for each trained row {', '.join(parts)}{tail}."
    return " ".join([told, *_settings(table, trained)])


def _settings(table: Table, rows: Sequence[Row]) -> list[str]:
    """A sentence a published setting: what it is, and which rows have their parameters of it."""
    told = []
    for name in sorted({row.spent.setting for row in rows} - {""}):
        about = (table.header.get("settings") or {}).get(name, "").rstrip(".")
        own = [label(row.cell) for row in rows if row.spent.setting == name]
        who = "every trained row" if len(own) == len(rows) else ", ".join(own)
        told.append(f"Published setting {name}{f' ({about})' if about else ''}: {who}.")
    return told


def notes(section: Section) -> list[str]:
    """What a reader must know of the section's components, and every row that is not simply done, with its state and
    reason: holes are said, not hidden."""
    odd = [row for row in section.rows if row.fit is None or row.state != "done" or row.reason]
    holes = [f"{label(row.cell)}: {row.state}" + (f", {row.reason}" if row.reason else "") for row in odd]
    return [*section.remarks, *holes]


def tied(section: Section) -> list[str]:
    """Names of the rows that cannot be told from the best."""
    return [label(row.cell) for row in section.rows if "tied" in row.marks]


def footnotes(table: Table) -> list[str]:
    """What the marks and numbers mean; of the marks, those that the table holds."""
    used = {mark for section in table.sections for row in section.rows for mark in row.marks}
    return explanations(table) + [f"{SYMBOLS[mark]} {text}" for mark, text in MEANINGS.items() if mark in used]


def explanations(table: Table) -> list[str]:
    """What the numbers mean, and how they were made."""
    return [
        f"Rows are ranked by test {table.headline}. [low, high]: 95 % interval of the mean over users and seeds as "
        "crossed random effects; the seed variance is pooled over the rows of the section, which a row with one seed "
        "borrows. Parts of the test and comparisons over data sets: bootstrap.",
        f"'vs {REFERENCE}' and 'vs best rival' are gains in test {table.headline} in percent, with intervals paired by "
        "user; the best rival is the best other row that is no baseline.",
        f"p-values are of a paired t test in test {table.headline} over users and seeds, adjusted after Holm "
        f"over the section's rows, once against the best and once against '{REFERENCE}'.",
        f"Group: rows that share a letter cannot be told apart (adjusted p ≥ {ALPHA}, Holm over all pairs of the "
        f"section). Effect size: mean over standard deviation of the users' differences from '{REFERENCE}'.",
        "First: share of resamples of users and seeds in which the row ranks first. Tied: share of test targets that "
        "share their score with another item; a metric of such a target is its expectation over the order of the tie.",
        f"Detectable: the smallest gain that the test finds with a power of {round(100 * POWER)} %, at the "
        "strictest step of Holm.",
        "Trials d/p/f of n: done, pruned and failed, of those planned. Dims: dimensions searched. Search: all trials "
        "of the cell; train: one confirmed run. Params: trained parameters. Peak: resident memory of the process. "
        f"{FRONT} no other row is as good for less." + _unmeasured(table),
        "Erank: effective rank of the item table, start: before training. Text beyond d: share of the text's variance "
        "after its d leading components; table beyond d, outside text: of the item table's variance, the share along "
        "those components of the text, and along none of it.",
        *_small(table),
    ]


def _small(table: Table) -> list[str]:
    """A caution where a part of the test is of few users: nothing was drawn that they do not hold."""
    small = [one for section in table.sections for one in section.slices if one.users < FEW]
    return [f"Parts of the test with fewer than {FEW} users have intervals that are too narrow."] if small else []


def _unmeasured(table: Table) -> str:
    fitted = [row for section in table.sections for row in section.rows if row.fit]
    known = any(row.costs["energy_wh"] is not None for row in fitted)
    return "" if known or not fitted else " Energy: this machine did not say."


def across_rows(one: Across) -> tuple[list[str], list[list[str]]]:
    """Titles and texts of a comparison over data sets, best first."""
    titles = ["method", "mean rank [95 %]", "wins over others", f"mean gain over {REFERENCE} %"]
    rated = one.critical_difference is not None
    rows = [[_method(s), _plain(s.rank, 2), _plain(s.wins, 2), percent(s.gain)] for s in one.standings]
    if rated:
        titles += ["Elo", "group"]
        rows = [
            [*row, _plain(s.elo, 0) if s.elo else DASH, s.group] for row, s in zip(rows, one.standings, strict=True)
        ]
    return titles, rows


def across_lines(one: Across) -> list[str]:
    """What is compared, what is left out, and why there is no more."""
    lines = [f"{len(one.standings)} rows with a result on each of {len(one.datasets)}: {', '.join(one.datasets)}."]
    lines += [f"Left out: {'; '.join(one.left_out)}."] if one.left_out else []
    if one.critical_difference is not None:
        lines.append(
            f"Critical difference of mean ranks {one.critical_difference:.2f} (Nemenyi, 5 %): rows that share a letter "
            "lie within it. Elo: Bradley-Terry over wins on data sets, mean 1000."
        )
    how = "Intervals: bootstrap over data sets and, within each, users and seeds. Wins: a tie is half."
    return [*lines, how, one.too_few] if one.too_few else [*lines, how]


def _method(standing: Standing) -> str:
    return method_label((standing.adapter, standing.encoder)) + (" (baseline)" if standing.baseline else "")


def _plain(value: resampling.Interval, digits: int) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def slice_groups(section: Section) -> dict[str, list[Slice]]:
    """The section's slices by what they cut by."""
    found: dict[str, list[Slice]] = {}
    for one in section.slices:
        found.setdefault(one.dimension, []).append(one)
    return found


def slice_rows(section: Section, slices: list[Slice]) -> tuple[list[str], list[list[str]]]:
    """Titles and texts of slices side by side: score with interval, and gain over `id`."""
    titles = ["row", *(f"{one.name} ({one.queries:,})" for one in slices)]
    known = [{score.cell: score for score in one.scores} for one in slices]
    rows = []
    for row in (row for row in section.rows if row.metrics):
        scores = [own[row.cell] for own in known]
        texts = [interval(s.score) + (f", {percent(s.vs_id)} %" if s.vs_id else "") for s in scores]
        rows.append([label(row.cell), *texts])
    return titles, rows


def budget_rows(section: Section) -> tuple[list[str], list[list[str]]]:
    """Titles and texts of the searches at smaller budgets: observed best of the first k, expected best of any k."""
    searched = [row for row in section.rows if row.best_of]
    steps = sorted({one.k for row in searched for one in row.best_of})
    rows = []
    for row in searched:
        known = {one.k: f"{score(one.observed)} ({score(one.expected)})" for one in row.best_of}
        rows.append([label(row.cell), *(known.get(k, DASH) for k in steps)])
    return ["row", *(f"k = {k}" for k in steps)], rows


def _short(section: Section) -> list[Row]:
    lacking = ("done", "pruned")
    return [
        row
        for row in section.rows
        if sum(getattr(row.trials, name) for name in lacking) < row.trials.planned or row.seeds_done < row.seeds_planned
    ]


def _either(values: list[int]) -> str:
    return " or ".join(map(str, values))

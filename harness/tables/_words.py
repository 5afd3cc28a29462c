"""How a table's numbers and facts read in words: shared by the formats that people read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from harness import cards, stats
from harness.tables._sample import Gain
from harness.tables._table import ALPHA, REFERENCE, Row, Section, Table
from harness.types import NO_TEXT, Cell

DASH = "–"
SYMBOLS = {"best": "★", "second": "☆", "tied": "≈", "differs": "*", "short": "†"}
MEANINGS = {
    "best": "best mean of the section",
    "second": "second best mean",
    "tied": f"not distinguishable from the best (adjusted p ≥ {ALPHA})",
    "differs": f"differs from '{REFERENCE}' (adjusted p < {ALPHA})",
    "short": "had less than planned: fewer finished trials or seeds",
}
TITLES = {
    "protocol": "Protocol",
    "prep": "Preparation",
    "budget": "Budget of every cell",
    "engine": "Search",
    "provenance": "Provenance",
}
ABOVE = ("protocol", "prep", "budget", "engine")  # what stands before the tables; provenance may stand after
CARD = ("users", "items", "events", "density", "mean_length", "tie_share", "test_tie_share", "cold_test_share")


@dataclass(frozen=True)
class Column:
    """A column of the compact tables. `keep`: columns of a lower one leave first where width is short. `value`: what
    the column's facts about a row are sorted by, None for scores and names."""

    title: str
    text: Callable[[Row], str]
    keep: int
    right: bool = True
    value: Callable[[Row], float | None] | None = None


def columns(table: Table) -> list[Column]:
    """The compact columns: the headline metric with its interval, the others at its cut-off, then the facts."""
    head, at = table.headline, table.headline[table.headline.rindex("@") :]
    others = [name for name in table.metrics if name.endswith(at) and name != head]
    return [
        Column("#", lambda row: str(row.rank or DASH), 99),
        Column("", symbols, 98, right=False),
        Column("adapter", lambda row: adapter(row.cell), 99, right=False),
        Column("encoder", lambda row: encoder(row.cell), 90, right=False),
        Column(f"{head} [95 %]", lambda row: interval(row.metrics[head]) if row.metrics else row.state, 99),
        *(Column(name, _mean_of(name), 60) for name in others),
        *_warmth(table, head),
        *_facts(head),
    ]


def _warmth(table: Table, head: str) -> list[Column]:
    """The headline metric of targets that training saw and of those it never did, where a row knows them apart."""

    def value(row: Row, name: str) -> float | None:
        return row.fit and row.fit.info.get(f"test_{name}_{head}")

    def column(name: str, keep: int) -> Column:
        return Column(f"{head} {name}", lambda row: score(value(row, name)), keep, value=lambda row: value(row, name))

    rows = [row for section in table.sections for row in section.rows]
    return [column("warm", 26), column("cold", 25)] if any(value(row, "cold") is not None for row in rows) else []


def _facts(head: str) -> list[Column]:
    """Gains and costs of a row."""

    def fact(title: str, keep: int, text: Callable[[Row], str], value: Callable[[Row], float | None]) -> Column:
        return Column(title, text, keep, value=value)

    def of_fit(name: str, keep: int, title: str, words: Callable[[Any], str]) -> Column:
        def value(row: Row) -> float | None:
            return row.fit and getattr(row.fit, name)

        return fact(title, keep, lambda row: words(value(row)), value)

    return [
        fact("vs id %", 80, lambda r: gain(r.vs_id, "differs" in r.marks), lambda r: r.vs_id and r.vs_id.percent),
        fact("vs best rival %", 50, lambda r: gain(r.vs_rival), lambda r: r.vs_rival and r.vs_rival.percent),
        of_fit("valid", 20, f"valid {head}", score),
        fact("seeds", 70, lambda r: f"{r.seeds_done}/{r.seeds_planned}", lambda r: r.seeds_done),
        fact("trials d/p/f of n", 40, trials, lambda r: r.trials.done + r.trials.pruned),
        fact("search", 10, lambda r: seconds(r.search_seconds or None), lambda r: r.search_seconds or None),
        of_fit("seconds", 30, "train", seconds),
        of_fit("parameters", 45, "params", count),
        of_fit("effective_rank", 35, "erank", lambda value: number(value, 1)),
    ]


def safe(text: str) -> str:
    """Text without what a reader's screen would obey: line breaks become blanks, other control and direction
    characters U+FFFD."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def symbols(row: Row) -> str:
    """The row's marks; the star of `differs` stands at the gain."""
    return "".join(SYMBOLS[mark] for mark in row.marks if mark != "differs")


def adapter(cell: Cell) -> str:
    return cell.adapter + (" (baseline)" if cell.is_baseline else "")


def encoder(cell: Cell) -> str:
    return DASH if cell.encoder == NO_TEXT else cell.encoder


def label(cell: Cell) -> str:
    """A row's name where no column says the encoder.

    >>> label(Cell("beauty", "minilm", "sasrec", "svd")), label(Cell("beauty", "none", "sasrec", "id"))
    ('svd · minilm', 'id')
    """
    return adapter(cell) if cell.encoder == NO_TEXT else f"{adapter(cell)} · {cell.encoder}"


def number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def score(value: float | None) -> str:
    return number(value, 4)


def interval(value: stats.Interval) -> str:
    """
    >>> interval(stats.Interval(0.0412, 0.0404, 0.042))
    '0.0412 [0.0404, 0.0420]'
    """
    return f"{value.mean:.4f} [{value.low:.4f}, {value.high:.4f}]"


def gain(value: Gain | None, differs: bool = False) -> str:
    if value is None:
        return DASH
    return f"{value.percent:+.1f} [{value.low:+.1f}, {value.high:+.1f}]" + (SYMBOLS["differs"] if differs else "")


def trials(row: Row) -> str:
    value = row.trials
    return f"{value.done}/{value.pruned}/{value.failed} of {value.planned}" if value.planned else DASH


def seconds(value: float | None) -> str:
    """
    >>> seconds(4.21), seconds(312), seconds(9000)
    ('4.2 s', '5.2 min', '2.5 h')
    """
    if value is None:
        return DASH
    unit, size = next(((u, s) for u, s in (("h", 3600), ("min", 60)) if value >= s), ("s", 1))
    return f"{value / size:.1f} {unit}"


def count(value: int | None) -> str:
    """
    >>> count(812), count(46_123), count(1_250_000)
    ('812', '46.1k', '1.2M')
    """
    if value is None:
        return DASH
    unit, size = next(((u, s) for u, s in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if value >= s), ("", 1))
    return f"{value / size:.1f}{unit}" if unit else str(value)


def fact(key: str, value: Any) -> str:
    """A value of a header or card as text: shares and densities in percent, thousands set apart.

    >>> fact("density", 0.000733), fact("users", 22363), fact("filter_seen", True)
    ('0.0733 %', '22,363', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and (key == "density" or key.endswith("share")):
        return f"{100 * value:.3g} %"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return DASH if value is None else str(value)


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


def header(table: Table, part: str) -> dict[str, Any]:
    """A part of the header; the protocol with what no choice can change, and without what its split does not use."""
    values = dict(table.header.get(part) or {})
    if part != "protocol" or not values:
        return values
    if values.get("split") == "loo":
        values.pop("quantile", None)
    opened = table.header.get("test_opened")
    return values | {"candidates": "all items", "ties": "mid-rank"} | ({"test openings": opened} if opened else {})


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
    return lines + [f"Warning: {text}" for text in section.card.get("warnings") or []]


def cards_of(table: Table) -> list[tuple[str, list[str]]]:
    """Each data set once, with all that its card says."""
    found = {s.dataset: [f"{label}: {text}" for label, text in cards.told(s.card)] for s in table.sections}
    return [(name, lines) for name, lines in found.items() if lines]


def parity(table: Table, section: Section) -> str:
    """What each row of the section was given, and which rows had less."""
    budget = table.header.get("budget") or {}
    tuned = [row for row in section.rows if row.trials.planned]
    planned = sorted({row.trials.planned for row in tuned})
    trained = [row for row in section.rows if not row.cell.is_baseline] or section.rows
    seeds = sorted({row.seeds_planned for row in trained})
    parts = [f"{_either(planned)} trials"] if planned else []
    parts += [f"up to {budget['cell_seconds']:g} trial seconds"] if budget.get("cell_seconds") else []
    parts += [f"up to {section.pace * budget['epochs']} epochs"] if "epochs" in budget else []
    parts.append(f"{_either(seeds)} seeds")
    less = [
        f"{label(row.cell)} ({trials(row)} trials, {row.seeds_done}/{row.seeds_planned} seeds)"
        for row in _short(section)
    ]
    tail = f"; less than planned: {', '.join(less)}" if less else "; every row had all of it"
    return f"Parity: planned for each trained row {', '.join(parts)}{tail}."


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
    return [
        f"Rows are ranked by test {table.headline}. [low, high]: 95 % interval of the mean under a joint bootstrap "
        f"over users and seeds ({stats.ROUNDS} rounds); where a row has one seed, over users alone.",
        f"'vs {REFERENCE}' and 'vs best rival' are gains in test {table.headline} in percent, with intervals paired by "
        "user; the best rival is the best other row that is no baseline.",
        f"p-values are of a paired sign-flip test in test {table.headline} over users and seeds ({stats.FLIPS} flips), "
        f"adjusted after Holm over the section's rows, once against the best and once against '{REFERENCE}'.",
        "Trials d/p/f of n: done, pruned and failed, of those planned. Params: trained parameters. Erank: effective "
        "rank of the item table. Search: all trials of the cell; train: one confirmed run.",
        *(f"{SYMBOLS[mark]} {text}" for mark, text in MEANINGS.items() if mark in used),
    ]


def _short(section: Section) -> list[Row]:
    lacking = ("done", "pruned")
    return [
        row
        for row in section.rows
        if sum(getattr(row.trials, name) for name in lacking) < row.trials.planned or row.seeds_done < row.seeds_planned
    ]


def _either(values: list[int]) -> str:
    return " or ".join(map(str, values))


def _mean_of(name: str) -> Callable[[Row], str]:
    return lambda row: score(row.metrics[name].mean) if row.metrics else DASH

"""Columns of the tables in the formats for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.metrics.lists import _all as lists
from harness.report.tables import _format as f
from harness.report.tables._table import Row, Table

COMPACT = 10
TOPICS = {
    "tests": "Tests, stability and ties",
    "parity": "Parity",
    "cost": "Cost",
    "spectrum": "Spectrum of the item table",
    "lists": "Top-10 lists",
}


@dataclass(frozen=True)
class Column:
    """A column of the tables.

    ``keep``: priority; where width is short, columns with the lowest are dropped first, and those below `COMPACT` are
    never in a compact table. ``value``: sort key of a row, None for scores and names. ``topic``: the separate table
    (`TOPICS`) that shows the column in formats with such tables.
    """

    title: str
    text: Callable[[Row], str]
    keep: int
    right: bool = True
    value: Callable[[Row], float | None] | None = None
    topic: str = ""


def all_columns(table: Table) -> list[Column]:
    """Return all columns: the headline metric with its interval, other metrics at its cut-off, then the facts."""
    head, at = table.headline, table.headline[table.headline.rindex("@") :]
    others = [name for name in table.metrics if name.endswith(at) and name != head]
    return [
        *names(),
        Column(f"{head} [95 %]", lambda row: f.interval(row.metrics[head]) if row.metrics else row.state, 99),
        Column("group", lambda row: row.group or f.DASH, 75, right=False),
        _fact("tests", "first", 55, lambda row: row.first, lambda row: f.share(row.first)),
        *(Column(name, _mean_of(name), 60) for name in others),
        *_warmth(table, head),
        _fact("tests", "tied", 15, lambda row: row.tied, lambda row: f.share(row.tied)),
        *_facts(head),
    ]


def _warmth(table: Table, head: str) -> list[Column]:
    """Return the headline metric on warm (seen in training) and cold targets, if any row recorded it."""

    def value(row: Row, name: str) -> float | None:
        return row.fit and row.fit.info.get(f"test_{name}_{head}")

    def column(name: str, keep: int) -> Column:
        return Column(f"{head} {name}", lambda row: f.score(value(row, name)), keep, value=lambda row: value(row, name))

    rows = [row for section in table.sections for row in section.rows]
    return [column("warm", 26), column("cold", 25)] if any(value(row, "cold") is not None for row in rows) else []


def names() -> list[Column]:
    """Return the columns that identify a row."""
    return [
        Column("#", lambda row: str(row.rank or f.DASH), 99),
        Column("", f.symbols, 98, right=False),
        Column("adapter", lambda row: f.adapter(row.cell), 99, right=False),
        Column("encoder", lambda row: f.encoder(row.cell), 90, right=False),
    ]


def compact(table: Table) -> list[Column]:
    """Return the columns of a compact table."""
    return [column for column in all_columns(table) if column.keep >= COMPACT]


def of_topic(table: Table, topic: str) -> list[Column]:
    """Return the columns of one of `TOPICS` that have a value in any row."""
    rows = [row for section in table.sections for row in section.rows]
    return filled([column for column in all_columns(table) if column.topic == topic], rows)


def filled(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    """Return the columns that have a value in any row."""
    return [column for column in columns if any(column.text(row) != f.DASH for row in rows)]


def _facts(head: str) -> list[Column]:
    return [*_gains(head), *_budget(), *_costs(), *_spectrum(), *_lists()]


def _fact(
    topic: str, title: str, keep: int, value: Callable[[Row], Any], text: Callable[[Row], str], right: bool = True
) -> Column:
    return Column(title, text, keep, right, value, topic)


def _gains(head: str) -> list[Column]:
    """Return the gains of a row, and the statistics of its gain over `id`."""

    def of_gain(title: str, name: str, words: Callable[[Any], str]) -> Column:
        def value(row: Row) -> float | None:
            return row.vs_id and getattr(row.vs_id, name)

        return _fact("tests", title, 5, value, lambda row: words(value(row)))

    def valid(row: Row) -> float | None:
        return row.fit and row.fit.valid

    return [
        _fact("", "vs id %", 80, lambda r: r.vs_id and r.vs_id.percent, _vs_id),
        _fact("", "vs best rival %", 50, lambda r: r.vs_rival and r.vs_rival.percent, lambda r: f.gain(r.vs_rival)),
        _fact("", f"valid {head}", 20, valid, lambda r: f.score(valid(r))),
        of_gain("difference from id", "difference", lambda v: f.DASH if v is None else f"{v:+.4f}"),
        of_gain("effect size", "effect", lambda v: f.DASH if v is None else f"{v:+.3f}"),
        of_gain("detectable %", "detectable", lambda v: f.number(v, 1)),
        of_gain("adjusted p", "p", f.p_value),
    ]


def _vs_id(row: Row) -> str:
    return f.gain(row.vs_id, "differs" in row.marks)


def _budget() -> list[Column]:
    """Return the planned and used budget of a row."""
    return [
        _fact("parity", "seeds", 70, lambda r: r.seeds_done, lambda r: f"{r.seeds_done}/{r.seeds_planned}"),
        _fact("parity", "trials d/p/f of n", 40, lambda r: r.trials.done + r.trials.pruned, f.trials),
        _fact("parity", "epochs", 5, lambda r: r.spent.epochs, lambda r: f.count(r.spent.epochs or None)),
        _fact(
            "parity", "dims", 5, lambda r: r.spent.searched and len(r.spent.searched), lambda r: f.dimensions(r.spent)
        ),
        _fact("parity", "tuned", 5, lambda r: None, lambda r: f.tuned(r.spent), right=False),
        _fact("parity", "warm start", 5, lambda r: None, lambda r: r.spent.warm_start or f.DASH, right=False),
        _fact("parity", "limit", 5, lambda r: r.spent.cell_seconds, lambda r: f.seconds(r.spent.cell_seconds)),
    ]


def _costs() -> list[Column]:
    """Return the costs of a row, marked where it is on the Pareto front of quality and that cost."""
    shown = (
        ("search_seconds", "search", 10, lambda v: f.seconds(v or None)),
        ("train_seconds", "train", 30, f.seconds),
        ("parameters", "params", 45, f.count),
        ("peak_mb", "peak MB", 12, lambda v: f.number(v, 0)),
        ("energy_wh", "energy Wh", 5, lambda v: f.number(v, 3)),
        ("gpu_seconds", "GPU", 6, f.seconds),
        ("peak_vram_mb", "peak GPU MB", 6, lambda v: f.number(v, 0)),
    )
    return [_cost(*one) for one in shown]


def _cost(name: str, title: str, keep: int, words: Callable[[Any], str]) -> Column:
    def text(row: Row) -> str:
        cost = words(row.costs[name])
        return f"{cost} {f.FRONT}" if name in row.front and cost != f.DASH else cost

    return _fact("cost", title, keep, lambda row: row.costs[name], text)


def _spectrum() -> list[Column]:
    """Return the facts about the spectrum of the item table."""

    def info(name: str) -> Callable[[Row], float | None]:
        return lambda row: row.fit and row.fit.info.get(name)

    def rank(row: Row) -> float | None:
        return row.fit and row.fit.effective_rank

    start = info("effective_rank_start")
    shares = {
        "text beyond d": info("text_mass_beyond_d"),
        "table beyond d": info("table_mass_beyond_d"),
        "outside text": info("table_mass_outside_text"),
    }
    return [
        _fact("spectrum", "erank start", 5, start, lambda row: f.number(start(row), 1)),
        _fact("spectrum", "erank", 35, rank, lambda row: f.number(rank(row), 1)),
        *(_fact("spectrum", title, 5, value, _share_of(value)) for title, value in shares.items()),
    ]


def _lists() -> list[Column]:
    """Return the metrics of the lists beyond the target's rank."""

    def column(name: str) -> Column:
        def value(row: Row) -> float | None:
            return row.fit and row.fit.info.get(name)

        return _fact("lists", name, 5, value, lambda row: f.number(value(row), 3))

    return [column(name) for name in lists.names()]


def _share_of(value: Callable[[Row], float | None]) -> Callable[[Row], str]:
    return lambda row: f.share(value(row))


def _mean_of(name: str) -> Callable[[Row], str]:
    return lambda row: f.score(row.metrics[name].mean) if row.metrics else f.DASH

"""The columns of the page's tables: what each says, in which unit, which way is better, and a row's value in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness.tables._table import Row, Table

GROUPS = {
    "quality": "Quality",
    "cutoffs": "Other cut-offs",
    "cost": "Cost",
    "spectral": "Spectrum",
    "search": "Search",
}
SHOWN = ("quality", "cost")  # groups that are open at first


@dataclass(frozen=True)
class Column:
    """``kind``: how a value reads: ``score`` (mean with interval), ``number``, ``seconds``, ``count``, ``share``,
    ``trials``, ``seeds``. ``better``: ``high``, ``low`` or ``none``; ``digits`` of a number after the point."""

    key: str
    title: str
    group: str
    kind: str
    better: str
    unit: str
    help: str
    digits: int = 2


Value = Callable[[Row], Any]

INFO = {
    "information_abundance": ("abundance", "none", "sum of the item table's singular values over the largest, 1 to d"),
    "participation_ratio": ("participation", "none", "how many directions share the item table's variance, 1 to d"),
    "stable_rank": ("stable rank", "none", "variance of the item table over that of its first direction, 1 to d"),
    "components_90": ("90 % in", "none", "leading components of the item table that hold 90 % of its variance"),
    "components_99": ("99 % in", "none", "leading components of the item table that hold 99 % of its variance"),
    "mean_cosine": ("cosine", "none", "mean cosine over pairs of items: 1, all point the same way"),
    "uniformity": ("uniformity", "none", "of item directions: 0, all agree; about -4, spread over the sphere"),
    "alignment": ("alignment", "none", "squared distance of states to the items that came next: 0 agree, 4 oppose"),
    "state_uniformity": ("state unif.", "none", "of state directions: 0, all agree; about -4, spread out"),
}


def columns(table: Table) -> list[tuple[Column, Value]]:
    """Every column with its value: scores as [mean, low, high], trials as [done, pruned, failed, planned], seeds as
    [done, planned], all else a number; None where a row has none."""
    return [*_scores(table), *_cost(), *_spectral(table), *_search(table)]


def described(table: Table) -> list[dict[str, Any]]:
    return [asdict(column) for column, _ in columns(table)]


def values(row: Row, known: list[tuple[Column, Value]]) -> list[Any]:
    return [value(row) for _, value in known]


def _scores(table: Table) -> Iterable[tuple[Column, Value]]:
    at = table.headline[table.headline.rindex("@") :]
    for name in sorted(table.metrics, key=lambda name: (not name.endswith(at), name != table.headline)):
        group = "quality" if name.endswith(at) else "cutoffs"
        text = f"test {name}, mean over users and seeds with its 95 % interval"
        yield Column(f"m:{name}", name, group, "score", "high", "0 to 1", text, 4), _score_of(name)


def _cost() -> Iterable[tuple[Column, Value]]:
    def fit(name: str) -> Value:
        return lambda row: row.fit and getattr(row.fit, name)

    yield Column("parameters", "params", "cost", "count", "low", "numbers", "trained parameters"), fit("parameters")
    text = "wall-clock time of one confirmed run, mean over seeds"
    yield Column("train_seconds", "train", "cost", "seconds", "low", "seconds", text), fit("seconds")
    text = "wall-clock time of all search trials of the row"
    yield (
        Column("search_seconds", "search", "cost", "seconds", "low", "seconds", text),
        lambda row: row.search_seconds or None,
    )


def _spectral(table: Table) -> Iterable[tuple[Column, Value]]:
    text = "effective rank of the trained item table: exp of the entropy of its singular values, 1 to d"
    yield (
        Column("effective_rank", "eff. rank", "spectral", "number", "none", "directions", text, 1),
        lambda row: row.fit and row.fit.effective_rank,
    )
    held = {name for section in table.sections for row in section.rows if row.fit for name in row.fit.info}
    for name, (title, better, text) in INFO.items():
        if name in held:
            yield Column(f"i:{name}", title, "spectral", "number", better, "", text), _info_of(name)


def _search(table: Table) -> Iterable[tuple[Column, Value]]:
    text = f"validation {table.headline} that the search chose the row by; no estimate of the test score"
    yield Column("valid", "valid", "search", "number", "high", "0 to 1", text, 4), lambda row: row.fit and row.fit.valid
    text = "search trials done / pruned / failed of those planned"
    yield Column("trials", "trials", "search", "trials", "none", "trials", text), _trials
    text = "confirmed seeds of those planned"
    yield (
        Column("seeds", "seeds", "search", "seeds", "none", "seeds", text),
        lambda row: [row.seeds_done, row.seeds_planned] if row.seeds_planned else None,
    )


def _score_of(name: str) -> Value:
    def value(row: Row) -> list[float] | None:
        found = row.metrics.get(name)
        return [found.mean, found.low, found.high] if found else None

    return value


def _info_of(name: str) -> Value:
    def value(row: Row) -> float | None:
        found = row.fit and row.fit.info.get(name)
        return found if isinstance(found, int | float) and not isinstance(found, bool) else None

    return value


def _trials(row: Row) -> list[int] | None:
    own = row.trials
    return [own.done, own.pruned, own.failed, own.planned] if own.planned else None

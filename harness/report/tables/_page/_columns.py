"""The columns of the page's tables: what each says, in which unit, which way is better, and a row's value in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness.report.tables._format import tuned
from harness.report.tables._table import Row, Table

GROUPS = {
    "quality": "Quality",
    "cutoffs": "Other cut-offs",
    "cost": "Cost",
    "spectral": "Spectrum",
    "search": "Search",
}
SHOWN = ("quality", "cost")  # groups that are open at first


@dataclass(frozen=True)
class PageColumn:
    """``kind``: how a value reads: ``score`` (mean with interval), ``number``, ``seconds``, ``count``, ``share``,
    ``trials``, ``seeds``, ``word``. ``better``: ``high``, ``low`` or ``none``. ``digits``: of a number, after the
    point."""

    key: str
    title: str
    group: str
    kind: str
    better: str
    unit: str
    help: str
    digits: int = 2


Value = Callable[[Row], Any]

COST = {  # of the costs that a table may hold
    "parameters": ("params", "count", "numbers", "trained parameters"),
    "train_seconds": ("train", "seconds", "seconds", "wall-clock time of one confirmed run, mean over seeds"),
    "search_seconds": ("search", "seconds", "seconds", "wall-clock time of all search trials of the row"),
    "peak_mb": ("memory", "number", "MB", "resident memory at its highest in a confirmed run, the data included"),
    "energy_wh": ("energy", "number", "Wh", "energy of a confirmed run, its share of the machine's"),
}
DIGITS = {"peak_mb": 0, "energy_wh": 3}
INFO = {  # of the numbers in a run's info
    "effective_rank_start": ("at start", "number", "effective rank of the item table before training, 1 to d"),
    "information_abundance": ("abundance", "number", "sum of the table's singular values over the largest, 1 to d"),
    "participation_ratio": ("participation", "number", "how many directions share the table's variance, 1 to d"),
    "stable_rank": ("stable rank", "number", "variance of the item table over that of its first direction, 1 to d"),
    "components_90": ("90 % in", "number", "leading components of the item table that hold 90 % of its variance"),
    "components_99": ("99 % in", "number", "leading components of the item table that hold 99 % of its variance"),
    "text_mass_beyond_d": ("text beyond d", "share", "share of the text's variance beyond its d leading components"),
    "table_mass_beyond_d": (
        "table beyond d",
        "share",
        "share of the table's variance along the text's later directions",
    ),
    "table_mass_outside_text": (
        "outside text",
        "share",
        "share of the table's variance along no direction of the text",
    ),
    "mean_cosine": ("cosine", "number", "mean cosine over pairs of items: 1, all point the same way"),
    "uniformity": ("uniformity", "number", "of item directions: 0, all agree; about -4, spread over the sphere"),
    "alignment": ("alignment", "number", "squared distance of states to the items that came next: 0 agree, 4 oppose"),
    "state_uniformity": ("state unif.", "number", "of state directions: 0, all agree; about -4, spread out"),
}


def columns(table: Table) -> list[tuple[PageColumn, Value]]:
    """Every column with its value: scores as [mean, low, high], trials as [done, pruned, failed, planned], seeds as
    [done, planned], all else a number; None where a row has none."""
    return [*_scores(table), *_cost(table), *_spectral(table), *_search(table)]


def described(table: Table) -> list[dict[str, Any]]:
    return [asdict(column) for column, _ in columns(table)]


def values(row: Row, known: list[tuple[PageColumn, Value]]) -> list[Any]:
    return [value(row) for _, value in known]


def _scores(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    at = table.headline[table.headline.rindex("@") :]
    for name in sorted(table.metrics, key=lambda name: (not name.endswith(at), name != table.headline)):
        group = "quality" if name.endswith(at) else "cutoffs"
        text = f"test {name}, mean over users and seeds with its 95 % interval"
        yield PageColumn(f"m:{name}", name, group, "score", "high", "0 to 1", text, 4), _score_of(name)
    text = "share of test targets that share their score with another item"
    yield PageColumn("tied", "tied", "quality", "share", "none", "share", text), lambda row: row.tied


def _cost(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    for name, (title, kind, unit, text) in COST.items():
        if any(row.costs[name] is not None for row in _all(table)):
            yield PageColumn(name, title, "cost", kind, "low", unit, text, DIGITS.get(name, 2)), _cost_of(name)


def _spectral(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    text = "effective rank of the trained item table: exp of the entropy of its singular values, 1 to d"
    yield (
        PageColumn("effective_rank", "eff. rank", "spectral", "number", "none", "directions", text, 1),
        lambda row: row.fit and row.fit.effective_rank,
    )
    held = {name for row in _all(table) if row.fit for name in row.fit.info}
    for name, (title, kind, text) in INFO.items():
        if name in held:
            yield PageColumn(f"i:{name}", title, "spectral", kind, "none", "", text), _info_of(name)


def _search(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    def column(key: str, title: str, kind: str, unit: str, text: str) -> PageColumn:
        return PageColumn(key, title, "search", kind, "none", unit, text)

    text = f"validation {table.headline} that the search chose the row by; no estimate of the test score"
    yield (
        PageColumn("valid", "valid", "search", "number", "high", "0 to 1", text, 4),
        lambda row: row.fit and row.fit.valid,
    )
    text = "search trials done / pruned / failed of those planned"
    yield column("trials", "trials", "trials", "trials", text), _trials
    text = "confirmed seeds of those planned"
    yield (
        column("seeds", "seeds", "seeds", "seeds", text),
        lambda row: [row.seeds_done, row.seeds_planned] if row.seeds_planned else None,
    )
    text = "epochs of all search trials together"
    yield column("epochs", "epochs", "count", "epochs", text), lambda row: row.spent.epochs or None
    text = "hyper-parameters that the search could change"
    yield (
        column("searched", "searched", "count", "parameters", text),
        lambda row: None if row.spent.searched is None else len(row.spent.searched),
    )
    text = "searched; fixed (every parameter was given); nothing (a baseline); and the published setting, if it was one"
    yield column("tuned", "tuned", "word", "", text), lambda row: row.spent.tuned and tuned(row.spent)


def _all(table: Table) -> Iterable[Row]:
    return (row for section in table.sections for row in section.rows)


def _cost_of(name: str) -> Value:
    return lambda row: row.costs[name]


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

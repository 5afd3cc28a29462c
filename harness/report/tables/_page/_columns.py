"""Columns of the page's tables: explanation, unit, direction, and value of a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from harness.metrics.lists import _all as lists
from harness.report.tables._captions import averaged
from harness.report.tables._format import tuned
from harness.report.tables._table import Row, Table
from harness.types import Json

GROUPS = {
    "quality": "Quality",
    "cutoffs": "Other cut-offs",
    "cost": "Cost",
    "lists": "Top-10 lists",
    "spectral": "Spectrum",
    "search": "Search",
}
SHOWN = ("quality", "cost")  # groups shown initially


@dataclass(frozen=True)
class PageColumn:
    """A column of the page.

    ``kind``: format of its values: ``score`` (mean with interval), ``number``, ``seconds``, ``count``, ``share``,
    ``trials``, ``seeds``, ``word``. ``better``: ``high``, ``low`` or ``none``. ``digits``: decimal places of a number.
    """

    key: str
    title: str
    group: str
    kind: str
    better: str
    unit: str
    help: str
    digits: int = 2


Value = Callable[[Row], Any]

COST = {  # cost -> title, kind, unit, explanation
    "parameters": ("params", "count", "numbers", "trained parameters"),
    "train_seconds": ("train", "seconds", "seconds", "wall-clock time of one confirmed run, mean over seeds"),
    "search_seconds": ("search", "seconds", "seconds", "wall-clock time of all search trials of the row"),
    "peak_mb": ("memory", "number", "MB", "peak resident memory of the process, with data kept from earlier trials"),
    "energy_wh": ("energy", "number", "Wh", "energy of a confirmed run: its share of the machine's consumption"),
    "gpu_seconds": (
        "GPU",
        "seconds",
        "seconds",
        "seconds of a confirmed run times its share of a GPU, mean over seeds",
    ),
    "peak_vram_mb": ("GPU memory", "number", "MB", "peak memory of a confirmed run's tensors on the GPU"),
}
DIGITS = {"peak_mb": 0, "energy_wh": 3, "peak_vram_mb": 0}
INFO = {  # key of a run's info -> title, kind, explanation
    "effective_rank_start": ("at start", "number", "effective rank of the item table before training, 1 to d"),
    "information_abundance": ("abundance", "number", "sum of the table's singular values over the largest, 1 to d"),
    "participation_ratio": (
        "participation",
        "number",
        "effective number of directions that share the table's variance, 1 to d",
    ),
    "stable_rank": (
        "stable rank",
        "number",
        "total variance of the item table over that of its first direction, 1 to d",
    ),
    "components_90": ("90 % in", "number", "number of leading components with 90 % of the item table's variance"),
    "components_99": ("99 % in", "number", "number of leading components with 99 % of the item table's variance"),
    "text_mass_beyond_d": ("text beyond d", "share", "share of the text's variance outside its d leading components"),
    "table_mass_beyond_d": (
        "table beyond d",
        "share",
        "share of the table's variance along text directions after the first d",
    ),
    "table_mass_outside_text": (
        "outside text",
        "share",
        "share of the table's variance outside the span of the text",
    ),
    "mean_cosine": ("cosine", "number", "mean cosine over pairs of items; 1: all have the same direction"),
    "uniformity": (
        "uniformity",
        "number",
        "uniformity of item directions; 0: all agree, about -4: spread over the sphere",
    ),
    "alignment": (
        "alignment",
        "number",
        "squared distance of states to the next items; 0: same direction, 4: opposite",
    ),
    "state_uniformity": (
        "state unif.",
        "number",
        "uniformity of state directions; 0: all agree, about -4: spread over the sphere",
    ),
}


def columns(table: Table) -> list[tuple[PageColumn, Value]]:
    """Return every column with a function that returns a row's value.

    Scores are [mean, low, high], trials [done, pruned, failed, planned], seeds [done, planned], `tuned` a word, others
    numbers; None if a row has no value.
    """
    return [*_scores(table), *_cost(table), *_lists(table), *_spectral(table), *_search(table)]


def described(table: Table) -> list[Json]:
    return [asdict(column) for column, _ in columns(table)]


def values(row: Row, columns: list[tuple[PageColumn, Value]]) -> list[Any]:
    return [value(row) for _, value in columns]


def _scores(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    at = table.headline[table.headline.rindex("@") :]
    for name in sorted(table.metrics, key=lambda name: (not name.endswith(at), name != table.headline)):
        group = "quality" if name.endswith(at) else "cutoffs"
        text = f"test {name}, mean over {averaged(table)} with 95 % interval"
        yield PageColumn(f"m:{name}", name, group, "score", "high", "0 to 1", text, 4), _score_of(name)
    text = "share of test targets tied with another item"
    yield PageColumn("tied", "tied", "quality", "share", "none", "share", text), lambda row: row.tied


def _cost(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    for name, (title, kind, unit, text) in COST.items():
        if any(row.costs[name] is not None for row in _all(table)):
            yield PageColumn(name, title, "cost", kind, "low", unit, text, DIGITS.get(name, 2)), _cost_of(name)


def _lists(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    recorded = _recorded(table)
    for name, metric in lists.names().items():
        if name in recorded:
            help = lists.summary(metric)
            yield PageColumn(f"i:{name}", name, "lists", "number", "none", "", help, 3), _info_of(name)


def _spectral(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    text = "effective rank of the trained item table: exponential of the entropy of its singular values, 1 to d"
    yield (
        PageColumn("effective_rank", "eff. rank", "spectral", "number", "none", "directions", text, 1),
        lambda row: row.fit and row.fit.effective_rank,
    )
    recorded = _recorded(table)
    for name, (title, kind, text) in INFO.items():
        if name in recorded:
            yield PageColumn(f"i:{name}", title, "spectral", kind, "none", "", text), _info_of(name)


def _search(table: Table) -> Iterable[tuple[PageColumn, Value]]:
    def column(key: str, title: str, kind: str, unit: str, text: str) -> PageColumn:
        return PageColumn(key, title, "search", kind, "none", unit, text)

    text = f"validation {table.headline} of the chosen configuration; not an estimate of the test score"
    yield (
        PageColumn("valid", "valid", "search", "number", "high", "0 to 1", text, 4),
        lambda row: row.fit and row.fit.valid,
    )
    text = "search trials: done / pruned / failed of planned"
    yield column("trials", "trials", "trials", "trials", text), _trials
    text = "confirmed seeds of planned"
    yield (
        column("seeds", "seeds", "seeds", "seeds", text),
        lambda row: [row.seeds_done, row.seeds_planned] if row.seeds_planned else None,
    )
    text = "epochs, summed over all search trials"
    yield column("epochs", "epochs", "count", "epochs", text), lambda row: row.spent.epochs or None
    text = "number of searched hyper-parameters"
    yield (
        column("searched", "searched", "count", "parameters", text),
        lambda row: None if row.spent.searched is None else len(row.spent.searched),
    )
    text = "searched, default (no search), transferred (winner of another search), fixed (all parameters given), "
    text += "nothing (baseline); published setting, if any"
    yield column("tuned", "tuned", "word", "", text), lambda row: row.spent.tuned and tuned(row.spent)


def _recorded(table: Table) -> set[str]:
    """Return the keys of info that any row has."""
    return {name for row in _all(table) if row.fit for name in row.fit.info}


def _all(table: Table) -> Iterable[Row]:
    return (row for section in table.sections for row in section.rows)


def _cost_of(name: str) -> Value:
    return lambda row: row.costs[name]


def _score_of(name: str) -> Value:
    def value(row: Row) -> list[float] | None:
        interval = row.metrics.get(name)
        return [interval.mean, interval.low, interval.high] if interval else None

    return value


def _info_of(name: str) -> Value:
    def value(row: Row) -> float | None:
        number = row.fit and row.fit.info.get(name)
        return number if isinstance(number, int | float) and not isinstance(number, bool) else None

    return value


def _trials(row: Row) -> list[int] | None:
    trials = row.trials
    return [trials.done, trials.pruned, trials.failed, trials.planned] if trials.planned else None

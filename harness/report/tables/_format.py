"""Format single values: scores, intervals, gains, times, names."""

from __future__ import annotations

import math
from typing import Any

from harness.report.tables._scores import REFERENCE, Gain
from harness.report.tables._table import Row, SearchCost
from harness.stats import resampling
from harness.stats.crossed_effects import ALPHA
from harness.types import NO_TEXT, Cell

FRONT = "◆"
DASH = "–"
SYMBOLS = {"best": "★", "second": "☆", "tied": "≈", "differs": "*", "short": "†", "less": "‡", "rising": "↑"}
MEANINGS = {
    "best": "best mean of the section",
    "second": "second best mean",
    "tied": f"not significantly different from the best (adjusted p ≥ {ALPHA})",
    "differs": f"differs from '{REFERENCE}' (adjusted p < {ALPHA})",
    "short": "incomplete: fewer finished trials or seeds than planned",
    "less": "smaller plan than other rows of its section: fewer trials or seeds",
    "rising": "still improving: in most seeds the best epoch is the last allowed one",
}


def safe(text: str) -> str:
    """Make text safe to display: line breaks become blanks, other control and direction characters U+FFFD."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)


def symbols(row: Row) -> str:
    """Return the symbols of the row's marks, except the star of `differs`, which is printed with the gain."""
    return "".join(SYMBOLS[mark] for mark in row.marks if mark != "differs")


def adapter(cell: Cell) -> str:
    return cell.adapter + (" (baseline)" if cell.is_baseline else " (ensemble)" if cell.is_ensemble else "")


def encoder(cell: Cell) -> str:
    return DASH if cell.encoder == NO_TEXT else cell.encoder


def label(cell: Cell) -> str:
    """Return a row's name, including its encoder.

    >>> label(Cell("beauty", "minilm", "sasrec", "svd")), label(Cell("beauty", "none", "sasrec", "id"))
    ('svd · minilm', 'id')
    """
    return adapter(cell) if cell.encoder == NO_TEXT else f"{adapter(cell)} · {cell.encoder}"


def number(value: float | None, digits: int) -> str:
    return DASH if value is None else f"{value:,.{digits}f}"


def p_value(value: float | None) -> str:
    """
    >>> p_value(0.00004), p_value(0.0312), p_value(None)
    ('< .0001', '0.0312', '–')
    """
    return "< .0001" if value is not None and value < 5e-5 else number(value, 4)


def score(value: float | None) -> str:
    return number(value, 4)


def interval(value: resampling.Interval) -> str:
    """
    >>> interval(resampling.Interval(0.0412, 0.0404, 0.042)), interval(resampling.Interval(0.5, math.nan, math.nan))
    ('0.0412 [0.0404, 0.0420]', '0.5000 [–, –]')
    """
    return f"{value.mean:.4f} {bounds(value)}"


def bounds(value: resampling.Interval) -> str:
    low, high = (DASH if math.isnan(bound) else f"{bound:.4f}" for bound in (value.low, value.high))
    return f"[{low}, {high}]"


def gain(value: Gain | None, differs: bool = False) -> str:
    if value is None:  # the other row's score may be zero: no ratio, but a test
        return DASH + (SYMBOLS["differs"] if differs else "")
    marks = (SYMBOLS["differs"] if differs else "") + (SYMBOLS["rising"] if value.preliminary else "")
    return f"{value.percent:+.1f} [{value.low:+.1f}, {value.high:+.1f}]{marks}"


def trials(row: Row) -> str:
    value = row.trials
    return f"{value.done}/{value.pruned}/{value.failed} of {value.planned}" if value.planned else DASH


def dimensions(spent: SearchCost) -> str:
    """Return the number of searched dimensions; a dash if it was not recorded."""
    return DASH if spent.searched is None else str(len(spent.searched))


def tuned(spent: SearchCost) -> str:
    """Return how a row's parameters were chosen, with the published setting if any."""
    how = spent.tuned or DASH
    return f"{how} ({spent.setting})" if spent.setting else how


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
    """Format a value of a header or card: shares and densities in percent, thousands separated.

    >>> fact("density", 0.000733), fact("users", 22363), fact("filter_seen", True)
    ('0.0733 %', '22,363', 'yes')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and (key == "density" or key.endswith("share")):
        return f"{100 * value:.3g} %"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
    return DASH if value in (None, "") else str(value)


def percent(value: resampling.Interval | None) -> str:
    """
    >>> percent(resampling.Interval(3.21, -0.5, 7.0))
    '+3.2 [-0.5, +7.0]'
    """
    return DASH if value is None else f"{value.mean:+.1f} [{value.low:+.1f}, {value.high:+.1f}]"


def share(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"

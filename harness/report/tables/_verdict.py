"""What a section shows, in one sentence: does text help, what cannot be told apart, what a larger test would need."""

from __future__ import annotations

import math

from harness.report.tables._format import adapter, label
from harness.report.tables._scores import REFERENCE, RowScores
from harness.report.tables._section import SectionComparison
from harness.stats.crossed_effects import ALPHA
from harness.types import NO_TEXT

TEXT_ONLY = "text"  # the control without an ID embedding
TARGET = 3.0  # percent of the best score: a difference that papers report
FEW, MOST = 4, 2 / 3  # other rows from which, and share of them up to which, a test separates enough
LARGER = ("amazon2014-beauty", 22_363)  # a data set that one command fetches, and its test users


def verdict(comparison: SectionComparison, users: int | None, coming: int = 0) -> str:
    """Return the sentence, or an empty text with fewer than two trained rows.

    users: test users; None leaves out what more of them would show (sliding windows). coming: trained rows that are
    not finished.
    """
    parts = [_text(comparison), *_rivals(comparison, users)]
    text = "; ".join(filter(None, parts))
    if text and coming:
        text = f"so far, with {coming} trained row{'s' if coming > 1 else ''} unfinished: {text}"
    return f"{text[0].upper()}{text[1:]}." if text else ""


def reads_text(row: RowScores) -> bool:
    """Whether a trained row has the text of the items, not noise or the text of other items."""
    return row.cell.is_trained and row.cell.encoder != NO_TEXT and not row.cell.is_control


def _text(comparison: SectionComparison) -> str:
    """Compare the best row with text with `id`. Its p-value is adjusted for the choice among the rows."""
    readers = [row for row in comparison.ranked if reads_text(row)]
    best = next(iter(readers), None)
    gain = comparison.vs_id(best) if best else None
    if best is None or gain is None or gain.p is None:
        return ""
    change = f"{_name(best, comparison)} {gain.percent:+.1f} % over {REFERENCE} [{gain.low:+.1f}, {gain.high:+.1f}]"
    strength = f"{change}, {_p(gain.p)}" + (", preliminary" if gain.preliminary else "")
    if gain.p >= ALPHA:
        return f"text makes no significant difference: {strength}"
    if gain.percent < 0 and all(row.cell.adapter == TEXT_ONLY for row in readers):
        return f"text does not replace the ID embedding: {strength}"
    return f"text helps: {strength}" if gain.percent > 0 else f"text hurts: at best {strength}"


def _name(row: RowScores, comparison: SectionComparison) -> str:
    """Return the row's name, without the encoder if all rows with text share it."""
    encoders = {other.cell.encoder for other in comparison.ranked if other.cell.encoder != NO_TEXT}
    return label(row.cell) if len(encoders) > 1 else adapter(row.cell)


def _p(value: float) -> str:
    """
    >>> _p(0.00002), _p(0.0312)
    ('p < .001', 'p = .031')
    """
    return "p < .001" if value < 0.001 else f"p = {value:.3f}".replace("0.", ".")


def _rivals(comparison: SectionComparison, users: int | None) -> list[str]:
    found = comparison.tied_with_best()
    if found is None:
        return []
    best, tied, others, percent = found
    if not tied:
        one = "the other trained row" if others == 1 else f"each of the {others} other trained rows"
        return [f"the best row, {_name(best, comparison)}, is better than {one}"]
    rows = f"{tied} of the {others} other trained rows do" if others > 1 else "the other trained row does"
    parts = [f"{rows} not differ significantly from the best, {_name(best, comparison)}"]
    if users is None or not percent > 0:  # NaN with too few users, 0 with rows that do not vary
        return parts
    parts.append(f"with {users:,} users the test detects differences of about {_size(percent)} % (80 % power)")
    if percent > TARGET:
        needed = comparison.users_for(TARGET)
        parts.append(_needed(needed) + (_hint(tied, others, users) if math.isfinite(needed) else ""))
    return parts


def _size(percent: float) -> str:
    """
    >>> _size(4.25), _size(99.7), _size(1234)
    ('4.2', '100', '1,234')
    """
    return f"{percent:.2g}" if percent < 99.5 else f"{percent:,.0f}"


def _needed(users: float) -> str:
    if math.isinf(users):
        return f"a difference of {TARGET:g} % needs more seeds first"
    size = 10 ** (math.floor(math.log10(users)) - 1)  # two digits: it is an extrapolation
    return f"a difference of {TARGET:g} % needs about {math.ceil(users / size) * size:,} users"


def _hint(tied: int, others: int, users: int) -> str:
    """Name a larger data set if the test separates few rows."""
    name, larger = LARGER
    few = others >= FEW and tied >= MOST * others and users < larger
    return f" (`--datasets {name}`: {larger:,})" if few else ""

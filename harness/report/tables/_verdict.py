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


def verdict(comparison: SectionComparison, users: int | None, coming: int = 0, chosen: tuple[int, int] = (0, 0)) -> str:
    """Return the sentence, or an empty text if there is nothing to compare.

    users: test users; None leaves out what more of them would show (sliding windows). coming: trained rows that are
    not finished. chosen: at a cut budget, the trained rows without a test because the best of their first trials was
    not confirmed, and those with one.
    """
    parts = [_baseline(comparison), _text(comparison), *_rivals(comparison, users)]
    text = "; ".join(filter(None, parts))
    if text and coming:
        text = f"so far, with {_counted(coming, 'trained row')} unfinished: {text}"
    if text and chosen[0]:
        text = f"of {_counted(sum(chosen), 'trained row')}, only {chosen[1]} have a test at this budget: {text}"
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def reads_text(row: RowScores) -> bool:
    """Whether a trained row has the text of the items, not noise or the text of other items."""
    return row.cell.is_trained and row.cell.encoder != NO_TEXT and not row.cell.is_control


def _baseline(comparison: SectionComparison) -> str:
    """Name the baseline that no trained row is above."""
    ranked = comparison.ranked
    best = next((row for row in ranked if not row.cell.is_baseline), None)
    if best is None or best is ranked[0] or best.headline == ranked[0].headline:
        return ""
    unsure = ", but the difference from the best is not significant" if comparison.ties(ranked[0], best) else ""
    return f"no trained row is above {_name(ranked[0], comparison)}{unsure}"


def _text(comparison: SectionComparison) -> str:
    """Compare the rows with text with `id`, the best first. Their p-values are adjusted for the choice among them."""
    readers = [(row, comparison.vs_id(row)) for row in comparison.ranked if reads_text(row)]
    gains = [(row, gain, gain.p) for row, gain in readers if gain is not None and gain.p is not None]
    if not gains:
        return ""
    better = [one for one in gains if one[2] < ALPHA and one[1].percent > 0]
    by_text = [one for one in better if not _control(comparison, one[0])]
    row, gain, p = (by_text or better or gains)[0]
    change = f"{_name(row, comparison)} {gain.percent:+.1f} % over {REFERENCE} [{gain.low:+.1f}, {gain.high:+.1f}]"
    strength = f"{change}, {_p(p)}" + (", preliminary" if gain.preliminary else "")
    if p >= ALPHA:
        return f"text makes no significant difference: {strength}"
    if gain.percent < 0 and all(one[0].cell.adapter == TEXT_ONLY for one in gains):
        return f"text does not replace the ID embedding: {strength}"
    if better and not by_text:
        return f"no gain is shown to come from the text: {strength}, but {_control(comparison, row)}"
    return f"text helps: {strength}" if gain.percent > 0 else f"text hurts: at best {strength}"


def _control(comparison: SectionComparison, row: RowScores) -> str:
    """Say which control of the row's adapter, with noise or the texts of other items, it is not better than."""
    controls = [one for one in comparison.ranked if one.cell.is_control and one.cell.adapter == row.cell.adapter]
    for one in controls:
        if comparison.ties(row, one):
            return f"its control {label(one.cell)} does not differ significantly"
        if one.headline > row.headline:
            return f"its control {label(one.cell)} is better"
    return ""


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
    mixed = any(row.cell.is_ensemble for row in comparison.ranked)
    one, many = ("trained row or ensemble", "trained rows and ensembles") if mixed else ("trained row", "trained rows")
    name = f"the best {one}, {_name(best, comparison)}"
    if not tied:
        rest = f"the other {one}" if others == 1 else f"each of the {others} other {many}"
        return [f"{name}, is better than {rest}"]
    rows = f"{tied} of the {others} other {many} do" if others > 1 else f"the other {one} does"
    parts = [f"{rows} not differ significantly from {name}"]
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

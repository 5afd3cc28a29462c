"""Fill the text template of an item, such as `{title} ({year}). {genres}`, from columns that may lack values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import polars as pl

from harness.types import HarnessError

SEPARATORS = " \t\n.,;:|/-"  # removed from the start of a text whose first field is missing
PAIRS = {")": "(", "]": "[", "}": "{"}
CLOSING = "".join(PAIRS)


@dataclass(frozen=True)
class _Group:
    """Fields `first` to `last` in brackets that open at `opens` in the words before `first` and close at `closes` in
    the words after `last`."""

    first: int
    opens: int
    last: int
    closes: int


def fields(path: Path, template: str) -> list[str]:
    """Return the columns that a text template names. Raises HarnessError, naming `path`, if it is malformed."""
    try:
        parts = list(Formatter().parse(template))
    except ValueError as error:
        raise HarnessError(f"{path}: the text template '{template}' is malformed: {error}.") from None
    for _, name, spec, conversion in parts:
        if name is not None and (not name or spec or conversion or not name.isidentifier()):
            raise HarnessError(f"{path}: the text template '{template}' may hold only column names in braces.")
    names = list(dict.fromkeys(name for _, name, _, _ in parts if name is not None))
    if template and not names:
        raise HarnessError(
            f"{path}: the text template '{template}' names no column; write {{title}} or leave it empty."
        )
    return names


def render(template: str) -> pl.Expr:
    """Fill the template from the columns `field <name>`; null if no field has a value.

    A missing field is left out with the words before it and the closing bracket after it. The first present field loses
    the separators before it. Words after the last field stay if any field is present. If that would leave a bracket
    without its pair, the brackets stand around the present fields between them, or are left out with all of them.
    """
    names, words = _chunks(template)
    if not names:
        return pl.lit(None, pl.String)
    odd = unbalanced(template)
    plain = _filled(names, words, [])
    text = plain if odd is None else pl.when(odd).then(_filled(names, words, _groups(words))).otherwise(plain)
    return pl.when(_any(names, 0, len(names))).then(text)


def unbalanced(template: str) -> pl.Expr | None:
    """Return whether brackets of a row would lack their pair if each stood only with its own field.

    None if that is so for no row, because all brackets enclose one field each.
    """
    names, words = _chunks(template)
    groups = _groups(words)
    if all(group.first == group.last and group.closes < _run(words[group.last + 1]) for group in groups):
        return None
    marks = []  # place and presence of each bracket
    for group in groups:
        after = group.last if group.closes < _run(words[group.last + 1]) else group.last + 1
        closed = _has(names, after) if after < len(names) else pl.lit(True)
        marks.append(((group.first, group.opens), _has(names, group.first)))
        marks.append(((group.last + 1, group.closes), closed))
    marks.sort(key=lambda mark: mark[0])
    left = pl.concat_str(
        *(pl.when(there).then(pl.lit(words[place][at])).otherwise(pl.lit("")) for (place, at), there in marks)
    )
    for _ in groups:
        left = left.str.replace_all(r"\(\)|\[\]|\{\}", "")
    return (left != "") & _any(names, 0, len(names))


def _chunks(template: str) -> tuple[list[str], list[str]]:
    """Return the fields of a template, and the words before each and after the last."""
    names, words = [], [""]
    for literal, name, _, _ in Formatter().parse(template):
        words[-1] += literal
        if name is not None:
            names.append(name)
            words.append("")
    return names, words


def _groups(words: list[str]) -> list[_Group]:
    """Return the bracketed groups of fields, inner ones first."""
    groups, open_ones = [], []
    for place, literal in enumerate(words):
        for at, char in enumerate(literal):
            if char in PAIRS.values():
                open_ones.append((place, at, char))
            elif char in PAIRS and open_ones and open_ones[-1][2] == PAIRS[char]:
                first, opens, _ = open_ones.pop()
                if first < place:
                    groups.append(_Group(first, opens, place - 1, at))
    return groups


def _filled(names: list[str], words: list[str], groups: list[_Group]) -> pl.Expr:
    """Fill the template; brackets of `groups` stand around the present fields between them, others with their field."""
    ends = [max((g.closes + 1 for g in groups if g.last + 1 == k), default=_run(words[k])) for k in range(len(words))]
    ends[0] = 0
    parts = []
    for place, name in enumerate(names):
        after = [_close(names, words, groups, group, place) for group in groups if group.first <= place <= group.last]
        if not any(group.last == place for group in groups):
            after.insert(0, pl.lit(words[place + 1][: ends[place + 1]]))
        value = pl.concat_str(_before(names, words, groups, ends, place), pl.col(f"field {name}"), *after)
        parts.append(pl.when(_has(names, place)).then(value).otherwise(pl.lit("")))
    return pl.concat_str(*parts, pl.lit(words[-1][ends[-1] :]))


def _before(names: list[str], words: list[str], groups: list[_Group], ends: list[int], place: int) -> pl.Expr:
    """Return the words before a field, with the brackets before missing fields of its groups."""
    lead = words[place][ends[place] :]
    text = _led(names, lead, place)
    for first in sorted({g.first for g in groups if g.first < place <= g.last}, reverse=True):
        around = [g for g in groups if first <= g.first < place <= g.last]
        opens = max(g.opens for g in around if g.first == first)
        inner = "".join(words[g.first][g.opens] for g in reversed(around) if g.first > first)
        whole = words[first][ends[first] : opens + 1] + inner + lead.lstrip(SEPARATORS)
        text = pl.when(_any(names, first, place)).then(text).otherwise(_led(names, whole, first))
    return text


def _led(names: list[str], lead: str, place: int) -> pl.Expr:
    """Return words before a field, without separators if no field before `place` is present."""
    return (
        pl.when(_any(names, 0, place)).then(pl.lit(lead)).otherwise(pl.lit(lead.lstrip(SEPARATORS) if place else lead))
    )


def _close(names: list[str], words: list[str], groups: list[_Group], group: _Group, place: int) -> pl.Expr:
    """Return the words that close a group after the field at `place` if that is its last present one, else ""."""
    here = [g.closes + 1 for g in groups if g.last == group.last and g.closes < group.closes]
    text = words[group.last + 1][max(here, default=0) : group.closes + 1]
    return pl.when(_any(names, place + 1, group.last + 1)).then(pl.lit("")).otherwise(pl.lit(text))


def _run(words: str) -> int:
    """Return the number of closing brackets at the start."""
    return len(words) - len(words.lstrip(CLOSING))


def _has(names: list[str], place: int) -> pl.Expr:
    return pl.col(f"field {names[place]}").is_not_null()


def _any(names: list[str], start: int, stop: int) -> pl.Expr:
    """Return whether one of the fields from `start` to before `stop` is present."""
    return pl.any_horizontal(pl.lit(False), *(_has(names, place) for place in range(start, stop)))

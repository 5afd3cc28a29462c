"""Type and range of a hyper-parameter, read from its annotation in the constructor.

``Annotated[float, ">= 0", "< 1"]`` is a range, ``Literal["raw", "center"]`` a choice, and either may be ``| None``. A
bound is ``>=``, ``>``, ``<=`` or ``<`` and a number; ``divides d`` and ``>= d`` relate the value to the model's width.
An annotation may be an alias defined in the same file or in its package's `_base.py`
(``Count = Annotated[int, ">= 1"]``).
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.types import HarnessError

TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "str": str}
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
}
RELATIONS: dict[
    str, tuple[Callable[[int, int], bool], str]
] = {  # between a value and d: the test, and the message if it fails
    "divides d": (lambda value, d: d % value == 0, "does not divide"),
    ">= d": (lambda value, d: value >= d, "is below"),
}
LARGEST = 2**31 - 1  # int parameters without an upper bound; no tensor dimension is larger
SHOWN = 40  # max characters of a value in an error message


@dataclass(frozen=True)
class Domain:
    """Type and range of a parameter.

    ``kind``: bool, int, float or str. ``bounds``: pairs of operator and number. ``choices``: the allowed values, empty
    if any value will do. ``optional``: None is allowed. ``relation``: one of `RELATIONS`, or empty.
    """

    kind: type
    bounds: tuple[tuple[str, float], ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    relation: str = ""

    def conflict(self, value: Any, d: int) -> str:
        """Say how a value violates its relation to the model dimension d; empty if it does not.

        >>> Domain(int, relation="divides d").conflict(2, 63)
        'does not divide d = 63'
        """
        if value is None or not self.relation:
            return ""
        related, words = RELATIONS[self.relation]
        return "" if related(value, d) else f"{words} d = {d}"

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type is in the range."""
        if self.kind is float and not math.isfinite(value):
            return False
        if self.kind is int and abs(value) > LARGEST:
            return False
        inside = all(OPERATORS[name](value, bound) for name, bound in self.bounds)
        return inside and (not self.choices or value in self.choices)

    def checked(self, where: str, value: Any) -> Any:
        """Return the value, an int as a float where needed. Raises HarnessError for a wrong type or range."""
        if value is None and self.optional:
            return None
        if self.kind is float and type(value) is int:
            value = _float(value)
        if type(value) is not self.kind:
            name = type(value).__name__
            raise HarnessError(f"{where} = {shown(value)} is {_article(name)}; the parameter is {self}.")
        if not self.holds(value):
            raise HarnessError(f"{where} = {shown(value)} is out of range; the parameter is {self}.")
        return value

    def __str__(self) -> str:
        """Describe the domain for error messages: `a float >= 0 and < 1`."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        bounds = " and ".join(f"{name} {bound if self.kind is int else f'{bound:g}'}" for name, bound in self.bounds)
        finite = "" if self.kind is not float or any("<" in name for name, _ in self.bounds) else "finite "
        words = _article(f"{finite}{self.kind.__name__}") + (f" {bounds}" if bounds else "")
        return words + (" or None" if self.optional else "")


def _article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def shown(value: Any) -> str:
    """Format a value for an error message, shortened if long."""
    try:
        text = repr(value)
    except ValueError:  # an int with more digits than Python prints
        return "an integer of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def of_default(default: Any) -> Domain:
    """Return the domain of a parameter without a usable annotation: any value of its default's type."""
    return Domain(type(default))


def named(tree: ast.Module) -> dict[str, ast.expr]:
    """Return the aliases of annotations that a module defines at its top level."""
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Subscript)
    }


def read(annotation: ast.expr | None, default: Any, names: Mapping[str, ast.expr]) -> Domain:
    """Return the domain that an annotation describes. Raises HarnessError for an invalid bound."""
    if isinstance(annotation, ast.Name):
        if annotation.id in TYPES:
            return Domain(TYPES[annotation.id])
        if annotation.id in names:
            return read(names[annotation.id], default, names)
    if isinstance(annotation, ast.BinOp):  # X | None
        return replace(read(annotation.left, default, names), optional=True)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.value, ast.Name):
        parts = annotation.slice.elts if isinstance(annotation.slice, ast.Tuple) else [annotation.slice]
        if annotation.value.id == "Literal":
            values = tuple(ast.literal_eval(part) for part in parts)
            return Domain(type(values[0]), choices=values)
        if annotation.value.id == "Annotated":
            return _bounded(read(parts[0], default, names), map(ast.literal_eval, parts[1:]))
    return of_default(default)


def _bounded(domain: Domain, words: Iterable[str]) -> Domain:
    bounds = list(domain.bounds)
    for word in words:
        if word in RELATIONS:
            domain = replace(domain, relation=word)
        elif bound := re.fullmatch(r"(>=|>|<=|<) (-?[0-9.e+-]+)", word):
            bounds.append((bound[1], domain.kind(bound[2])))
        else:
            raise HarnessError(
                f"'{word}' is not a valid bound; valid are e.g. >= 0, > 0, <= 1, < 1, {', '.join(RELATIONS)}."
            )
    return replace(domain, bounds=tuple(bounds))

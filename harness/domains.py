"""Which values a parameter takes: its type and range, read from the annotation in its constructor.

``Annotated[float, ">= 0", "< 1"]`` is a range, ``Literal["raw", "center"]`` a choice, and either may be ``| None``. A
bound is ``>=``, ``>``, ``<=`` or ``<`` and a number; ``divides d`` and ``>= d`` relate the value to the model's width.
A name that the file or its package's `_base.py` gives to an annotation (``Count = Annotated[int, ">= 1"]``) stands for
it.
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
RELATIONS: dict[str, tuple[Callable[[int, int], bool], str]] = {  # of a value to d: whether it holds, and what to say
    "divides d": (lambda value, d: d % value == 0, "does not divide"),
    ">= d": (lambda value, d: value >= d, "lies below"),
}
LARGEST = 2**31 - 1  # of an int without an upper bound: above it no tensor has a dimension
SHOWN = 40  # characters of a value in an error


@dataclass(frozen=True)
class Domain:
    """Type and range of a parameter. ``kind``: bool, int, float or str. ``bounds``: pairs of operator and number.
    ``choices``: the only values, if any are named. ``optional``: None is a value as well. ``relation``: one of
    `RELATIONS`, or empty."""

    kind: type
    bounds: tuple[tuple[str, float], ...] = ()
    choices: tuple[Any, ...] = ()
    optional: bool = False
    relation: str = ""

    def conflict(self, value: Any, d: int) -> str:
        """How a value breaks its relation to the model dimension, in words; empty where it does not.

        >>> Domain(int, relation="divides d").conflict(2, 63)
        'does not divide d = 63'
        """
        if value is None or not self.relation:
            return ""
        related, words = RELATIONS[self.relation]
        return "" if related(value, d) else f"{words} d = {d}"

    def holds(self, value: Any) -> bool:
        """Whether a value of the right type lies in the range."""
        if self.kind is float and not math.isfinite(value):
            return False
        if self.kind is int and abs(value) > LARGEST:
            return False
        inside = all(OPERATORS[name](value, bound) for name, bound in self.bounds)
        return inside and (not self.choices or value in self.choices)

    def checked(self, where: str, value: Any) -> Any:
        """The value, if it is of the type and in the range; an int serves as a float. Raises HarnessError with both."""
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
        """In words, for errors: `a float >= 0 and < 1`."""
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
    """A value in an error, shortened where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an int of more digits than Python prints
        return "an integer of thousands of digits"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def of_default(default: Any) -> Domain:
    """The domain of a parameter without an annotation that says more: any value of its default's type."""
    return Domain(type(default))


def named(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that a module gives to annotations at its top level."""
    return {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Subscript)
    }


def read(annotation: ast.expr | None, default: Any, names: Mapping[str, ast.expr]) -> Domain:
    """The domain that an annotation describes. Raises HarnessError for a bound that cannot be read."""
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
        elif found := re.fullmatch(r"(>=|>|<=|<) (-?[0-9.e+-]+)", word):
            bounds.append((found[1], domain.kind(found[2])))
        else:
            raise HarnessError(
                f"'{word}' is no bound of a parameter; bounds are >= 0, > 0, <= 1, < 1, {', '.join(RELATIONS)}."
            )
    return replace(domain, bounds=tuple(bounds))

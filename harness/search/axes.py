"""The axes of a search space: a range, a choice, and the condition under which either is searched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.domains import Domain, shown
from harness.registry import suggest
from harness.types import HarnessError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE_KEYS = {"low", "high", "log", "step"}
_GRAIN = 1e-9  # relative, of a step: how far a float may lie beside it


@dataclass(frozen=True)
class When:
    """Where an axis is searched: the parameter `name` has one of these values."""

    name: str
    values: tuple[Any, ...]

    def holds(self, params: Mapping[str, Any]) -> bool:
        return params[self.name] in self.values

    def __str__(self) -> str:
        return f" if {self.name} is {' or '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Range:
    """An interval of floats or, if both ends are ints, of ints. Raises ValueError where it is none."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range starts above 0 and takes no step")
        if self.step is not None and not 0 < self.step <= max(self.high - self.low, 0):
            raise ValueError(f"step {self.step} is not above 0 and at most high - low")

    @property
    def integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and self.low <= value <= self.high and self._on_a_step(value)

    def _on_a_step(self, value: float) -> bool:
        if self.step is None:
            return True
        steps = (value - self.low) / self.step
        return math.isclose(steps, round(steps), rel_tol=0, abs_tol=_GRAIN)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        scale = (" log" if self.log else "") + (f" step {self.step}" if self.step else "")
        return f"{self.low} … {self.high}{scale}{self.when or ''}"


@dataclass(frozen=True)
class Choices:
    """A finite set of values."""

    values: tuple[Any, ...]
    when: When | None = None

    def holds(self, value: Any) -> bool:
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def __str__(self) -> str:
        return ", ".join(map(str, self.values)) + str(self.when or "")


def read(where: str, value: Any, default: Any, domain: Domain) -> Any:
    """A fixed value or an axis as a TOML file has it. Raises HarnessError naming `where` if it is none, or not all of
    its values are of the parameter's type and in its range."""
    if not isinstance(value, dict):
        return domain.checked(where, value)
    given = dict(value)
    when = given.pop("when", None)
    condition = None if when is None else When(*next((other, tuple(values)) for other, values in when.items()))
    try:
        axis = _axis(where, given, condition, domain)
    except ValueError as error:
        raise HarnessError(f"{where}: {error}.") from None
    if default is not None and not axis.holds(default):
        off = "lies on none of the steps of" if isinstance(axis, Range) and axis.low <= default <= axis.high else ""
        raise HarnessError(f"{where}: the default {default!r} {off or 'lies outside'} {axis}.")
    return axis


def _axis(where: str, given: dict[str, Any], when: When | None, domain: Domain) -> Range | Choices:
    if set(given) == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
        return Choices(_choices(where, given["choices"], domain), when)
    if not {"low", "high"} <= set(given) <= _RANGE_KEYS:
        raise ValueError("a search range is { low, high, log, step } or { choices = [...] }, with or without when")
    if domain.kind not in (int, float):
        raise ValueError(f"the parameter is {domain} and has no range; it is searched by {{ choices = [...] }}")
    if not isinstance(given.get("log", False), bool):
        raise ValueError(f"log is true or false, not {shown(given['log'])}")
    for end in ("low", "high"):
        domain.checked(f"{where}: {end}", given[end])
    if "step" in given:
        given["step"] = Domain(domain.kind).checked(f"{where}: step", given["step"])
    if domain.kind is float and type(given["low"]) is type(given["high"]) is int:  # else it would be one of ints
        given |= {end: float(given[end]) for end in ("low", "high")}
    return Range(**given, when=when)


def _choices(where: str, values: list[Any], domain: Domain) -> tuple[Any, ...]:
    checked = [domain.checked(f"{where}: choice", value) for value in values]
    for place, value in enumerate(checked):
        if value in checked[:place]:
            raise ValueError(f"the choice {shown(value)} stands there twice")
    return tuple(values)


def check_conditions(where: str, table: Mapping[str, Any], domains: Mapping[str, Domain]) -> None:
    """Every `when` is one parameter of this file with a list of its values, and that one has no condition itself.
    Raises HarnessError."""
    for name, value in table.items():
        when = value.get("when") if isinstance(value, dict) else None
        if when is None:
            continue
        if not isinstance(when, dict) or len(when) != 1 or not all(isinstance(v, list) and v for v in when.values()):
            raise HarnessError(f"{where}: {name}: a condition is when = {{ parameter = [values] }}.")
        [(other, values)] = when.items()
        if other not in domains:
            known = suggest(other, list(domains)).replace("Known:", "It takes:")
            raise HarnessError(f"{where}: {name}: when: there is no parameter '{other}'. {known}")
        for one in values:
            domains[other].checked(f"{where}: {name}: when {other}", one)
        if isinstance(table.get(other), dict) and "when" in table[other]:
            raise HarnessError(
                f"{where}: {name}: '{other}' depends on another parameter itself; conditions do not chain."
            )

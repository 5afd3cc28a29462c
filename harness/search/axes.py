"""Axes of a search space: ranges, choices, and conditions under which they are searched."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.domains import Domain, shown
from harness.registry import suggest
from harness.types import HarnessError, Json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE_KEYS = {"low", "high", "log", "step"}
_RANGE = re.compile(r"(?P<low>[\d.e+-]+) … (?P<high>[\d.e+-]+)(?P<log> log)?(?: step (?P<step>[\d.e+-]+))?")
_GRAIN = 1e-9  # tolerance for a float on a step, relative to the step


@dataclass(frozen=True)
class When:
    """Condition of an axis: it is searched if the parameter `name` has one of these values."""

    name: str
    values: tuple[Any, ...]

    def holds(self, params: Mapping[str, Any]) -> bool:
        return params[self.name] in self.values

    def __str__(self) -> str:
        return f" if {self.name} is {' or '.join(map(str, self.values))}"


@dataclass(frozen=True)
class Range:
    """An interval of floats or, if both ends are ints, of ints. Raises ValueError if it is invalid."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: When | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range must start above 0 and has no step")
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
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.values)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def __str__(self) -> str:
        return ", ".join(map(str, self.values)) + str(self.when or "")


def read(where: str, value: Any, default: Any, domain: Domain) -> Any:
    """Read a fixed value or an axis from a value of a TOML file.

    Raises HarnessError naming `where` if it is invalid or a value is not of the parameter's type and in its range.
    """
    if not isinstance(value, dict):
        return domain.checked(where, value)
    options = dict(value)
    when = options.pop("when", None)
    condition = None if when is None else When(*next((other, tuple(values)) for other, values in when.items()))
    try:
        axis = _axis(where, options, condition, domain)
    except ValueError as error:
        raise HarnessError(f"{where}: {error}.") from None
    if default is None:  # the first trial of a search; TOML has no None
        raise HarnessError(f"{where}: its default is None, which no range holds; it can be fixed, not searched.")
    if not axis.holds(default):
        off = "not on a step of" if isinstance(axis, Range) and axis.low <= default <= axis.high else "outside"
        raise HarnessError(f"{where}: the default {default!r} is {off} {axis}.")
    return axis


def recorded(text: str) -> Range | None:
    """Read an unconditional range from the text that `str` makes of it; None for any other axis.

    >>> recorded("0.0003 … 0.01 log"), recorded("1, 4")
    (Range(low=0.0003, high=0.01, log=True, step=None, when=None), None)
    """
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    try:
        low, high = json.loads(match["low"]), json.loads(match["high"])
        return Range(low, high, bool(match["log"]), json.loads(match["step"] or "null"))
    except ValueError:
        return None


def _axis(where: str, options: Json, when: When | None, domain: Domain) -> Range | Choices:
    if set(options) == {"choices"} and isinstance(options["choices"], list) and options["choices"]:
        return Choices(_choices(where, options["choices"], domain), when)
    if not {"low", "high"} <= set(options) <= _RANGE_KEYS:
        raise ValueError("a search range is { low, high, log, step } or { choices = [...] }, optionally with when")
    if domain.kind not in (int, float):
        raise ValueError(f"the parameter is {domain} and has no range; use {{ choices = [...] }}")
    if not isinstance(options.get("log", False), bool):
        raise ValueError(f"log must be true or false, not {shown(options['log'])}")
    for end in ("low", "high"):
        domain.checked(f"{where}: {end}", options[end])
    if "step" in options:
        options["step"] = Domain(domain.kind).checked(f"{where}: step", options["step"])
    if domain.kind is float:  # 0 and 0.0 are one range
        options |= {end: float(options[end]) for end in ("low", "high")}
    return Range(**options, when=when)


def _choices(where: str, values: list[Any], domain: Domain) -> tuple[Any, ...]:
    checked = [domain.checked(f"{where}: choice", value) for value in values]
    for place, value in enumerate(checked):
        if value in checked[:place]:
            raise ValueError(f"the choice {shown(value)} is repeated")
    return tuple(checked)


def check_conditions(where: str, table: Mapping[str, Any], domains: Mapping[str, Domain]) -> None:
    """Check that every `when` names one unconditional parameter of this file with a list of its values.

    Raises HarnessError.
    """
    for name, value in table.items():
        when = value.get("when") if isinstance(value, dict) else None
        if when is None:
            continue
        if not isinstance(when, dict) or len(when) != 1 or not all(isinstance(v, list) and v for v in when.values()):
            raise HarnessError(f"{where}: {name}: a condition must have the form when = {{ parameter = [values] }}.")
        [(other, values)] = when.items()
        if other not in domains:
            hint = suggest(other, list(domains)).replace("Known:", "It takes:")
            raise HarnessError(f"{where}: {name}: when: there is no parameter '{other}'. {hint}")
        for candidate in values:
            domains[other].checked(f"{where}: {name}: when {other}", candidate)
        if isinstance(table.get(other), dict) and "when" in table[other]:
            raise HarnessError(f"{where}: {name}: '{other}' has a condition itself; conditions do not chain.")

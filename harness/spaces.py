"""Search spaces: TOML files, checked against the constructors they are for, turned into Optuna distributions.

A value is fixed as it stands; ``{ low, high, log, step }`` is a range (of ints if both ends are ints);
``{ choices = [...] }`` is a choice. Keys are the component's keyword-only parameters, and every default lies inside
its range, because trial 0 of every study is the default point.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.types import Cell, HarnessError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

TRAIN_DEFAULTS: dict[str, Any] = {
    "d": 64,
    "max_len": 50,
    "batch_size": 1024,  # targets
    "lr": 3e-3,
    "weight_decay": 1e-6,
    "clip_norm": 5.0,
}
TEXT_DEFAULTS: dict[str, Any] = {"fusion": "add", "id_std": 0.02, "out_std": 0.05}
_RANGE_KEYS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class Range:
    """An interval of floats or, if both ends are ints, of ints. Raises ValueError where it is none."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} lies above high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a log range starts above 0 and takes no step")

    @property
    def integer(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def __str__(self) -> str:
        return f"{self.low} … {self.high}" + (" log" if self.log else "") + (f" step {self.step}" if self.step else "")


@dataclass(frozen=True)
class Choices:
    """A finite set of values."""

    values: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in self.values)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def __str__(self) -> str:
        return ", ".join(map(str, self.values))


@dataclass(frozen=True)
class Space:
    """What is searched in one cell: parameter names are dotted (`train.lr`, `adapter.hidden`)."""

    fixed: dict[str, Any]
    searched: dict[str, Range | Choices]
    default: dict[str, Any]  # the point of trial 0: every parameter, fixed and searched

    def to_json(self) -> dict[str, Any]:
        """What makes two spaces the same."""
        return {"fixed": self.fixed, "searched": {name: str(axis) for name, axis in self.searched.items()}}

    def distributions(self) -> dict[str, BaseDistribution]:
        return {name: axis.distribution() for name, axis in self.searched.items()}


@dataclass(frozen=True)
class Source:
    """Where spaces come from: `folder`'s files go before those that are installed; `fixed` pins shared parameters
    (`train.d`, `text.fusion`) to one value."""

    folder: Path | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        own = self.folder / file if self.folder else None
        return own if own and own.is_file() else registry.folder_of("search_spaces") / file

    def pinned(self, prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix + "."): v for k, v in self.fixed.items() if k.startswith(prefix + ".")}

    def check(self) -> None:
        """Raises HarnessError for a pinned name that is no shared parameter, or a folder that is none."""
        known = [f"train.{k}" for k in TRAIN_DEFAULTS] + [f"text.{k}" for k in TEXT_DEFAULTS]
        for name in self.fixed:
            if name not in known:
                raise HarnessError(f"--set {name}: no shared parameter. {registry.suggest(name, known)}")
        if self.folder is not None and not self.folder.is_dir():
            raise HarnessError(f"--spaces {self.folder}: there is no such folder.")


def of_cell(cell: Cell, source: Source) -> Space:
    """The space of a cell: training, text seam, adapter and backbone together, overrides in brackets fixed.

    Raises HarnessError naming file, key and what is allowed.
    """
    adapter, fixed_adapter = registry.split_overrides(cell.adapter)
    backbone, fixed_backbone = registry.split_overrides(cell.backbone)
    adapter_schema = registry.schema(registry.ADAPTERS, adapter)
    parts = [("train", "train.toml", TRAIN_DEFAULTS, source.pinned("train"), "train")]
    if adapter_schema.attributes.get("uses_text", True):
        text = {k: v for k, v in fixed_adapter.items() if k in TEXT_DEFAULTS}
        fixed_adapter = {k: v for k, v in fixed_adapter.items() if k not in TEXT_DEFAULTS}
        parts.append(("text", "text.toml", TEXT_DEFAULTS, source.pinned("text") | text, "text"))
    parts.append((adapter, f"adapters/{adapter}.toml", adapter_schema.params, fixed_adapter, "adapter"))
    backbone_params = registry.schema(registry.BACKBONES, backbone).params
    parts.append((backbone, f"backbones/{backbone}.toml", backbone_params, fixed_backbone, "backbone"))
    fixed: dict[str, Any] = {}
    searched: dict[str, Range | Choices] = {}
    default: dict[str, Any] = {}
    for owner, file, defaults, overrides, prefix in parts:
        axes = read(source.path(file), owner, defaults)
        _check_names(f"{owner}[...]", overrides, defaults)
        for name, value in defaults.items():
            axis = _typed(f"{owner}[{name}]", overrides[name], value) if name in overrides else axes.get(name, value)
            key = f"{prefix}.{name}"
            if isinstance(axis, Range | Choices):
                searched[key], default[key] = axis, value
            else:
                fixed[key] = default[key] = axis
    return Space(fixed, searched, default)


def read(path: Path, owner: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The axes of one TOML file, checked against the owner's parameters and their defaults."""
    where = "/".join(path.parts[-3:] if path.parent.name in ("adapters", "backbones") else path.parts[-2:])
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise HarnessError(f"{where} is missing; every component has one (it may be empty).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HarnessError(f"{where} is not valid TOML: {error}.") from None
    _check_names(where, table, defaults, owner)
    return {name: _axis(where, name, value, defaults[name]) for name, value in table.items()}


def _check_names(where: str, given: dict[str, Any], known: dict[str, Any], owner: str = "") -> None:
    for name in given:
        if name not in known:
            near = registry.suggest(name, list(known)).replace("Known:", "It takes:") if known else "It takes none."
            raise HarnessError(f"{where}: {owner + ' has' if owner else 'there is'} no parameter '{name}'. {near}")


def _typed(where: str, value: Any, default: Any) -> Any:
    """A fixed value, if it is of the default's type (an int serves as a float; a default of None takes anything)."""
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if default is not None and type(value) is not type(default):
        found, allowed = type(value).__name__, type(default).__name__
        raise HarnessError(f"{where} = {value!r} is a {found}; the parameter is a {allowed}.")
    return value


def _axis(file: str, name: str, value: Any, default: Any) -> Any:
    where = f"{file}: {name}"
    if not isinstance(value, dict):
        return _typed(where, value, default)
    try:
        if set(value) == {"choices"} and isinstance(value["choices"], list) and value["choices"]:
            axis: Range | Choices = Choices(tuple(value["choices"]))
        elif {"low", "high"} <= set(value) <= _RANGE_KEYS:
            axis = Range(**value)
        else:
            raise ValueError("a search range is { low, high, log, step } or { choices = [...] }")
    except (ValueError, TypeError) as error:
        raise HarnessError(f"{where}: {error}.") from None
    if default is not None and not axis.holds(default):
        raise HarnessError(f"{where}: the default {default!r} lies outside {axis}.")
    return axis

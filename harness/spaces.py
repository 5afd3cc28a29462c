"""Search spaces: TOML files, checked against the constructors they are for, turned into Optuna distributions.

A value is fixed as it stands; ``{ low, high, log, step }`` is a range (of ints if both ends are ints);
``{ choices = [...] }`` is a choice. Either may say ``when = { other = [...] }``: searched only where another parameter
of the file, itself unconditional, has one of these values, and at its default elsewhere. Keys are the component's
keyword-only parameters, and every default lies inside its range, because trial 0 of every study is the default point.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import decoding, registry
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
    "precision": "float32",
    "loss": "softmax",  # a name of harness/losses, never searched: losses are compared between benches
}
TEXT_DEFAULTS: dict[str, Any] = {"fusion": "add", "id_std": 0.02, "out_std": 0.05}
COMPONENT_FOLDERS = ("adapters", "backbones", "losses")
_RANGE_KEYS = {"low", "high", "log", "step"}


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


@dataclass(frozen=True)
class Space:
    """What is searched in one cell: parameter names are dotted (`train.lr`, `adapter.hidden`)."""

    fixed: dict[str, Any]
    searched: dict[str, Range | Choices]
    default: dict[str, Any]  # the point of trial 0: every parameter, fixed and searched

    def to_json(self) -> dict[str, Any]:
        """What makes two spaces the same."""
        return {"fixed": self.fixed, "searched": {name: str(axis) for name, axis in self.searched.items()}}

    def free(self) -> dict[str, BaseDistribution]:
        """What is searched at every point."""
        return {name: axis.distribution() for name, axis in self.searched.items() if axis.when is None}

    def conditional(self, point: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """What is searched besides, where the parameters that are searched at every point have these values."""
        return {
            name: a.distribution() for name, a in self.searched.items() if a.when is not None and a.when.holds(point)
        }


@dataclass(frozen=True)
class Source:
    """Where spaces come from: `folder`'s files go before those that are installed; `fixed` pins shared parameters
    (`train.d`, `text.fusion`, `loss.tau`) to one value. A folder that is not there may be one of `published()`."""

    folder: Path | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        own = self.root() / file if self.folder else None
        return own if own and own.is_file() else registry.folder_of("search_spaces") / file

    def root(self) -> Path:
        """The folder itself, or the shipped settings of that name."""
        assert self.folder is not None
        return self.folder if self.folder.is_dir() else _published() / self.folder.name

    def pinned(self, prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix + "."): v for k, v in self.fixed.items() if k.startswith(prefix + ".")}

    def check(self) -> None:
        """Raises HarnessError for a pinned name that is no shared parameter, a folder that is none, or a wrong loss."""
        if self.folder is not None and not (self.folder.is_dir() or str(self.folder) in published()):
            hint = registry.suggest(str(self.folder), published())
            raise HarnessError(f"--spaces {self.folder}: there is no such folder, and no published setting. {hint}")
        loss = self.loss()
        shared = {"train": TRAIN_DEFAULTS, "text": TEXT_DEFAULTS, "loss": registry.schema(registry.LOSSES, loss).params}
        known = [f"{prefix}.{name}" for prefix, defaults in shared.items() for name in defaults]
        for name in self.fixed:
            if name not in known:
                of = f" of a bench whose loss is {loss}" if name.startswith("loss.") else ""
                raise HarnessError(f"--set {name}: no shared parameter{of}. {registry.suggest(name, known)}")

    def loss(self) -> str:
        """Name of the loss that every cell is trained by. Raises HarnessError where there is none of that name."""
        axes = read(self.path("train.toml"), "train", TRAIN_DEFAULTS)
        name = self.fixed.get("train.loss", axes.get("loss", TRAIN_DEFAULTS["loss"]))
        return registry.find(registry.LOSSES, _typed("train.loss", name, ""))


def published() -> list[str]:
    """Names of the shipped settings of publications, each a folder of TOML files like one of the user's."""
    return sorted(folder.name for folder in _published().glob("*") if folder.is_dir())


def about(name: str) -> str:
    """What a published setting is: the comment on the first line of its first file."""
    files = sorted(_published().joinpath(name).rglob("*.toml"))
    first = files[0].read_text(encoding="utf-8").partition("\n")[0] if files else ""
    return first.removeprefix("#").strip()


def setting(cell: Cell, source: Source) -> str:
    """Name of the published setting that any file of a cell's space is from; empty where none is."""
    if source.folder is None or source.folder.is_dir() or cell.is_baseline:
        return ""
    own = any((source.root() / part.file).is_file() for part in _parts(cell, source))
    return source.folder.name if own else ""


def _published() -> Path:
    return registry.folder_of("search_spaces") / "published"


@dataclass(frozen=True)
class _Part:
    """One TOML file of a space: whose parameters it is for, their defaults, and those that are fixed elsewhere."""

    prefix: str
    owner: str
    file: str
    defaults: dict[str, Any]
    overrides: dict[str, Any]


def of_cell(cell: Cell, source: Source) -> Space:
    """The space of a cell: training, loss, text seam, adapter and backbone together, overrides in brackets fixed.

    Raises HarnessError naming file, key and what is allowed.
    """
    fixed: dict[str, Any] = {}
    searched: dict[str, Range | Choices] = {}
    default: dict[str, Any] = {}
    for part in _parts(cell, source):
        axes = read(source.path(part.file), part.owner, part.defaults)
        _check_names(f"{part.owner}[...]", part.overrides, part.defaults)
        for name, value in part.defaults.items():
            key, axis = f"{part.prefix}.{name}", axes.get(name, value)
            if name in part.overrides:
                axis = _typed(f"{part.owner}[{name}]", part.overrides[name], value)
            if isinstance(axis, Range | Choices):
                searched[key], default[key] = _placed(axis, part.prefix), value
            else:
                fixed[key] = default[key] = axis
    return _resolved(Space(fixed, searched, default))


def _placed(axis: Range | Choices, prefix: str) -> Range | Choices:
    """The axis with its condition on the dotted name."""
    return axis if axis.when is None else replace(axis, when=replace(axis.when, name=f"{prefix}.{axis.when.name}"))


def _resolved(space: Space) -> Space:
    """The space without conditions on fixed parameters: the axis is searched at every point, or fixed as well."""
    fixed, searched = dict(space.fixed), dict(space.searched)
    for name, axis in space.searched.items():
        if axis.when is not None and axis.when.name in space.fixed:
            if axis.when.holds(space.fixed):
                searched[name] = replace(axis, when=None)
            else:
                del searched[name]
                fixed[name] = space.default[name]
    return Space(fixed, searched, space.default)


def _parts(cell: Cell, source: Source) -> list[_Part]:
    adapter, own = registry.split_overrides(cell.adapter)
    backbone, fixed_backbone = registry.split_overrides(cell.backbone)
    schema, loss = registry.schema(registry.ADAPTERS, adapter), source.loss()
    loss_params = registry.schema(registry.LOSSES, loss).params
    backbone_params = registry.schema(registry.BACKBONES, backbone).params
    parts = [
        _Part("train", "train", "train.toml", TRAIN_DEFAULTS, source.pinned("train") | {"loss": loss}),
        _Part("loss", loss, f"losses/{loss}.toml", loss_params, source.pinned("loss")),
    ]
    if schema.attributes.get("uses_text", True):
        text = {k: v for k, v in own.items() if k in TEXT_DEFAULTS}
        own = {k: v for k, v in own.items() if k not in TEXT_DEFAULTS}
        text = source.pinned("text") | text | (_fusing(cell.adapter, text) if schema.attributes.get("fuses") else {})
        parts.append(_Part("text", "text", "text.toml", TEXT_DEFAULTS, text))
    parts.append(_Part("adapter", adapter, f"adapters/{adapter}.toml", schema.params, own))
    parts.append(_Part("backbone", backbone, f"backbones/{backbone}.toml", backbone_params, fixed_backbone))
    return parts


def _fusing(adapter: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What is fixed at the seam of a method that joins text and ID itself. Raises HarnessError if more is asked."""
    fixed = {"fusion": "none", "id_std": TEXT_DEFAULTS["id_std"]}
    for name in fixed:
        if asked.get(name, fixed[name]) != fixed[name]:
            raise HarnessError(f"{adapter}: the method joins text and ID itself, so '{name}' cannot be set.")
    return fixed


def read(path: Path, owner: str, defaults: dict[str, Any]) -> dict[str, Any]:
    """The axes of one TOML file, checked against the owner's parameters and their defaults."""
    where = "/".join(path.parts[-3:] if path.parent.name in COMPONENT_FOLDERS else path.parts[-2:])
    try:
        table = _table(decoding.text(path))
    except FileNotFoundError:
        raise HarnessError(f"{where} is missing; every component has one (it may be empty).") from None
    except tomllib.TOMLDecodeError as error:
        raise HarnessError(f"{where} is not valid TOML: {error}.") from None
    _check_names(where, table, defaults, owner)
    _check_conditions(where, table, defaults)
    if owner == "train" and isinstance(table.get("loss"), dict):
        known = ", ".join(registry.names(registry.LOSSES))
        raise HarnessError(f"{where}: loss is one name for all cells, never searched. Known: {known}.")
    return {name: _axis(where, name, value, defaults[name]) for name, value in table.items()}


@lru_cache(maxsize=256)
def _table(text: str) -> dict[str, Any]:
    """Parsed once for all cells, and not to be changed."""
    return tomllib.loads(text)


def _check_names(where: str, given: dict[str, Any], known: dict[str, Any], owner: str = "") -> None:
    for name in given:
        if name not in known:
            near = registry.suggest(name, list(known)).replace("Known:", "It takes:") if known else "It takes none."
            raise HarnessError(f"{where}: {owner + ' has' if owner else 'there is'} no parameter '{name}'. {near}")


def _check_conditions(where: str, table: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Every `when` is one parameter of this file with a list of values, and that one has no condition itself."""
    for name, value in table.items():
        when = value.get("when") if isinstance(value, dict) else None
        if when is None:
            continue
        if not isinstance(when, dict) or len(when) != 1 or not all(isinstance(v, list) and v for v in when.values()):
            raise HarnessError(f"{where}: {name}: a condition is when = {{ parameter = [values] }}.")
        other = next(iter(when))
        _check_names(f"{where}: {name}: when", when, defaults)
        if isinstance(table.get(other), dict) and "when" in table[other]:
            raise HarnessError(
                f"{where}: {name}: '{other}' depends on another parameter itself; conditions do not chain."
            )


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
    given = dict(value)
    when = (
        When(*next((other, tuple(values)) for other, values in given.pop("when").items())) if "when" in given else None
    )
    try:
        if set(given) == {"choices"} and isinstance(given["choices"], list) and given["choices"]:
            axis: Range | Choices = Choices(tuple(given["choices"]), when)
        elif {"low", "high"} <= set(given) <= _RANGE_KEYS:
            axis = Range(**given, when=when)
        else:
            raise ValueError("a search range is { low, high, log, step } or { choices = [...] }, with or without when")
    except (ValueError, TypeError) as error:
        raise HarnessError(f"{where}: {error}.") from None
    if default is not None and not axis.holds(default):
        raise HarnessError(f"{where}: the default {default!r} lies outside {axis}.")
    return axis

"""Search spaces: TOML files, checked against the constructors they are for, turned into Optuna distributions.

A value is fixed as it stands; ``{ low, high, log, step }`` is a range (of ints if both ends are ints);
``{ choices = [...] }`` is a choice. Either may say ``when = { other = [...] }``: searched only where another parameter
of the file, itself unconditional, has one of these values, and at its default elsewhere. Keys are the component's
keyword-only parameters, and every default lies inside its range, because trial 0 of every study is the default point.
Every value is of its parameter's type and in the range that its constructor declares (`harness.domains`).
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.domains import Domain, of_default
from harness.search import axes as axes_of
from harness.search.axes import Choices, Range, check_conditions
from harness.system import decoding
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
    "loss": "softmax",  # a name of harness/training/losses, never searched: losses are compared between benches
}
TRAIN_DOMAINS = {
    "d": Domain(int, ((">=", 1), ("<=", 16384))),
    "max_len": Domain(int, ((">=", 1), ("<=", 65536))),
    "batch_size": Domain(int, ((">=", 1), ("<=", 2**24))),
    "lr": Domain(float, ((">", 0),)),
    "weight_decay": Domain(float, ((">=", 0),)),
    "clip_norm": Domain(float, ((">", 0),)),
    "precision": Domain(str, choices=("float32", "bfloat16")),  # as harness/training/trial.py has them
    "loss": Domain(str),
}
TEXT_DEFAULTS: dict[str, Any] = {"fusion": "add", "id_std": 0.02, "out_std": 0.05}
TEXT_DOMAINS = {
    "fusion": Domain(str, choices=("none", "add", "gate", "concat")),  # as adapters/_base.py has them
    "id_std": Domain(float, ((">=", 0),)),
    "out_std": Domain(float, ((">", 0),)),
}
COMPONENT_FOLDERS = ("adapters", "backbones", "losses")


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
class SpaceSource:
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
        """Raises HarnessError for an unknown shared parameter, a value outside its range, a missing folder, or an
        unknown loss."""
        if self.folder is not None and not (self.folder.is_dir() or str(self.folder) in published()):
            hint = registry.suggest(str(self.folder), published())
            raise HarnessError(f"--spaces {self.folder}: there is no such folder, and no published setting. {hint}")
        loss = self.loss()
        schema = registry.schema(registry.LOSSES, loss)
        shared = {"train": TRAIN_DOMAINS, "text": TEXT_DOMAINS, "loss": schema.domains}
        known = {f"{prefix}.{name}": own for prefix, domains in shared.items() for name, own in domains.items()}
        for name, value in self.fixed.items():
            if name not in known:
                of = f" of a bench whose loss is {loss}" if name.startswith("loss.") else ""
                raise HarnessError(f"--set {name}: no shared parameter{of}. {registry.suggest(name, [*known])}")
            known[name].checked(f"--set {name}", value)

    def loss(self) -> str:
        """Name of the loss that every cell is trained by. Raises HarnessError where there is none of that name."""
        axes = read(self.path("train.toml"), "train", TRAIN_DEFAULTS, TRAIN_DOMAINS)
        name = self.fixed.get("train.loss", axes.get("loss", TRAIN_DEFAULTS["loss"]))
        return registry.find(registry.LOSSES, TRAIN_DOMAINS["loss"].checked("train.loss", name))


def published() -> list[str]:
    """Names of the shipped settings of publications, each a folder of TOML files like one of the user's."""
    return sorted(folder.name for folder in _published().glob("*") if folder.is_dir())


def about(name: str) -> str:
    """What a published setting is: the comment on the first line of its first file."""
    files = sorted(_published().joinpath(name).rglob("*.toml"))
    first = files[0].read_text(encoding="utf-8").partition("\n")[0] if files else ""
    return first.removeprefix("#").strip()


def setting(cell: Cell, source: SpaceSource) -> str:
    """Name of the published setting that any file of a cell's space is from; empty where none is."""
    if source.folder is None or source.folder.is_dir() or cell.is_baseline:
        return ""
    own = any((source.root() / part.file).is_file() for part in _parts(cell, source))
    return source.folder.name if own else ""


def _published() -> Path:
    return registry.folder_of("search_spaces") / "published"


@dataclass(frozen=True)
class _Part:
    """One TOML file of a space: whose parameters it is for, their defaults and domains, and those that are fixed
    elsewhere."""

    prefix: str
    owner: str
    file: str
    defaults: dict[str, Any]
    domains: dict[str, Domain]
    overrides: dict[str, Any]


def of_cell(cell: Cell, source: SpaceSource) -> Space:
    """The space of a cell: training, loss, text seam, adapter and backbone together, overrides in brackets fixed.

    Raises HarnessError naming file, key and what is allowed.
    """
    fixed: dict[str, Any] = {}
    searched: dict[str, Range | Choices] = {}
    default: dict[str, Any] = {}
    for part in _parts(cell, source):
        axes = read(source.path(part.file), part.owner, part.defaults, part.domains)
        _check_names(f"{part.owner}[...]", part.overrides, part.defaults)
        for name, value in part.defaults.items():
            key, axis = f"{part.prefix}.{name}", axes.get(name, value)
            if name in part.overrides:
                axis = part.domains[name].checked(f"{part.owner}[{name}]", part.overrides[name])
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


def _parts(cell: Cell, source: SpaceSource) -> list[_Part]:
    adapter, own = registry.split_overrides(cell.adapter)
    backbone, fixed_backbone = registry.split_overrides(cell.backbone)
    schema, loss = registry.schema(registry.ADAPTERS, adapter), source.loss()
    pinned = source.pinned("train") | {"loss": loss}
    parts = [
        _Part("train", "train", "train.toml", TRAIN_DEFAULTS, TRAIN_DOMAINS, pinned),
        _part("loss", registry.schema(registry.LOSSES, loss), "losses", source.pinned("loss")),
    ]
    if schema.attributes.get("uses_text", True):
        text = {k: v for k, v in own.items() if k in TEXT_DEFAULTS}
        own = {k: v for k, v in own.items() if k not in TEXT_DEFAULTS}
        text = source.pinned("text") | text | (_fusing(cell.adapter, text) if schema.attributes.get("fuses") else {})
        parts.append(_Part("text", "text", "text.toml", TEXT_DEFAULTS, TEXT_DOMAINS, text))
    parts.append(_part("adapter", schema, "adapters", own))
    parts.append(_part("backbone", registry.schema(registry.BACKBONES, backbone), "backbones", fixed_backbone))
    return parts


def _part(prefix: str, schema: registry.Schema, folder: str, overrides: dict[str, Any]) -> _Part:
    return _Part(prefix, schema.name, f"{folder}/{schema.name}.toml", schema.params, schema.domains, overrides)


def conflict(cell: Cell, source: SpaceSource) -> str:
    """Which parameter of a cell does not go with the model dimension, and why. Empty where all do."""
    space = of_cell(cell, source)
    for part in _parts(cell, source):
        for name in (name for name, domain in part.domains.items() if domain.relation):
            for d, value in itertools.product(_values(space, "train.d"), _values(space, f"{part.prefix}.{name}")):
                concat = part.prefix == "adapter" and space.fixed.get("text.fusion") == "concat"
                if words := part.domains[name].conflict(value, d - d // 2 if concat else d):
                    return f"{part.owner}: {name} = {value} {words}"
    return ""


def _values(space: Space, name: str) -> tuple[Any, ...]:
    """All values of a parameter that is fixed or a choice; of a range the default."""
    axis = space.searched.get(name)
    return axis.values if isinstance(axis, Choices) else (space.default[name],)


def _fusing(adapter: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What is fixed at the seam of a method that joins text and ID itself. Raises HarnessError if more is asked."""
    fixed = {"fusion": "none", "id_std": TEXT_DEFAULTS["id_std"]}
    for name in fixed:
        if asked.get(name, fixed[name]) != fixed[name]:
            raise HarnessError(f"{adapter}: the method joins text and ID itself, so '{name}' cannot be set.")
    return fixed


def read(
    path: Path, owner: str, defaults: dict[str, Any], domains: Mapping[str, Domain] | None = None
) -> dict[str, Any]:
    """The axes of one TOML file, checked against the owner's parameters, their defaults and their domains (any value of
    the default's type if None)."""
    where = "/".join(path.parts[-3:] if path.parent.name in COMPONENT_FOLDERS else path.parts[-2:])
    try:
        table = _table(decoding.text(path))
    except FileNotFoundError:
        raise HarnessError(f"{where} is missing; every component has one (it may be empty).") from None
    except (ValueError, RecursionError) as error:  # an int of thousands of digits raises no TOMLDecodeError
        raise HarnessError(f"{where} is not valid TOML: {str(error).rstrip('.')}.") from None
    _check_names(where, table, defaults, owner)
    known = {name: of_default(default) for name, default in defaults.items()} | dict(domains or {})
    check_conditions(where, table, known)
    if owner == "train" and isinstance(table.get("loss"), dict):
        losses = ", ".join(registry.names(registry.LOSSES))
        raise HarnessError(f"{where}: loss is one name for all cells, never searched. Known: {losses}.")
    return {name: axes_of.read(f"{where}: {name}", value, defaults[name], known[name]) for name, value in table.items()}


@lru_cache(maxsize=256)
def _table(text: str) -> dict[str, Any]:
    """Parsed once for all cells, and not to be changed."""
    return tomllib.loads(text)


def _check_names(where: str, given: dict[str, Any], known: dict[str, Any], owner: str = "") -> None:
    for name in given:
        if name not in known:
            near = registry.suggest(name, list(known)).replace("Known:", "It takes:") if known else "It takes none."
            raise HarnessError(f"{where}: {owner + ' has' if owner else 'there is'} no parameter '{name}'. {near}")

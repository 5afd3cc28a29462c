"""Search spaces: read TOML files, check them against the constructors, convert them to Optuna distributions.

A plain value is fixed; ``{ low, high, log, step }`` is a range (of ints if both ends are ints);
``{ choices = [...] }`` is a choice. Both may have ``when = { other = [...] }``: they are searched only if another,
unconditional parameter of the file has one of these values, else they have their default. Keys are the component's
keyword-only parameters. Every default must be inside its range, because trial 0 of every study is the default point.
Every value must have its parameter's type and be in the range that the constructor declares (`harness.domains`).
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import overlay, registry
from harness.domains import Domain, of_default
from harness.search import axes as axes_of
from harness.search.axes import Choices, Range, check_conditions
from harness.system import decoding
from harness.training import schedules
from harness.types import BUDGET_PARAMS, Cell, HarnessError, Json, Params

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

TRAIN_DEFAULTS: Json = {
    "d": 64,
    "max_len": 50,
    "batch_size": 1024,  # targets
    "lr": 3e-3,
    "weight_decay": 1e-6,
    "clip_norm": 5.0,
    "precision": "float32",
    "loss": "softmax",  # a name of harness/training/losses, never searched: losses are compared between benches
} | schedules.DEFAULTS
TRAIN_IMPLIED = tuple(schedules.DEFAULTS)  # left out of identities at their default, as `implied` of a component
TRAIN_DOMAINS = {
    "d": Domain(int, ((">=", 1), ("<=", 16384))),
    "max_len": Domain(int, ((">=", 1), ("<=", 65536))),
    "batch_size": Domain(int, ((">=", 1), ("<=", 2**24))),
    "lr": Domain(float, ((">", 0),)),
    "weight_decay": Domain(float, ((">=", 0),)),
    "clip_norm": Domain(float, ((">", 0),)),
    "precision": Domain(str, choices=("float32", "bfloat16")),  # as harness/training/trial.py has them
    "loss": Domain(str),
    "schedule": Domain(str, choices=schedules.SCHEDULES),
    "warmup": Domain(float, ((">=", 0), ("<", 1))),
    "ema": Domain(float, ((">=", 0), ("<", 1))),
    "compile": Domain(str, choices=schedules.COMPILED),
}
TEXT_DEFAULTS: Json = {"fusion": "add", "id_std": 0.02, "out_std": 0.05}
TEXT_DOMAINS = {
    "fusion": Domain(str, choices=("none", "add", "gate", "concat")),  # as adapters/_base.py has them
    "id_std": Domain(float, ((">=", 0),)),
    "out_std": Domain(float, ((">", 0),)),
}
COMPONENT_FOLDERS = ("adapters", "backbones", "losses")
BESIDE = "suites/"  # in a copy of the shipped folder


@dataclass(frozen=True)
class Space:
    """The search space of one cell; parameter names are dotted (`train.lr`, `adapter.hidden`).

    Implied parameters (`training.losses._base.Loss`) that are fixed at their default are in none of the fields.
    """

    fixed: Params
    searched: dict[str, Range | Choices]
    default: Params  # the point of trial 0: every parameter, fixed and searched

    def to_json(self) -> Json:
        """Return the identity of the space."""
        return {"fixed": self.fixed, "searched": {name: str(axis) for name, axis in self.searched.items()}}

    def free(self) -> dict[str, BaseDistribution]:
        """Distributions of the unconditional parameters."""
        return {name: axis.distribution() for name, axis in self.searched.items() if axis.when is None}

    def conditional(self, point: Mapping[str, Any]) -> dict[str, BaseDistribution]:
        """Distributions of the conditional parameters that are searched at a point of the unconditional ones."""
        return {
            name: a.distribution() for name, a in self.searched.items() if a.when is not None and a.when.holds(point)
        }


@dataclass(frozen=True)
class SpaceSource:
    """Source of spaces. Files in `folder`, a path or a name of `published()`, override the installed ones; `fixed` sets
    shared parameters (`train.d`, `text.fusion`, `loss.tau`) to one value; `ranges` replaces those of searched ones,
    as an earlier launch recorded them."""

    folder: Path | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def path(self, file: str) -> Path:
        override = self.root() / file if self.folder else None
        if override and override.is_file():
            return override
        own = registry.space_of(Path(file).parent.name, Path(file).stem)
        return own or registry.folder_of("search_spaces") / file

    def root(self) -> Path:
        """Return the folder, or the published setting of that name."""
        assert self.folder is not None
        return self.folder if self.folder.is_dir() else _published() / self.folder.name

    def under(self, budget: str) -> SpaceSource:
        """Return the source of a bench with a budget of this name: with the parameters that it sets, unless these are
        fixed here or the spaces come from a folder."""
        return self if self.folder else replace(self, fixed={**BUDGET_PARAMS.get(budget, {}), **self.fixed})

    def pinned(self, prefix: str) -> Json:
        return {k.removeprefix(prefix + "."): v for k, v in self.fixed.items() if k.startswith(prefix + ".")}

    def check(self) -> None:
        """Raise HarnessError for an unknown shared parameter, a value outside its range, a missing folder, one with
        files that are no search spaces, or an unknown loss."""
        if self.folder is not None:
            _check_folder(self.folder)
        loss = self.loss()
        schema = registry.schema(registry.LOSSES, loss)
        shared = {"train": TRAIN_DOMAINS, "text": TEXT_DOMAINS, "loss": schema.domains}
        allowed = {f"{prefix}.{name}": domain for prefix, domains in shared.items() for name, domain in domains.items()}
        for name, value in self.fixed.items():
            if name not in allowed:
                of = f" of a bench with loss {loss}" if name.startswith("loss.") else ""
                raise HarnessError(f"--set {name}: not a shared parameter{of}. {registry.suggest(name, [*allowed])}")
            allowed[name].checked(f"--set {name}", value)

    def loss(self) -> str:
        """Name of the loss of all cells. Raises HarnessError if it is unknown."""
        axes = read(self.path("train.toml"), "train", TRAIN_DEFAULTS, TRAIN_DOMAINS)
        name = self.fixed.get("train.loss", axes.get("loss", TRAIN_DEFAULTS["loss"]))
        return registry.find(registry.LOSSES, TRAIN_DOMAINS["loss"].checked("train.loss", name))


def _check_folder(folder: Path) -> None:
    """Raise HarnessError unless it is a published setting or a folder that holds search spaces and no other TOML."""
    if not folder.is_dir():
        if str(folder) not in published():
            hint = registry.suggest(str(folder), published())
            raise HarnessError(f"--spaces {folder}: there is no such folder or published setting. {hint}")
        return
    files = sorted([*folder.glob("*.toml"), *folder.glob("*/*.toml")])
    found = [file.relative_to(folder).as_posix() for file in files]
    kinds = {kind: registry.names(overlay.KINDS[kind]) for kind in COMPONENT_FOLDERS}
    known = ["train.toml", "text.toml", *(f"{kind}/{name}.toml" for kind, names in kinds.items() for name in names)]
    other = next((name for name in found if name not in known and not name.startswith(BESIDE)), None)
    if other is not None:
        near = difflib.get_close_matches(other, known, n=1)
        raise HarnessError(
            f"--spaces {folder}: {other} is not read. {f'Did you mean {near[0]}? ' if near else ''}Search spaces are "
            "train.toml, text.toml, and in adapters/, backbones/ and losses/ files with the names of components."
        )
    if not found:
        raise HarnessError(f"--spaces {folder}: the folder has no search space, such as train.toml.")


def published() -> list[str]:
    """Names of the shipped published settings, each a folder of TOML files."""
    return sorted(folder.name for folder in _published().glob("*") if folder.is_dir())


def about(name: str) -> str:
    """Describe a published setting: the comment on the first line of its first file."""
    files = sorted(_published().joinpath(name).rglob("*.toml"))
    first = files[0].read_text(encoding="utf-8").partition("\n")[0] if files else ""
    return first.removeprefix("#").strip()


def files(name: str) -> dict[str, str]:
    """Return the files of a published setting, path -> text."""
    folder = _published() / name
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8").strip()
        for file in sorted(folder.rglob("*.toml"))
    }


def setting(cell: Cell, source: SpaceSource) -> str:
    """Name of the published setting that a file of a cell's space comes from; "" if there is none."""
    if source.folder is None or source.folder.is_dir() or cell.is_baseline:
        return ""
    used = any((source.root() / part.file).is_file() for part in _parts(cell, source))
    return source.folder.name if used else ""


def _published() -> Path:
    return registry.folder_of("search_spaces") / "published"


@dataclass(frozen=True)
class _Part:
    """One TOML file of a space: the owner of its parameters, their defaults and domains, overridden values, and the
    names of implied parameters."""

    prefix: str
    owner: str
    file: str
    defaults: Json
    domains: dict[str, Domain]
    overrides: Json
    implied: tuple[str, ...] = ()


def of_cell(cell: Cell, source: SpaceSource) -> Space:
    """Return the space of a cell: training, loss, text seam, adapter and backbone; overrides in brackets are fixed.

    Raises HarnessError naming the file, the key and the allowed values.
    """
    fixed: Params = {}
    searched: dict[str, Range | Choices] = {}
    default: Params = {}
    parts = _parts(cell, source)
    for part in parts:
        axes = read(source.path(part.file), part.owner, part.defaults, part.domains)
        _check_names(f"{part.owner}[...]", part.overrides, part.defaults)
        for name, value in part.defaults.items():
            key, axis = f"{part.prefix}.{name}", axes.get(name, value)
            if name in part.overrides:
                axis = part.domains[name].checked(f"{part.owner}[{name}]", part.overrides[name])
            if isinstance(axis, Range | Choices):
                searched[key], default[key] = source.ranges.get(key, _placed(axis, part.prefix)), value
            else:
                fixed[key] = default[key] = axis
    space = _resolved(Space(fixed, searched, default))
    _check_warmup(space)
    return _without_implied(space, parts)


def _check_warmup(space: Space) -> None:
    """Raise HarnessError if a warm-up is set or searched that the schedule does not read."""
    schedule, warmup = (space.fixed.get(f"train.{name}") for name in ("schedule", "warmup"))
    if schedule not in (None, "warmup_cosine") and warmup != schedules.DEFAULTS["warmup"]:
        raise HarnessError(
            f"train.warmup is set, but train.schedule is {schedule}, which reads no warm-up. "
            "Set train.schedule=warmup_cosine too, or leave out train.warmup."
        )


def _without_implied(space: Space, parts: list[_Part]) -> Space:
    """Remove the implied parameters that are fixed at their default."""
    implied = {f"{part.prefix}.{name}": part.defaults.get(name) for part in parts for name in part.implied}
    gone = {name for name, value in implied.items() if name in space.fixed and space.fixed[name] == value}
    fixed, default = ({k: v for k, v in x.items() if k not in gone} for x in (space.fixed, space.default))
    return Space(fixed, space.searched, default)


def _placed(axis: Range | Choices, prefix: str) -> Range | Choices:
    """Prefix the name in the condition of an axis."""
    return axis if axis.when is None else replace(axis, when=replace(axis.when, name=f"{prefix}.{axis.when.name}"))


def _resolved(space: Space) -> Space:
    """Remove conditions on fixed parameters: their axes become unconditional, or fixed at the default."""
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
    adapter, fixed_adapter = registry.split_overrides(cell.adapter)
    backbone, fixed_backbone = registry.split_overrides(cell.backbone)
    schema, loss = registry.schema(registry.ADAPTERS, adapter), source.loss()
    pinned = source.pinned("train") | {"loss": loss}
    parts = [
        _Part("train", "train", "train.toml", TRAIN_DEFAULTS, TRAIN_DOMAINS, pinned, TRAIN_IMPLIED),
        _part("loss", registry.schema(registry.LOSSES, loss), "losses", source.pinned("loss")),
    ]
    if schema.attributes.get("uses_text", True):
        text = {k: v for k, v in fixed_adapter.items() if k in TEXT_DEFAULTS}
        fixed_adapter = {k: v for k, v in fixed_adapter.items() if k not in TEXT_DEFAULTS}
        text = source.pinned("text") | text | (_fusing(cell.adapter, text) if schema.attributes.get("fuses") else {})
        parts.append(_Part("text", "text", "text.toml", TEXT_DEFAULTS, TEXT_DOMAINS, text))
    parts.append(_part("adapter", schema, "adapters", fixed_adapter))
    parts.append(_part("backbone", registry.schema(registry.BACKBONES, backbone), "backbones", fixed_backbone))
    return parts


def _part(prefix: str, schema: registry.Schema, folder: str, overrides: Json) -> _Part:
    implied = schema.attributes.get("implied", ())
    return _Part(prefix, schema.name, f"{folder}/{schema.name}.toml", schema.params, schema.domains, overrides, implied)


def conflict(cell: Cell, source: SpaceSource) -> str:
    """Return which parameter of a cell is incompatible with the model dimension, and why; "" if none is."""
    space = of_cell(cell, source)
    for part in _parts(cell, source):
        for name in (name for name, domain in part.domains.items() if domain.relation):
            for d, value in itertools.product(
                _values(space, "train.d", TRAIN_DEFAULTS["d"]),
                _values(space, f"{part.prefix}.{name}", part.defaults[name]),
            ):
                concat = part.prefix == "adapter" and space.fixed.get("text.fusion") == "concat"
                if words := part.domains[name].conflict(value, d - d // 2 if concat else d):
                    return f"{part.owner}: {name} = {value} {words}"
    return ""


def _values(space: Space, name: str, default: Any) -> tuple[Any, ...]:
    """All values of a choice; the value of a fixed parameter; the default of a range or an implied parameter."""
    axis = space.searched.get(name)
    return axis.values if isinstance(axis, Choices) else (space.default.get(name, default),)


def _fusing(adapter: str, options: Json) -> Json:
    """Return the fixed seam parameters of a method that decides itself how text and ID are joined.

    Raises HarnessError for other values.
    """
    fixed = {"fusion": "none", "id_std": TEXT_DEFAULTS["id_std"]}
    for name in fixed:
        if options.get(name, fixed[name]) != fixed[name]:
            raise HarnessError(f"{adapter}: the method decides how text and ID are joined, so '{name}' cannot be set.")
    return fixed


def read(path: Path, owner: str, defaults: Json, domains: Mapping[str, Domain] | None = None) -> Json:
    """Read the axes of one TOML file and check them against the owner's parameters, defaults and domains (None: any
    value of the default's type)."""
    where = "/".join(path.parts[-3:] if path.parent.name in COMPONENT_FOLDERS else path.parts[-2:])
    if registry.is_own_space(path):
        where = str(path)
    try:
        table = _table(decoding.text(path))
    except FileNotFoundError:
        raise HarnessError(f"{where} is missing; every component needs one (it may be empty). Create it.") from None
    except ValueError as error:
        raise HarnessError(f"{where} is not valid TOML: {str(error).rstrip('.')}.") from None
    _check_names(where, table, defaults, owner)
    allowed = {name: of_default(default) for name, default in defaults.items()} | dict(domains or {})
    check_conditions(where, table, allowed)
    if owner == "train" and isinstance(table.get("loss"), dict):
        losses = ", ".join(registry.names(registry.LOSSES))
        raise HarnessError(f"{where}: loss must be one name for all cells, it cannot be searched. Known: {losses}.")
    return {
        name: axes_of.read(f"{where}: {name}", value, defaults[name], allowed[name]) for name, value in table.items()
    }


@lru_cache(maxsize=256)
def _table(text: str) -> Json:
    """Parse a file once for all cells. Callers must not change the result."""
    return decoding.toml(text)


def _check_names(where: str, table: Json, allowed: Json, owner: str = "") -> None:
    for name in table:
        if name not in allowed:
            hint = registry.suggest(name, list(allowed)).replace("Known:", "It takes:") if allowed else "It takes none."
            raise HarnessError(f"{where}: {owner + ' has' if owner else 'there is'} no parameter '{name}'. {hint}")

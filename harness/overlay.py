"""Components from outside harness: files of folders (`--components`) and modules of installed packages (entry points).

An `Overlay` holds the source text of all of them. Modules are imported from this text, so workers run the driver's
code, whether or not they see its folders. Nothing is imported while an overlay is read.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import keyword
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from harness.paths import expanded
from harness.types import HarnessError

ADAPTERS, BACKBONES = "adapters", "backbones"
DATASETS, ENCODERS = "harness.data.datasets", "harness.text.encoders"
BASELINES, LOSSES = "harness.training.baselines", "harness.training.losses"
METRICS, LIST_METRICS = "harness.metrics", "harness.metrics.lists"
TABLES = "harness.report.tables"
KINDS = {  # folder of a components folder, and end of an entry-point group -> the package that it adds to
    "adapters": ADAPTERS,
    "backbones": BACKBONES,
    "losses": LOSSES,
    "encoders": ENCODERS,
    "baselines": BASELINES,
    "metrics": METRICS,
    "list_metrics": LIST_METRICS,
    "datasets": DATASETS,
    "tables": TABLES,
}
WITH_SPACE = ("adapters", "backbones", "losses")  # kinds with a file in search_spaces/
VARIABLE = "HARNESS_COMPONENTS"
RESERVED = ("all", "none", "ensemble")
TEST = "pytest --pyargs harness.conformance"


@dataclass(frozen=True)
class Module:
    """The source of a module. place: its file, for messages and tracebacks."""

    name: str
    text: str
    place: str
    is_package: bool = False

    def parents(self) -> list[str]:
        """Return the names of the packages that it lies in."""
        return [self.name.rsplit(".", cut)[0] for cut in range(1, self.name.count(".") + 1)]

    def tree(self) -> ast.Module:
        """Parse the source. Raises HarnessError that names file and line."""
        try:
            return ast.parse(self.text, self.place)
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            where = f"{self.place}, line {line}" if line else self.place
            raise HarnessError(
                f"{where}: not valid Python: {getattr(error, 'msg', error)}. Correct the file."
            ) from None


@dataclass(frozen=True)
class Component:
    """A component of an overlay: `name` in `package`. attribute: its class; "" for the last public one. space: its
    search space, whether or not the file exists. origin: the folder or distribution that it comes from."""

    package: str
    name: str
    module: str
    attribute: str
    space: Path
    origin: str


@dataclass(frozen=True)
class Overlay:
    """The modules by import name, and the components by package and name."""

    modules: dict[str, Module] = field(default_factory=dict)
    components: dict[tuple[str, str], Component] = field(default_factory=dict)

    def names(self, package: str) -> list[str]:
        return [name for of, name in self.components if of == package]

    def component(self, package: str, name: str) -> Component | None:
        return self.components.get((package, name))

    def source(self, component: Component) -> Module:
        return self.modules[component.module]

    def imports(self, component: Component) -> tuple[list[Module], list[str]]:
        """Return the overlay's modules that importing a component runs, sorted, and the other modules they import."""
        inside, outside = {}, set()
        todo = [component.module]
        while todo:
            name = todo.pop()
            if name in inside:
                continue
            if name not in self.modules:
                outside.add(name)
                continue
            inside[name] = self.modules[name]
            parents = (parent for parent in inside[name].parents() if parent in self.modules)
            todo += [*imported(inside[name]), *parents]
        return [inside[name] for name in sorted(inside)], sorted(outside)

    def part(self, components: Iterable[Component]) -> Overlay:
        """Return an overlay of these components and of the modules that importing them runs."""
        chosen = {(component.package, component.name): component for component in components}
        modules = {module.name: module for component in chosen.values() for module in self.imports(component)[0]}
        return Overlay(modules, chosen)

    def packages(self) -> list[str]:
        """Return the installed packages that the modules import, such as `einops==0.8.1`; harness is left out."""
        skipped = {name.partition(".")[0] for name in (*self.modules, *KINDS.values())}
        outside = {name.partition(".")[0] for one in self.components.values() for name in self.imports(one)[1]}
        known = metadata.packages_distributions()
        found = {known[name][0] for name in outside - skipped if name in known}
        # without the local label of a build (`+cpu`), which no index has
        return sorted(f"{name}=={metadata.version(name).partition('+')[0]}" for name in found)

    @cached_property
    def hash(self) -> str:
        """sha256 over names and sources, 16 hex digits; "" without components."""
        return digest(self.modules.values()) if self.components else ""


def digest(modules: Any, more: Sequence[str] = ()) -> str:
    """sha256 over names and sources of modules and over more lines, 16 hex digits."""
    hasher = hashlib.sha256("\n".join(more).encode())
    for module in sorted(modules, key=lambda module: module.name):
        data = module.text.encode()
        hasher.update(f"{module.name} {len(data)}\n".encode() + data)
    return hasher.hexdigest()[:16]


def imported(module: Module) -> Iterator[str]:
    """Yield the absolute names of the modules that a module may import, also those that are attributes. Raises
    HarnessError for a syntax error."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree()):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def absolute(node: ast.ImportFrom, package: str) -> str:
    """Return the absolute name of the module that `from ... import` in a module of this package reads."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = ".".join(parts[: len(parts) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base


# Reading


def read(folders: Sequence[str | Path]) -> Overlay:
    """Read the components of folders and of installed packages.

    Raises HarnessError for a missing folder, one without components, a name that is taken, and an entry point that
    leads nowhere; PermissionError for a folder that cannot be listed. Files are not parsed: a broken one matters only
    to who selects it.
    """
    overlay = Overlay()
    for folder in dict.fromkeys(expanded(folder).absolute() for folder in folders):
        _read_folder(folder, overlay)
    for kind, point in _entry_points():
        _read_entry_point(kind, point, overlay)
    return overlay


def folders_of_environment() -> list[str]:
    """Return the folders that the variable HARNESS_COMPONENTS names."""
    return [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder]


def _read_folder(folder: Path, overlay: Overlay) -> None:
    if not folder.is_dir():
        raise HarnessError(f"Components: there is no folder {folder}. Name an existing one; `harness new` begins one.")
    present = [kind for kind in KINDS if (folder / kind).is_dir()]
    if not present:
        kinds = ", ".join(f"{kind}/" for kind in KINDS)
        raise HarnessError(f"Components: {folder} has none of the folders {kinds}. `harness new` writes a first file.")
    for kind in present:
        os.listdir(folder / kind)  # rglob would hide that it cannot be read
        for file in sorted((folder / kind).rglob("*.py")):
            parts = file.relative_to(folder / kind).with_suffix("").parts
            if parts == ("__init__",) or any(part.startswith(".") for part in parts):
                continue
            is_package = parts[-1] == "__init__"
            module = _module(".".join([KINDS[kind], *parts[: -1 if is_package else None]]), file, is_package)
            if len(parts) == 1:
                check_file(kind, file)
            if clash := overlay.modules.get(module.name):
                raise HarnessError(f"{file} and {clash.place} have the same name. Rename one of them.")
            overlay.modules[module.name] = module
            if len(parts) == 1 and not parts[0].startswith("_"):
                space = folder / "search_spaces" / kind / f"{parts[0]}.toml"
                _add(Component(KINDS[kind], parts[0], module.name, "", space, str(folder)), overlay)
    _check_spaces(folder, overlay)


def check_file(kind: str, file: Path) -> None:
    """Raise HarnessError for a file that could not be selected, or that would hide one of ours."""
    stem = file.stem
    if not stem.isidentifier() or keyword.iskeyword(stem) or stem in RESERVED:
        raise HarnessError(
            f"{file}: '{stem}' cannot name a component. Use letters, digits and _, such as my_{kind}.py."
        )
    packages = {KINDS[kind], *((ADAPTERS, BASELINES) if kind in ("adapters", "baselines") else ())}
    for package in sorted(packages):
        if stem.lower() in (name.lower() for name in _built_in(package)):
            what = f"'{stem}' is a built-in component of {package}" if stem[0] != "_" else f"harness has its own {stem}"
            raise HarnessError(f"{file}: {what}. Rename the file, for example to {stem}_2.py.")


def _built_in(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    return [file.stem for place in places for file in Path(place).glob("*.py")]


def _check_spaces(folder: Path, overlay: Overlay) -> None:
    """Raise HarnessError for a search space of no component of the folder: it would never be read."""
    for kind in WITH_SPACE:
        for file in sorted((folder / "search_spaces" / kind).glob("*.toml")):
            mine = overlay.component(KINDS[kind], file.stem)
            if mine is None or mine.space != file:
                raise HarnessError(
                    f"{file}: the folder has no {kind}/{file.stem}.py. Rename one of the two; "
                    "search spaces of other components are given with --spaces DIR."
                )


def _add(component: Component, overlay: Overlay) -> None:
    key = component.package, component.name
    if other := overlay.components.get(key):
        raise HarnessError(
            f"{component.package} has '{component.name}' twice: in {other.origin} and {component.origin}. Rename one."
        )
    overlay.components[key] = component


def _module(name: str, file: Path, is_package: bool = False) -> Module:
    try:
        return Module(name, file.read_text(encoding="utf-8"), str(file), is_package)
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{file} cannot be read as UTF-8 text: {error}.") from None


def _entry_points() -> Iterator[tuple[str, metadata.EntryPoint]]:
    points = metadata.entry_points()
    for kind in KINDS:
        for point in sorted(points.select(group=f"harness.{kind}"), key=lambda point: (point.name, point.value)):
            yield kind, point


def _read_entry_point(kind: str, point: metadata.EntryPoint, overlay: Overlay) -> None:
    """Add an entry point and the modules of its package that it imports."""
    origin = point.dist.name if point.dist else point.module
    where = f"Entry point {point.name} = {point.value} (harness.{kind}, of {origin})"
    file = _file_of(point.module)
    if file is None:
        raise HarnessError(f"{where}: there is no such module. Correct or uninstall {origin}.")
    if file.stem != point.name:
        raise HarnessError(f"{where}: the name must be that of its file, {file.stem}. Correct or uninstall {origin}.")
    check_file(kind, file)
    component = Component(
        KINDS[kind], point.name, point.module, point.attr or "", file.with_suffix(".toml"), f"package {origin}"
    )
    _add(component, overlay)
    todo, package = [point.module], point.module.partition(".")[0]
    while todo:
        name = todo.pop()
        found = None if name in overlay.modules or name.partition(".")[0] != package else _file_of(name)
        if found is not None:
            module = _module(name, found, found.stem == "__init__")
            overlay.modules[name] = module
            todo += [name.rpartition(".")[0], *_readable_imports(module)]


def _readable_imports(module: Module) -> list[str]:
    try:
        return list(imported(module))
    except HarnessError:  # reported to who selects the component
        return []


def _file_of(name: str) -> Path | None:
    """Return the source file of a module, without importing its packages; None if there is none."""
    first, *rest = name.split(".") if name else [""]
    try:
        spec = importlib.util.find_spec(first) if first else None
    except ValueError:
        spec = None
    if spec is None or spec.origin is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin.endswith(".py") else None
    for place in spec.submodule_search_locations or ():
        base = Path(place, *rest)
        for file in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if file.is_file():
                return file
    return None


def dumps(overlay: Overlay) -> str:
    """Return an overlay as JSON, without paths of this machine."""
    modules = [{"name": one.name, "text": one.text, "is_package": one.is_package} for one in overlay.modules.values()]
    components = [
        {"package": one.package, "name": one.name, "module": one.module, "attribute": one.attribute}
        for one in overlay.components.values()
    ]
    return json.dumps({"modules": modules, "components": components}, indent=1)


def loads(text: str, origin: str) -> Overlay:
    """Return the overlay that `dumps` wrote to `origin`. Its components have no search spaces."""
    found = json.loads(text)
    modules = {one["name"]: Module(place=f"{origin}: {one['name']}", **one) for one in found["modules"]}
    components = [Component(space=Path(), origin=origin, **one) for one in found["components"]]
    return Overlay(modules, {(one.package, one.name): one for one in components})


# The overlay of this process


_current: Overlay | None = None


def current() -> Overlay:
    """Return this process's overlay: that of the last `install`, else HARNESS_COMPONENTS and installed packages."""
    if _current is None:
        install(read(folders_of_environment()))
    assert _current is not None
    return _current


def install(overlay: Overlay | None) -> None:
    """Make an overlay this process's; modules whose source is another, and those that import one, are imported anew.
    None: read at next use."""
    global _current
    for name in _outdated((_current or Overlay()).modules, (overlay or Overlay()).modules):
        parent, _, stem = name.rpartition(".")
        if sys.modules.pop(name, None) is not None and stem in vars(sys.modules.get(parent, object)):
            delattr(sys.modules[parent], stem)
    _current = overlay
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def _outdated(before: dict[str, Module], after: dict[str, Module]) -> set[str]:
    """Return the modules of `before` whose source is another, or that import such a module."""
    runs = {name: {*module.parents(), *_readable_imports(module)} for name, module in before.items()}
    found: set[str] = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    while more := {name for name, imports in runs.items() if name not in found and not imports.isdisjoint(found)}:
        found |= more
    return found & before.keys()


class _Finder(MetaPathFinder):
    """Finds the modules of this process's overlay."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        module = _current.modules.get(fullname) if _current else None
        if module is None:
            return None
        spec = ModuleSpec(fullname, _Loader(module), origin=module.place, is_package=module.is_package)
        spec.has_location = True
        if module.is_package:
            spec.submodule_search_locations = [str(Path(module.place).parent)]
        return spec


class _Loader(InspectLoader):
    """Imports a module from its text."""

    def __init__(self, module: Module) -> None:
        self.module = module

    def is_package(self, fullname: str) -> bool:
        return self.module.is_package

    def get_source(self, fullname: str) -> str:
        return self.module.text

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.module.text, self.module.place)


_FINDER = _Finder()

"""Find components by name: a folder is a registry, a file name is a command-line name.

`names`, `select` and `schema` only read source text, since reading commands must not import torch; `load` imports.
Components from outside harness (`overlay`) stand beside ours.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import fnmatch
import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from harness import domains, overlay
from harness.domains import Domain
from harness.overlay import (
    ADAPTERS,
    BACKBONES,
    BASELINES,
    DATASETS,
    ENCODERS,
    LIST_METRICS,
    LOSSES,
    METRICS,
    TABLES,
    Component,
    Overlay,
)
from harness.types import HarnessError
from harness.words import quoted, split_list, split_overrides, unquoted

__all__ = [
    "ADAPTERS",
    "BACKBONES",
    "BASELINES",
    "DATASETS",
    "ENCODERS",
    "LIST_METRICS",
    "LOSSES",
    "METRICS",
    "TABLES",
    "VERBS",
    "quoted",
    "split_list",
    "split_overrides",
    "unquoted",
]
VERBS = "harness.verbs"
WORDS = {"losses": "loss", "list_metrics": "list metric", "datasets": "data set", "tables": "table format"}
SELECTABLE = "give names, globs or 'all' (`harness list` shows the names)"
Choice: TypeAlias = tuple[str, dict[str, Any]]  # a component and the parameters that brackets fix


def use(components: Overlay) -> None:
    """Make these the components from outside harness in this process."""
    overlay.install(components)
    names.cache_clear()
    schema.cache_clear()


def use_folders(folders: Sequence[str | Path]) -> None:
    """`use` the components of folders and of installed packages. Raises HarnessError as `overlay.read`."""
    use(overlay.read(folders))


def add(components: Overlay) -> None:
    """Add components from outside harness to this process's; they replace those of the same name."""
    here = overlay.current()
    use(Overlay(here.modules | components.modules, here.components | components.components))


def own(package: str, name: str) -> Component | None:
    """Return a component from outside harness; None for a built-in one."""
    return overlay.current().component(package, name) if package in overlay.KINDS.values() else None


def place_of(component: Component) -> str:
    """Return the file of a component from outside harness."""
    return overlay.current().source(component).place


def space_of(kind: str, stem: str) -> Path | None:
    """Return the search space file of a component from outside harness; None for a built-in one."""
    component = own(overlay.KINDS[kind], stem) if kind in overlay.WITH_SPACE else None
    return component.space if component else None


def is_own_space(path: Path) -> bool:
    """Return whether a file is the search space of a component from outside harness."""
    return any(path == component.space for component in overlay.current().components.values())


def suggest(word: str, valid: list[str]) -> str:
    """Return the end of an error message about an unknown name.

    >>> suggest("mpl", ["id", "mlp"])
    "Did you mean 'mlp'? Known: id, mlp."
    >>> suggest("SVD-Whiten", ["svd", "svd_whiten"])
    "Did you mean 'svd_whiten'? Known: svd, svd_whiten."
    """
    folded = {_folded(name): name for name in reversed(valid)}
    near = difflib.get_close_matches(word, valid, n=1) or difflib.get_close_matches(_folded(word), folded, n=1)
    return (f"Did you mean '{folded.get(near[0], near[0])}'? " if near else "") + f"Known: {', '.join(valid)}."


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _kind(package: str) -> str:
    """Return the folder name of a package."""
    return package.rpartition(".")[2]


def _word(package: str) -> str:
    """Return the kind of component of a package, for messages."""
    return WORDS.get(kind := _kind(package)) or kind.removesuffix("s")


@cache
def folder_of(package: str) -> Path:
    """Return the folder of a package. Raises HarnessError if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise HarnessError(f"The package '{package}' is not installed beside harness; reinstall harness.")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def names(package: str) -> list[str]:
    """Return the component names of a package, sorted; files that start with `_` are not components."""
    ours = [file.stem for file in folder_of(package).glob("*.py") if not file.stem.startswith("_")]
    return sorted([*ours, *(overlay.current().names(package) if package in overlay.KINDS.values() else ())])


def find(package: str, name: str) -> str:
    """Return the name as the file spells it; `-` and `_` are equal. Raises HarnessError if unknown."""
    for stem in names(package):
        if stem.replace("_", "-") == name.replace("_", "-"):
            return stem
    raise HarnessError(f"There is no {_word(package)} '{name}'. {suggest(name, names(package))}")


def select(package: str, selection: str) -> list[str]:
    """Return the names that a comma list of names, globs, `all` and exclusions `!name` selects. Brackets are kept,
    those of a glob with each of its names.

    `all` skips components marked `by_name_only`, such as ablations; globs and exclusions do not. An exclusion holds for
    what precedes it, with brackets for that configuration only. Raises HarnessError for an unknown name, a glob that
    matches nothing, and an exclusion that stands too early or names a configuration that is not selected.

    >>> select("harness.metrics", "all,!mrr")
    ['hr', 'ndcg']
    >>> select("harness.metrics", "n*,hr")
    ['ndcg', 'hr']
    """
    chosen: dict[str, Choice] = {}
    idle: dict[str, list[Choice]] = {}  # exclusions that excluded nothing
    for word in split_list(selection):
        drop, pattern = word.startswith("!"), word.removeprefix("!")
        base, fixed = split_overrides(pattern)
        hits = [(name, fixed) for name in _hits(package, base, drop)]
        if not drop:
            more = {name + pattern[len(base) :]: (name, fixed) for name, fixed in hits}
            chosen |= {word: choice for word, choice in more.items() if choice not in chosen.values()}
        elif not (out := [word for word, choice in chosen.items() if _meant(choice, hits)]):
            idle[pattern] = hits
        else:
            chosen = {word: choice for word, choice in chosen.items() if word not in out}
    for pattern, hits in idle.items():
        if "[" in pattern or any(_meant(choice, hits) for choice in chosen.values()):
            raise HarnessError(
                f"'!{pattern}' excludes nothing: write it after the names that it excludes, spelt as they are."
            )
    if not chosen:
        raise HarnessError(f"'{selection}' selects no {_word(package)}; {SELECTABLE}.")
    return list(chosen)


def _hits(package: str, base: str, drop: bool) -> list[str]:
    """The names that a name, a glob or `all` stands for. Raises HarnessError if there are none."""
    if base != "all" and not any(c in base for c in "*?"):
        return [find(package, base)]
    hits = fnmatch.filter(names(package), "*" if base == "all" else base.replace("-", "_"))
    if base == "all" and not drop:
        hits = [name for name in hits if not schema(package, name).attributes.get("by_name_only")]
    if not hits:
        raise HarnessError(f"No {_word(package)} matches '{base}'. {suggest(base, names(package))}")
    return hits


def _meant(choice: Choice, excluded: list[Choice]) -> bool:
    """Whether an exclusion means a choice: without brackets, it means every configuration of the name."""
    return any(choice[0] == name and (not fixed or choice[1] == fixed) for name, fixed in excluded)


def load(package: str, name: str) -> Any:
    """Import a component: the last public class of its module, or the function with the module's name.

    Errors of the import are raised; a module is never skipped silently.
    """
    stem = find(package, name)
    module, component = load_module(package, stem), own(package, stem)
    classes = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if component and component.attribute:
        classes = [value for value in classes if value.__name__ == component.attribute]
    if classes:
        return classes[-1]
    if callable(function := getattr(module, stem, None)):
        return function
    raise HarnessError(_no_class(package, stem))


def load_module(package: str, name: str) -> Any:
    """Import the module of a component. Raises HarnessError if that of one from outside harness cannot be imported."""
    stem = find(package, name)
    component = own(package, stem)
    if component is None:
        return importlib.import_module(f"{package}.{stem}")
    source = overlay.current().source(component)
    source.tree()
    try:
        return importlib.import_module(component.module)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else ""
        raise HarnessError(
            f"{source.place} cannot be imported: {type(error).__name__}: {reason}. Correct the file; {overlay.TEST} "
            "--components DIR tests it."
        ) from error


def check_own() -> None:
    """Import all components from outside harness. Raises HarnessError for the first one that is broken or has no search
    space."""
    kinds = {package: kind for kind, package in overlay.KINDS.items()}
    for package, name in overlay.current().components:
        schema(package, name)
        load(package, name) if package != TABLES else load_module(package, name)
        space = space_of(kinds[package], name)
        if space is not None and not space.is_file():
            raise HarnessError(f"{space} is missing; every component needs one (it may be empty). Create it.")


def own_revisions() -> dict[str, int | str]:
    """Return the revisions of the components from outside harness, by kind and name; broken ones are left out."""
    revisions = {}
    for package, name in sorted(overlay.current().components):
        with contextlib.suppress(HarnessError):
            revisions[f"{_kind(package)}/{name}"] = schema(package, name).revision
    return revisions


def _no_class(package: str, stem: str) -> str:
    component = own(package, stem)
    where = place_of(component) if component else f"{package}.{stem}"
    what = f"class {component.attribute}" if component and component.attribute else "public class"
    return f"{where} defines no {what} and no function '{stem}'."


@dataclass(frozen=True)
class Schema:
    """Description of a component, read from its source without importing it.

    ``params``: keyword-only parameter -> default; ``domains``: parameter -> type and range.
    """

    name: str
    cls: str
    doc: str
    params: dict[str, Any]
    attributes: dict[str, Any]
    domains: dict[str, Domain] = field(default_factory=dict)
    code: str = ""  # hash of the source of a component from outside harness

    @property
    def version(self) -> int:
        return self.attributes.get("version", 1)

    @property
    def revision(self) -> int | str:
        """The version as identities record it: `version`, followed by `code` where nobody else keeps versions."""
        return f"{self.version}+{self.code}" if self.code else self.version


@cache
def schema(package: str, name: str) -> Schema:
    """Read class name, docstring, keyword-only parameters with defaults, and class attributes of a component."""
    stem = find(package, name)
    component = own(package, stem)
    if component is None:
        return _read(package, stem, ast.parse((folder_of(package) / f"{stem}.py").read_text()))
    source = overlay.current().source(component)
    tree = source.tree()
    try:
        read = _read(package, stem, tree, component.attribute)
    except ValueError as error:  # a default that is no literal
        raise HarnessError(f"{source.place}: the parameters cannot be read without running it: {error}.") from None
    needs_class = package in (ADAPTERS, BACKBONES, LOSSES, ENCODERS, BASELINES, DATASETS)
    if not read.cls and (needs_class or not any(isinstance(n, ast.FunctionDef) for n in tree.body)):
        raise HarnessError(f"{_no_class(package, stem)} Add one; `harness new` writes an example.")
    return replace(read, code=_code(component))


def _code(component: Component) -> str:
    """Hash of all modules of the overlay that a component imports, and of the versions of the built-in components that
    it imports. Raises HarnessError for a syntax error in one of them."""
    inside, outside = overlay.current().imports(component)
    built_in = {f"{package}.{name}": (package, name) for package in overlay.KINDS.values() for name in names(package)}
    versions = [f"{name} {schema(*built_in[name]).version}" for name in outside if name in built_in]
    return overlay.digest(inside, versions)


def _read(package: str, stem: str, tree: ast.Module, attribute: str = "") -> Schema:
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
    classes = [n for n in classes if attribute in ("", n.name)]
    doc = ast.get_docstring(tree) or ""
    if not classes:
        return Schema(stem, "", doc, {}, _attributes(tree.body))
    node = classes[-1]
    inherited = _base_schema(package, node, tree)
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    attributes = (inherited.attributes if inherited else {}) | _attributes(node.body)
    if inherited and init is None:
        return _narrowed(Schema(stem, node.name, doc, inherited.params, attributes, inherited.domains))
    params = _keyword_only(init)
    return Schema(
        stem, node.name, doc, params, attributes, _domains(init, params, _annotations(package) | domains.named(tree))
    )


def _narrowed(schema: Schema) -> Schema:
    """The schema without the inherited parameters that the class sets in ``fixed``, and with its ``choices``, parameter
    -> values, in place of the inherited ones. See `adapters._base.Adapter`."""
    attributes = dict(schema.attributes)
    fixed, choices = attributes.pop("fixed", {}), attributes.pop("choices", {})
    domains = {name: domain for name, domain in schema.domains.items() if name not in fixed}
    domains |= {name: replace(domains[name], choices=values) for name, values in choices.items()}
    params = {name: default for name, default in schema.params.items() if name not in fixed}
    return replace(schema, params=params, attributes=attributes, domains=domains)


@cache
def _annotations(package: str) -> dict[str, ast.expr]:
    """Return the aliases of annotations in the package's `_base.py`, which all its files may use."""
    base = folder_of(package) / "_base.py"
    return domains.named(ast.parse(base.read_text(encoding="utf-8"))) if base.is_file() else {}


def _domains(init: ast.FunctionDef | None, params: dict[str, Any], names: dict[str, ast.expr]) -> dict[str, Domain]:
    annotations = {arg.arg: arg.annotation for arg in init.args.kwonlyargs} if init else {}
    return {name: domains.read(annotations[name], default, names) for name, default in params.items()}


def _base_schema(package: str, node: ast.ClassDef, tree: ast.Module) -> Schema | None:
    """Return the schema of a base class that another component's file defines (`from .linear import Linear`)."""
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    for statement in tree.body:
        if not isinstance(statement, ast.ImportFrom):
            continue
        owner, _, stem = overlay.absolute(statement, package).rpartition(".")
        if owner == package and stem in names(package) and bases & {alias.name for alias in statement.names}:
            return schema(package, stem)
    return None


def _keyword_only(init: ast.FunctionDef | None) -> dict[str, Any]:
    if init is None:
        return {}
    pairs = zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)
    return {arg.arg: ast.literal_eval(default) for arg, default in pairs if default is not None}


def _attributes(body: list[ast.stmt]) -> dict[str, Any]:
    attributes = {}
    for node in body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(target, ast.Name) and value is not None:
            try:
                attributes[target.id] = ast.literal_eval(value)
            except ValueError:
                continue
    return attributes

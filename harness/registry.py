"""Find components by name: a folder is a registry, a file name is a command-line name.

`names`, `select` and `schema` only read source text, since reading commands must not import torch; `load` imports.
"""

from __future__ import annotations

import ast
import difflib
import fnmatch
import importlib
import importlib.util
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness import domains
from harness.domains import Domain
from harness.types import HarnessError

ADAPTERS, BACKBONES = "adapters", "backbones"
DATASETS, ENCODERS = "harness.data.datasets", "harness.text.encoders"
BASELINES, LOSSES = "harness.training.baselines", "harness.training.losses"
METRICS, LIST_METRICS = "harness.metrics", "harness.metrics.lists"
VERBS = "harness.verbs"


def suggest(word: str, valid: list[str]) -> str:
    """Return the end of an error message about an unknown name.

    >>> suggest("mpl", ["id", "mlp"])
    "Did you mean 'mlp'? Known: id, mlp."
    """
    near = difflib.get_close_matches(word, valid, n=1)
    return (f"Did you mean '{near[0]}'? " if near else "") + f"Known: {', '.join(valid)}."


def _kind(package: str) -> str:
    """Return the folder name of a package: its kind of component in messages."""
    return package.rpartition(".")[2]


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
    return sorted(file.stem for file in folder_of(package).glob("*.py") if not file.stem.startswith("_"))


def find(package: str, name: str) -> str:
    """Return the name as the file spells it; `-` and `_` are equal. Raises HarnessError if unknown."""
    for stem in names(package):
        if stem.replace("_", "-") == name.replace("_", "-"):
            return stem
    raise HarnessError(f"{_kind(package)} has no '{name}'. {suggest(name, names(package))}")


def select(package: str, selection: str) -> list[str]:
    """Return the names that a comma list of names, globs, `all` and exclusions `!name` selects; brackets are kept.

    `all` skips components marked `by_name_only`, such as ablations; globs and exclusions do not.

    >>> select("harness.metrics", "all,!mrr")
    ['hr', 'ndcg']
    >>> select("harness.metrics", "n*,hr")
    ['ndcg', 'hr']
    """
    chosen: dict[str, None] = {}
    for word in split_list(selection):
        drop, pattern = word.startswith("!"), word.removeprefix("!")
        base, _ = split_overrides(pattern)
        if base == "all" or any(c in base for c in "*?"):
            hits = fnmatch.filter(names(package), "*" if base == "all" else base.replace("-", "_"))
            if base == "all" and not drop:
                hits = [name for name in hits if not schema(package, name).attributes.get("by_name_only")]
            if not hits:
                where = _kind(package)
                raise HarnessError(f"'{pattern}' matches no name in {where}. {suggest(base, names(package))}")
        else:
            hits = [find(package, base) + pattern[len(base) :]]
        for hit in hits:
            if drop:
                for name in [n for n in chosen if split_overrides(n)[0] == hit]:
                    del chosen[name]
            else:
                chosen[hit] = None
    if not chosen:
        raise HarnessError(f"'{selection}' selects nothing from {_kind(package)}.")
    return list(chosen)


def split_list(text: str) -> list[str]:
    """Split a comma list.

    Brackets may hold commas, braces are alternatives as in a shell, and double quotes keep a part unchanged.

    >>> split_list("id, mlp[hidden=256,dropout=0.1]")
    ['id', 'mlp[hidden=256,dropout=0.1]']
    >>> split_list("ml-100k,amazon2014-{beauty,toys}")
    ['ml-100k', 'amazon2014-beauty', 'amazon2014-toys']
    >>> split_list('minilm,file:"runs, old/E.npy"')
    ['minilm', 'file:runs, old/E.npy']
    """
    hidden, kept = _without_quoted(text)
    return [_restored(word, kept) for word in _words(hidden)]


def quoted(word: str) -> str:
    """Quote a word for a comma list, if it needs quotes.

    >>> quoted("file:a,b.npy"), quoted("mlp[hidden=256,dropout=0.1]")
    ('"file:a,b.npy"', 'mlp[hidden=256,dropout=0.1]')
    """
    return word if split_list(word) == [word] else f'"{word}"'


def unquoted(word: str) -> str:
    """Unquote a comma list of one word; return any other text unchanged.

    >>> unquoted('file:"a,b.npy"'), unquoted("file:a,b.npy")
    ('file:a,b.npy', 'file:a,b.npy')
    """
    words = split_list(word)
    return words[0] if len(words) == 1 else word


def _without_quoted(text: str) -> tuple[str, list[str]]:
    """Replace double-quoted parts outside brackets by `"0"`, `"1"`, ...; returns the text and the parts."""
    hidden, kept, depth, place = "", [], 0, 0
    while place < len(text):
        char = text[place]
        depth += (char == "[") - (char == "]")
        end = text.find('"', place + 1) if char == '"' and depth <= 0 else -1
        if end >= 0:
            hidden += f'"{len(kept)}"'
            kept.append(text[place + 1 : end])
            place = end
        else:
            hidden += char
        place += 1
    return hidden, kept


def _restored(word: str, kept: list[str]) -> str:
    return re.sub(r'"(\d+)"', lambda match: kept[int(match[1])], word)


def _words(text: str) -> list[str]:
    return [word for part in _split(text) for word in _alternatives(part)]


def _alternatives(word: str) -> list[str]:
    """Expand a pair of braces that holds a comma; without one, return the word itself."""
    braces = re.fullmatch(r"([^{}]*)\{([^{}]*,[^{}]*)\}(.*)", word)
    if braces is None:
        return [word]
    return [end for middle in braces[2].split(",") for end in _alternatives(f"{braces[1]}{middle.strip()}{braces[3]}")]


def _split(text: str) -> list[str]:
    words, depth = [""], 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char == "," and depth <= 0:
            words.append("")
        else:
            words[-1] += char
    return [word.strip() for word in words if word.strip()]


def split_overrides(word: str) -> tuple[str, dict[str, Any]]:
    """Split a name from the parameters fixed in its brackets. Raises HarnessError for a malformed bracket.

    >>> split_overrides("mlp[hidden=256,activation=relu]")
    ('mlp', {'hidden': 256, 'activation': 'relu'})
    """
    name, bracket, rest = word.partition("[")
    if not bracket:
        return word, {}
    if not rest.endswith("]"):
        raise HarnessError(f"'{word}': the bracket is not closed. Write {name}[parameter=value].")
    fixed = {}
    for pair in _words(rest[:-1]):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise HarnessError(f"'{word}': '{pair}' is not parameter=value.")
        try:
            fixed[key.strip()] = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            fixed[key.strip()] = {"true": True, "false": False}.get(value.strip().lower(), value.strip())
    return name, fixed


def load(package: str, name: str) -> Any:
    """Import a component: the last public class of its module, or the function with the module's name.

    Errors of the import are raised; a module is never skipped silently.
    """
    stem = find(package, name)
    module = importlib.import_module(f"{package}.{stem}")
    classes = [
        value
        for key, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and not key.startswith("_")
    ]
    if classes:
        return classes[-1]
    if callable(function := getattr(module, stem, None)):
        return function
    raise HarnessError(f"{package}.{stem} defines no public class and no function '{stem}'.")


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

    @property
    def version(self) -> int:
        return self.attributes.get("version", 1)


@cache
def schema(package: str, name: str) -> Schema:
    """Read class name, docstring, keyword-only parameters with defaults, and class attributes of a component."""
    stem = find(package, name)
    source = (folder_of(package) / f"{stem}.py").read_text()
    tree = ast.parse(source)
    classes = [n for n in tree.body if isinstance(n, ast.ClassDef) and not n.name.startswith("_")]
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
        if not isinstance(statement, ast.ImportFrom) or statement.level != 1 or statement.module is None:
            continue
        if statement.module in names(package) and bases & {alias.name for alias in statement.names}:
            return schema(package, statement.module)
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

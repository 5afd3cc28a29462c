"""Study files: the options of `harness bench` in TOML, by their long names, and the defaults that suites set.

The keys and their types are those of the options of `harness bench`, so a new option is a key at once. Precedence:
command line, environment, study file, suite, default; `--set` is merged by parameter.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from harness.paths import expanded
from harness.registry import quoted, split_list, suggest
from harness.system import decoding
from harness.types import HarnessError, Json

SUFFIX = ".toml"
NO_KEYS = ("json", "dry_run", "save", "detach")  # options that say what to do with a bench, not what it is
ENCODER_PATH = re.compile(r"(^|[:+])(file|st|hf):([^+\[\]]+)")


class Names(click.types.StringParamType):
    """A comma list, which a study file may also write as a TOML list. known: names that a shell completes; selects:
    whether `all` and exclusions stand for some of them."""

    def __init__(self, known: Callable[[click.Context], list[str]] = lambda _: [], selects: bool = False) -> None:
        self.known, self.selects = known, selects

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        head, comma, last = incomplete.rpartition(",")
        bang = "!" if self.selects and last.startswith("!") else ""
        words = [f"{bang}{name}" for name in [*(["all"] if self.selects else []), *self.known(ctx)]]
        return [CompletionItem(head + comma + word) for word in words if word.startswith(last)]


class LongName(click.Option):
    """An option whose environment variable ends in its long name although its parameter has another name."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        if self.envvar is None and ctx.auto_envvar_prefix:
            return os.environ.get(f"{ctx.auto_envvar_prefix}_{long_name(self).upper()}") or None
        return super().resolve_envvar_value(ctx)


def long_name(option: click.Parameter) -> str:
    """The name of an option in study files, variables and the Python API: `cell_seconds` of `--cell-seconds`."""
    return option.opts[0].lstrip("-").replace("-", "_")


def keys() -> dict[str, click.Option]:
    """Key of a study file -> option of `harness bench`."""
    from harness.verbs import bench

    options = [option for option in bench.command.params if isinstance(option, click.Option)]
    return {long_name(option): option for option in options if long_name(option) not in NO_KEYS}


def defaults(where: str, table: Json, offered: dict[str, click.Option]) -> Json:
    """Return parameter -> value for the keys of a table, as click's `default_map` holds them.

    Raises HarnessError, which begins with `where`, for an unknown key or a value that its option refuses.
    """
    values: Json = {}
    for written, value in table.items():
        key = written.replace("-", "_")
        if key not in offered:
            raise HarnessError(f"{where}: there is no option '{written}'. {_nearest(key, offered)}")
        name = str(offered[key].name)
        if name in values:
            raise HarnessError(f"{where}: '{key}' is there twice, with '-' and with '_'; keep one.")
        values[name] = _checked(where, key, offered[key], value)
    return values


def _nearest(key: str, offered: dict[str, click.Option]) -> str:
    for name, option in offered.items():
        if key in (word.lstrip("-").replace("-", "_") for word in option.secondary_opts):
            return f"Write {name} = false."
    return suggest(key, list(offered))


def _checked(where: str, key: str, option: click.Option, value: Any) -> Any:
    """Return a value as the command line would pass it. Raises HarnessError if it has another type or is refused."""
    kind, allowed = _kind(option)
    if option.multiple and isinstance(option.type, click.Path):
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
            raise HarnessError(f"{where}: {key} is {_type(value)}; it takes a string or a list of strings.")
        return tuple(listed)
    if option.multiple and isinstance(value, dict):
        return tuple(f"{name}={_word(where, f'{key}.{name}', content)}" for name, content in _flat(value).items())
    if isinstance(option.type, Names) and isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = ",".join(value)
    if option.multiple or not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise HarnessError(f"{where}: {key} is {_type(value)}; it takes {allowed}.")
    try:
        option.type_cast_value(click.Context(click.Command(None)), value)
    except click.BadParameter as error:
        raise HarnessError(f"{where}: {key}: {error.message}") from None
    return value


def _kind(option: click.Option) -> tuple[type | tuple[type, ...], str]:
    """Return the Python types that an option takes in a study file, and their description."""
    kind = option.type
    if option.multiple:
        return dict, 'a table such as { "train.d" = 128 }'
    if option.is_flag:
        return bool, "true or false"
    if isinstance(kind, click.IntRange):
        return int, f"a whole number, {kind._describe_range()}"
    if isinstance(kind, click.FloatRange):
        described = kind._describe_range()
        return (int, float), f"a number, {described}" if described else "a number"
    if isinstance(kind, click.Choice):
        return str, f"one of {', '.join(map(str, kind.choices))}"
    return str, "a string or a list of strings" if isinstance(kind, Names) else "a string"


def _flat(table: Json, prefix: str = "") -> Json:
    """Return the entries of nested tables by dotted name: TOML reads `train.d = 64` as a table in a table."""
    flat: Json = {}
    for name, value in table.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _word(where: str, key: str, value: Any) -> Any:
    if not isinstance(value, str | bool | int | float):
        raise HarnessError(f"{where}: {key} is {_type(value)}; it takes a number, a string, true or false.")
    return value


def _type(value: Any) -> str:
    """The type of a TOML value, in words. Messages do not repeat values: an address may hold a password."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "a table"}
    return words.get(type(value), "a list" if isinstance(value, list) else "a date or time")


def read(path: Path) -> Json:
    """Read a study file: parameter -> value; relative paths are relative to the file.

    Raises HarnessError if it is missing, no TOML, or has an unknown key or a value that its option refuses.
    """
    try:
        table = decoding.toml(decoding.text(path))
    except FileNotFoundError:
        folder = path.parent
        near = sorted(file.name for file in folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
        hint = suggest(path.name, near) if near else "The folder has no .toml file."
        raise HarnessError(f"There is no study file {path}. {hint}") from None
    except OSError as error:
        raise HarnessError(f"The study file {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise HarnessError(f"{path} is not valid TOML: {error}.") from None
    offered = keys()
    values = defaults(str(path), table, offered)
    by_name = {str(option.name): option for option in offered.values()}
    return {name: absolute(by_name[name], value, path.absolute().parent) for name, value in values.items()}


def absolute(option: click.Option, value: Any, folder: Path, home: Path | None = None) -> Any:
    """Return the value of an option with the paths in it absolute; relative ones are relative to `folder`.

    home: of the data sets whose names are no folders; None: only words with a slash are folders.
    """
    if isinstance(value, tuple) and isinstance(option.type, click.Path):
        return tuple(absolute(option, one, folder) for one in value)
    if isinstance(option.type, click.Path) and "://" not in str(value):
        path = _joined(folder, str(value))
        return value if option.name == "spaces" and not path.exists() else str(path)
    if not isinstance(option.type, Names) or not isinstance(value, str):
        return value
    words = split_list(value)
    changed = [_absolute_word(str(option.name), word, folder, home) for word in words]
    return value if changed == words else ",".join(map(quoted, changed))


def _absolute_word(name: str, word: str, folder: Path, home: Path | None) -> str:
    if name == "datasets":
        bare = word.removeprefix("!")
        return f"{word[: -len(bare)]}{_joined(folder, bare)}" if _is_folder(bare, folder, home) else word
    if name == "encoders":
        return ENCODER_PATH.sub(lambda match: f"{match[1]}{match[2]}:{_existing(folder, match[3])}", word)
    return word


def _is_folder(word: str, folder: Path, home: Path | None) -> bool:
    from harness.data import library

    if "/" in word or home is None or not word:
        return "/" in word
    return (folder / word).is_dir() and library.find(word, expanded(home)) is None


def _existing(folder: Path, text: str) -> str:
    """Return the absolute path if there is such a file, else the text: the name of a model looks like a path."""
    path = _joined(folder, text)
    return str(path) if path.exists() else text


def _joined(folder: Path, text: str) -> Path:
    try:
        return Path(os.path.normpath(folder / expanded(text)))
    except HarnessError:  # whoever uses the path reports it
        return Path(os.path.normpath(folder / text))


# Callbacks of the grid's options


def use_study(context: click.Context, _: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Make the study file among the plain words the defaults of the command; return the other words."""
    files = [word for word in words if word.endswith(SUFFIX)]
    if len(files) > 1:
        raise HarnessError(f"Two study files, {files[0]} and {files[1]}; name one.")
    if files and not context.resilient_parsing:
        context.default_map = _stacked(context.default_map or {}, read(expanded(files[0])))
    return tuple(word for word in words if word not in files)


def use_suite(offered: Callable[[], dict[str, click.Option]]) -> Callable[..., str | None]:
    """Return a callback that makes the options of a suite the defaults of the command."""

    def use(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
        if name is not None and not context.resilient_parsing:
            from harness.search import suites

            values = defaults(f"suites/{name}{SUFFIX}", suites.options(name), offered())
            context.default_map = _stacked(values, context.default_map or {})
        return name

    return use


def _stacked(lower: Any, upper: Any) -> Json:
    """Merge two maps of defaults: `upper` wins, and values of repeatable options are joined."""
    both = {name: (*lower[name], *upper[name]) for name in upper if isinstance(upper[name], tuple) and name in lower}
    return {**lower, **upper, **both}


def only_these(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Data sets as plain words without `--datasets` replace those of the environment, the study file and the suite."""
    source = context.get_parameter_source(str(option.name))
    return value if source is ParameterSource.COMMANDLINE or not context.params.get("more_datasets") else None


def merged(context: click.Context, option: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    """Put the settings of the command line over those of the environment, and these over the study file and suite."""
    source, below = context.get_parameter_source(str(option.name)), (context.default_map or {}).get(option.name, ())
    if source is ParameterSource.COMMANDLINE:
        return by_parameter((*below, *(option.value_from_envvar(context) or ()), *value))
    return by_parameter((*below, *value) if source is ParameterSource.ENVIRONMENT else value)


def by_parameter(words: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the last of several settings of a parameter, at the place of the first.

    >>> by_parameter(("train.d=16", "train.lr=1", "train.d=8"))
    ('train.d=8', 'train.lr=1')
    """
    if any("," in word for word in words):  # a word may hold several settings
        return words
    return tuple({word.partition("=")[0].strip(): word for word in words}.values())

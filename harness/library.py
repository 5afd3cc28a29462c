"""Data sets by name: the user's folders from `<home>/config.toml` first, then the built-in ones.

[datasets]
my-shop = "/data/shop"        # relative paths are relative to the file
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from harness import fetch, files, registry
from harness.types import HarnessError

NAME = r"(?!\.)[A-Za-z0-9._-]{1,64}"
TABLE = "datasets"


def built_in() -> dict[str, tuple[str, str | None]]:
    """Name -> (module, variant), sorted by module; read from source, nothing is imported.

    >>> built_in()["ml-100k"], built_in()["amazon2014-beauty"]
    (('ml_100k', None), ('amazon2014', 'beauty'))
    """
    found: dict[str, tuple[str, str | None]] = {}
    for stem in registry.names(registry.DATASETS):
        name, variants = stem.replace("_", "-"), registry.schema(registry.DATASETS, stem).attributes.get("variants")
        found |= {f"{name}-{variant}": (stem, variant) for variant in variants} if variants else {name: (stem, None)}
    return found


def component(name: str) -> Any:
    """The built-in data set of that name, with `name`, `text`, `licence`, `citation`, `ready(home)`, `fetch(home)`."""
    stem, variant = built_in()[name]
    cls = registry.load(registry.DATASETS, stem)
    return cls() if variant is None else cls(variant)


def config_file(home: Path) -> Path:
    return home / "config.toml"


def folders(home: Path) -> dict[str, Path]:
    """Name -> folder of the user's own data sets, there or not. Raises HarnessError if the config is malformed."""
    path = config_file(home)
    table = _parse(path, _text(path)).get(TABLE, {})
    return {name: (path.parent / Path(folder).expanduser()).resolve() for name, folder in table.items()}


def find(word: str, home: Path) -> str | None:
    """The name that a word of the command line means (`_` is `-`), None if there is none."""
    known = [*folders(home), *built_in()]
    if word in known:
        return word
    return next((name for name in known if name.replace("_", "-") == word.replace("_", "-")), None)


def names(home: Path) -> list[str]:
    """All names, the user's first."""
    return list(dict.fromkeys([*folders(home), *built_in()]))


def ready(home: Path) -> list[str]:
    """Names of the data sets whose files are there: the user's folders, then what has been fetched."""
    own = folders(home)
    there = [name for name, folder in own.items() if folder.is_dir()]
    return there + [name for name in built_in() if name not in own and component(name).ready(home)]


def write_entry(name: str, folder: Path, home: Path) -> None:
    """Add a name to the config and leave every other line as it is; nothing to do if it is there with that folder.

    Raises HarnessError if the name is malformed or taken by another folder, or the config cannot take it.
    """
    if not re.fullmatch(NAME, name):
        raise HarnessError(f"'{name}' cannot name a data set: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front.")
    path, folder = config_file(home), folder.expanduser().resolve()
    with fetch.lock(path):
        own = folders(home)
        if name in own:
            if own[name] == folder:
                return
            raise HarnessError(f"'{name}' is {own[name]} already; change or delete its line in {path} first.")
        text = _text(path)
        new = _with_line(text, f"{_quoted(name)} = {_quoted(str(folder))}")
        wanted = _parse(path, text)
        wanted[TABLE] = wanted.get(TABLE, {}) | {name: str(folder)}
        try:
            fits = _parse(path, new) == wanted
        except HarnessError:
            fits = False
        if not fits:
            raise HarnessError(
                f"{path} cannot take another line by itself; write a table [{TABLE}] with one a data set."
            )
        files.write_text(path, new)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path} cannot be read: {error}.") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    """The config, its table of data sets checked."""
    try:
        config = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise HarnessError(f"{path}: not TOML: {error}.") from None
    table = config.get(TABLE, {})
    if not isinstance(table, dict):
        raise HarnessError(f'{path}: [{TABLE}] must be a table of lines name = "/path/to/folder".')
    for name, folder in table.items():
        if not re.fullmatch(NAME, name):
            raise HarnessError(f"{path}: '{name}' cannot name a data set: 1 to 64 of A-Z a-z 0-9 . _ -")
        if not isinstance(folder, str) or not folder:
            raise HarnessError(f"{path}: {TABLE}.{name} must be the path of a folder in quotes.")
    return config


def _with_line(text: str, line: str) -> str:
    """`text` with a line at the head of its table, or with the table at its end."""
    header = re.search(rf"^[ \t]*\[[ \t]*{TABLE}[ \t]*\][^\n]*(\n|$)", text, re.MULTILINE)
    if header is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{TABLE}]\n{line}\n"
    head = text[: header.end()]
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{line}\n{text[header.end() :]}"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'

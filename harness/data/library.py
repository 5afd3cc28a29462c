"""Data sets by name: the user's folders from `<home>/config.toml` first, then the built-in ones.

[datasets]
my-shop = "/data/shop"        # relative paths are relative to the file

[embeddings]                  # what the encoder own:titles reads of my-shop
my-shop = { titles = "/data/shop-titles.npy" }
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import fetch
from harness.system import decoding, files
from harness.types import HarnessError

NAME = r"(?!\.)[A-Za-z0-9._-]{1,64}"
TABLE = "datasets"
MATRICES = "embeddings"


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


def matrices(home: Path) -> dict[str, dict[str, Path]]:
    """Name of a data set -> its files of embeddings by name, there or not. Raises HarnessError as `folders` does."""
    path = config_file(home)
    table = _parse(path, _text(path)).get(MATRICES, {})
    return {name: matrices_of(path, found) for name, found in table.items()}


def matrices_of(path: Path, table: Any) -> dict[str, Path]:
    """Files of embeddings by name, of a table in a TOML file: relative paths are relative to it. Raises HarnessError if
    it is no such table."""
    if not isinstance(table, dict):
        raise HarnessError(f'{path}: {MATRICES} must be a table of lines name = "matrix.npy".')
    _check_paths(path, table, MATRICES, "an embedding", "file")
    return {name: (path.parent / Path(file).expanduser()).resolve() for name, file in table.items()}


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


def write_entry(name: str, folder: Path, home: Path, matrices: dict[str, Path]) -> None:
    """Add a name, and a line with its embeddings if it has some, to the config and leave every other line as it is;
    nothing to do if they are there.

    Raises HarnessError if a name is malformed or taken by another folder or file, or the config cannot take it.
    """
    if not re.fullmatch(NAME, name):
        raise HarnessError(f"'{name}' cannot name a data set: 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front.")
    path, folder = config_file(home), folder.expanduser().resolve()
    matrices_of(path, {word: str(file) for word, file in matrices.items()})
    with fetch.lock(path):
        own = folders(home)
        if own.get(name, folder) != folder:
            raise HarnessError(f"'{name}' is {own[name]} already; change or delete its line in {path} first.")
        text = _text(path)
        if name not in own:
            text = _with_entry(path, text, TABLE, name, str(folder))
        text = _with_matrices(path, text, name, matrices)
        if text != _text(path):
            files.write_text(path, text)


def _with_matrices(path: Path, text: str, name: str, matrices: dict[str, Path]) -> str:
    """The config with a line that names these files. Raises HarnessError if another line names others."""
    known = matrices_of(path, _parse(path, text).get(MATRICES, {}).get(name, {}))
    if all(known.get(word) == file for word, file in matrices.items()):
        return text
    if known:
        told = ", ".join(f"{word} = {file}" for word, file in known.items())
        raise HarnessError(f"'{name}' has {MATRICES} already ({told}); change or delete its line in {path} first.")
    return _with_entry(path, text, MATRICES, name, {word: str(file) for word, file in matrices.items()})


def _with_entry(path: Path, text: str, table: str, name: str, value: str | dict[str, str]) -> str:
    """The config with one more line in a table. Raises HarnessError where a line cannot do that."""
    new = _with_line(text, table, f"{_quoted(name)} = {_toml(value)}")
    wanted = _parse(path, text)
    wanted[table] = wanted.get(table, {}) | {name: value}
    try:
        fits = _parse(path, new) == wanted
    except HarnessError:
        fits = False
    if not fits:
        raise HarnessError(f"{path} cannot take another line by itself; write a table [{table}] with one a data set.")
    return new


def _text(path: Path) -> str:
    try:
        # a bare carriage return ends no line of TOML
        return re.sub(r"\r(?!\n)", "\n", decoding.decoded(path, path.read_bytes())) if path.is_file() else ""
    except OSError as error:
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
    _check_paths(path, table, TABLE, "a data set", "folder")
    if not isinstance(config.get(MATRICES, {}), dict):
        raise HarnessError(f'{path}: [{MATRICES}] must be a table of lines data set = {{ name = "matrix.npy" }}.')
    return config


def _check_paths(path: Path, table: dict[str, Any], key: str, named: str, kind: str) -> None:
    """Raises HarnessError unless `table`, which stands under `key`, holds names and quoted paths alone."""
    for name, place in table.items():
        if not re.fullmatch(NAME, name):
            raise HarnessError(f"{path}: '{name}' cannot name {named}: 1 to 64 of A-Z a-z 0-9 . _ -")
        if not isinstance(place, str) or not place:
            raise HarnessError(f"{path}: {key}.{name} must be the path of a {kind} in quotes.")


def _with_line(text: str, table: str, line: str) -> str:
    """`text` with a line at the head of its table, or with the table at its end."""
    header = re.search(rf"^[ \t]*\[[ \t]*{table}[ \t]*\][^\n]*(\n|$)", text, re.MULTILINE)
    if header is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{table}]\n{line}\n"
    head = text[: header.end()]
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{line}\n{text[header.end() :]}"


def _toml(value: str | dict[str, str]) -> str:
    """A string, or an inline table of them."""
    if isinstance(value, str):
        return _quoted(value)
    return "{ " + ", ".join(f"{_quoted(key)} = {_quoted(text)}" for key, text in value.items()) + " }"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: f"\\u{ord(match[0]):04x}", escaped) + '"'

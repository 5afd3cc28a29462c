"""Look up data sets by name: first the user's folders in `<home>/config.toml`, then the built-in ones.

[datasets]
my-shop = "/data/shop"        # relative paths are relative to this file

[embeddings]                  # read by the encoder own:titles on my-shop
my-shop = { titles = "/data/shop-titles.npy" }
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import registry
from harness.data import fetch
from harness.paths import expanded
from harness.system import decoding, files, toml_text
from harness.types import HarnessError, Json

NAME = r"(?!\.)[A-Za-z0-9._-]{1,64}"
ALL = "all"  # not a name: the word for every data set
TABLE = "datasets"
MATRICES = "embeddings"


def built_in() -> dict[str, tuple[str, str | None]]:
    """Return name -> (module, variant), sorted by module; the source is read, nothing is imported.

    >>> built_in()["ml-100k"], built_in()["amazon2014-beauty"]
    (('ml_100k', None), ('amazon2014', 'beauty'))
    """
    modules: dict[str, tuple[str, str | None]] = {}
    for stem in registry.names(registry.DATASETS):
        name, variants = stem.replace("_", "-"), _variants(stem)
        added = {f"{name}-{variant}": (stem, variant) for variant in variants} if variants else {name: (stem, None)}
        if (twice := modules.keys() & added.keys()) and (component := registry.own(registry.DATASETS, stem)):
            place = registry.place_of(component)
            raise HarnessError(f"{place}: there is a data set '{min(twice)}' already. Rename the file.")
        modules |= added
    return modules


def _variants(stem: str) -> Sequence[str]:
    """The variants of a module, none of a user's file that is broken: it matters only to who selects it."""
    try:
        return registry.schema(registry.DATASETS, stem).attributes.get("variants", ())
    except HarnessError:
        if registry.own(registry.DATASETS, stem) is None:
            raise
        return ()


def component(name: str) -> Any:
    """Return a built-in data set, with `name`, `text`, `licence`, `citation`, `ready(home)`, `fetch(home)`."""
    stem, variant = built_in()[name]
    cls = registry.load(registry.DATASETS, stem)
    return cls() if variant is None else cls(variant)


def config_file(home: Path) -> Path:
    return home / "config.toml"


def folders(home: Path) -> dict[str, Path]:
    """Return name -> folder of the user's data sets, including missing folders.

    Raises HarnessError if the config is malformed.
    """
    path = config_file(home)
    table = _parse(path, _text(path)).get(TABLE, {})
    return {name: _resolved(path, folder) for name, folder in table.items()}


def matrices(home: Path) -> dict[str, dict[str, Path]]:
    """Return data set -> embedding name -> file, including missing files. Raises HarnessError as `folders` does."""
    path = config_file(home)
    config = _parse(path, _text(path)).get(MATRICES, {})
    return {name: matrices_of(path, table) for name, table in config.items()}


def matrices_of(path: Path, table: Any) -> dict[str, Path]:
    """Return embedding name -> file for a table of the TOML file `path`, to which relative paths are relative.

    Raises HarnessError if `table` does not map names to paths.
    """
    if not isinstance(table, dict):
        raise HarnessError(f'{path}: {MATRICES} must be a table of lines name = "matrix.npy".')
    _check_paths(path, table, MATRICES, "an embedding", "file")
    return {name: _resolved(path, file) for name, file in table.items()}


def _resolved(path: Path, place: str) -> Path:
    """Return a path that stands in the TOML file `path`. Raises HarnessError if no file can have it."""
    try:
        return (path.parent / expanded(place)).resolve()
    except (HarnessError, RuntimeError, ValueError) as error:  # ~ of an unknown user, a loop of links, a zero byte
        raise HarnessError(f"{path}: {place!r} is not a path: {str(error).rstrip('.')}.") from None


def find(word: str, home: Path) -> str | None:
    """Return the data set name that a command-line word means (`_` counts as `-`), or None."""
    candidates = [*folders(home), *built_in()]
    if word in candidates:
        return word
    return next((name for name in candidates if name.replace("_", "-") == word.replace("_", "-")), None)


def names(home: Path) -> list[str]:
    """Return all data set names, the user's first."""
    return list(dict.fromkeys([*folders(home), *built_in()]))


def ready(home: Path) -> list[str]:
    """Return the names of the data sets on disk: the user's folders, then the downloaded built-in ones."""
    users = folders(home)
    on_disk = [name for name, folder in users.items() if folder.is_dir()]
    return on_disk + [name for name in built_in() if name not in users and _is_ready(name, home)]


def _is_ready(name: str, home: Path) -> bool:
    try:
        return component(name).ready(home)
    except Exception:
        if registry.own(registry.DATASETS, built_in()[name][0]) is None:
            raise
        return False  # a user's file that is broken


def write_entry(name: str, folder: Path, home: Path, matrices: dict[str, Path]) -> None:
    """Add a data set, and a line for its embeddings if any, to the config, leaving every other line unchanged.

    Existing entries stay. Raises HarnessError if a name is malformed or taken by another folder or file, or the config
    has a form that no line can be added to.
    """
    if not re.fullmatch(NAME, name):
        raise HarnessError(bad_name(name))
    if name == ALL or name.startswith("-"):
        raise HarnessError(f"'{name}' cannot be the name of a data set: commands read it as something else.")
    path, folder = config_file(home), expanded(folder).resolve()
    matrices_of(path, {word: str(file) for word, file in matrices.items()})
    with fetch.lock(path):
        users = folders(home)
        if users.get(name, folder) != folder:
            raise HarnessError(f"'{name}' is already {users[name]}; change or delete its line in {path} first.")
        text = _text(path)
        if name not in users:
            text = _with_entry(path, text, TABLE, name, str(folder))
        text = _with_matrices(path, text, name, matrices)
        if text != _text(path):
            files.write_text(path, text)


def bad_name(name: str) -> str:
    """Return the error message for a malformed data set name."""
    return f"'{name}' is not a valid data set name: use 1 to 64 characters of A-Z a-z 0-9 . _ - and no leading dot."


def _with_matrices(path: Path, text: str, name: str, matrices: dict[str, Path]) -> str:
    """Return the config with a line for these files. Raises HarnessError if the data set has a line for others."""
    existing = matrices_of(path, _parse(path, text).get(MATRICES, {}).get(name, {}))
    if all(existing.get(word) == file for word, file in matrices.items()):
        return text
    if existing:
        listed = ", ".join(f"{word} = {file}" for word, file in existing.items())
        raise HarnessError(f"'{name}' already has {MATRICES} ({listed}); change or delete its line in {path} first.")
    return _with_entry(path, text, MATRICES, name, {word: str(file) for word, file in matrices.items()})


def _with_entry(path: Path, text: str, table: str, name: str, value: str | dict[str, str]) -> str:
    """Return the config with a line added to a table. Raises HarnessError if the config does not parse as wanted."""
    new = _with_line(text, table, f"{toml_text.string(name)} = {toml_text.value(value)}")
    wanted = _parse(path, text)
    wanted[table] = wanted.get(table, {}) | {name: value}
    try:
        fits = _parse(path, new) == wanted
    except HarnessError:
        fits = False
    if not fits:
        raise HarnessError(f"No line can be added to {path}; rewrite it with a table [{table}], one line per data set.")
    return new


def _text(path: Path) -> str:
    try:
        # a bare carriage return is not a line end in TOML
        return re.sub(r"\r(?!\n)", "\n", decoding.decoded(path, path.read_bytes())) if path.is_file() else ""
    except OSError as error:
        raise HarnessError(f"{path} cannot be read: {error}.") from None


def _parse(path: Path, text: str) -> Json:
    """Parse the config and check its tables."""
    try:
        config = decoding.toml(text)
    except ValueError as error:
        raise HarnessError(f"{path}: not TOML: {error}.") from None
    if other := next((key for key in config if key not in (TABLE, MATRICES)), ""):
        raise HarnessError(f"{path}: '{other}' is not read. {registry.suggest(other, [TABLE, MATRICES])}")
    table = config.get(TABLE, {})
    if not isinstance(table, dict):
        raise HarnessError(f'{path}: [{TABLE}] must be a table of lines name = "/path/to/folder".')
    _check_paths(path, table, TABLE, "a data set", "folder")
    if not isinstance(config.get(MATRICES, {}), dict):
        raise HarnessError(f'{path}: [{MATRICES}] must be a table of lines data set = {{ name = "matrix.npy" }}.')
    for entry in config.get(MATRICES, {}).values():
        matrices_of(path, entry)
    return config


def _check_paths(path: Path, table: Json, key: str, named: str, kind: str) -> None:
    """Raise HarnessError unless `table`, found under `key`, maps valid names to quoted paths."""
    for name, place in table.items():
        if not re.fullmatch(NAME, name):
            raise HarnessError(
                f"{path}: '{name}' is not a valid name for {named}: use 1 to 64 characters of A-Z a-z 0-9 . _ -"
            )
        if not isinstance(place, str) or not place:
            raise HarnessError(f"{path}: {key}.{name} must be the path of a {kind} in quotes.")


def _with_line(text: str, table: str, line: str) -> str:
    """Return `text` with the line inserted at the top of its table, or with the table appended."""
    header = re.search(rf"^[ \t]*\[[ \t]*{table}[ \t]*\][^\n]*(\n|$)", text, re.MULTILINE)
    if header is None:
        gap = "" if not text else "\n" if text.endswith("\n") else "\n\n"
        return f"{text}{gap}[{table}]\n{line}\n"
    head = text[: header.end()]
    return f"{head}{'' if head.endswith(chr(10)) else chr(10)}{line}\n{text[header.end() :]}"

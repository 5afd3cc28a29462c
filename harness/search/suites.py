"""Named suites: benches with fixed options, a version and a hash, in `search_spaces/suites/<name>.toml`.

A suite sets options of `harness bench` under `[options]`, by their long names with underscores; lists stand for comma
lists. Options on the command line override it, and its tables name them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import registry
from harness.system import decoding
from harness.types import HarnessError, Json, digest


@dataclass(frozen=True)
class Suite:
    """A suite as a launch records it. hash: of version and options. changed: options that the launch overrode."""

    name: str
    version: int
    hash: str
    changed: tuple[str, ...] = ()

    def to_json(self) -> Json:
        value = {"name": self.name, "version": self.version, "hash": self.hash}
        return value | ({"changed": list(self.changed)} if self.changed else {})

    def with_changes(self, changed: list[str]) -> Suite:
        return replace(self, changed=tuple(sorted(changed)))


def names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(file.stem for file in _folder().glob("*.toml"))


def title(name: str) -> str:
    """One line about a suite."""
    return str(_table(name).get("title", ""))


def suite(name: str) -> Suite:
    """Return a suite. Raises HarnessError if it is unknown or malformed."""
    table = _table(name)
    version = table.get("version")
    if not isinstance(version, int):
        raise HarnessError(f"suites/{name}.toml: version must be a whole number.")
    return Suite(name, version, digest([version, options(name)])[:12])


def options(name: str) -> dict[str, Any]:
    """Return the options that a suite sets, by long name. Raises HarnessError if it is unknown or malformed."""
    values = _table(name).get("options")
    if not isinstance(values, dict):
        raise HarnessError(f"suites/{name}.toml has no table [options].")
    return values


def _folder() -> Path:
    return registry.folder_of("search_spaces") / "suites"


def _table(name: str) -> Json:
    if name not in names():
        raise HarnessError(f"There is no suite '{name}'. {registry.suggest(name, names())}")
    try:
        return decoding.toml(decoding.text(_folder() / f"{name}.toml"))
    except ValueError as error:
        raise HarnessError(f"suites/{name}.toml is not valid TOML: {error}.") from None

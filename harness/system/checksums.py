"""Check folders and files against recorded checksums and set damaged ones aside.

Nothing damaged is deleted: it is renamed to ``<name>.damaged-<n>`` in the same folder, with a warning on stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.system import files
from harness.types import HarnessError, digest

SEAL, STAMP = "seal.json", "checked.json"
ASIDE = ".damaged-"
TICK = 20_000_000  # ns: file systems record time in steps of up to ten milliseconds


class Damaged(HarnessError):
    """A folder whose content differs from what was written. `remedy`: a sentence on what to do."""

    def __init__(self, folder: Path, reason: object, remedy: str = "") -> None:
        super().__init__(f"{folder} is damaged ({reason}). {remedy}".rstrip())


def check(folder: Path, sums: Mapping[str, str]) -> None:
    """Raise ValueError with the name of the first file whose sha256 differs from `sums`.

    A file is not read if its state (see `_state`) equals the one at its last successful check, kept in a stamp file in
    the folder. A large file is therefore read in full once after it is copied or touched, and otherwise passes at once.
    A byte changed through the file system is detected even if the modification time is restored, by the change time,
    which no program can set (Windows has none). Silent disk corruption is detected only after the stamp is deleted.
    """
    stamped, states = _stamp(folder), {}
    for name, expected in sums.items():
        path = folder / name
        state = states[name] = _state(path)
        if (state is None or state != stamped.get(name)) and files.sha256(path) != expected:
            raise ValueError(f"{name} has changed since it was written")
    if states != stamped:
        with suppress(OSError):  # a read-only home is checked in full each time
            files.write_json(folder / STAMP, states)


def stamp(folder: Path, names: list[str]) -> None:
    """Record the current state of files that were just written as valid."""
    files.write_json(folder / STAMP, {name: _state(folder / name) for name in names})


def seal(folder: Path, without: tuple[str, ...] = ()) -> None:
    """Write the sha256 of all files of a folder, except `without`, to its seal file."""
    names = sorted(path.name for path in folder.glob("[!.]*") if path.name not in (SEAL, STAMP, *without))
    sums = {name: files.sha256(folder / name) for name in names}
    files.write_json(folder / SEAL, {"files": sums, "digest": digest(sums)})


def sums(folder: Path) -> dict[str, str] | None:
    """Read the checksums written by `seal`; None if there are none. Raises ValueError if they are damaged."""
    try:
        content = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(content, dict) or content.get("digest") != digest(content.get("files")):
        raise ValueError(f"{SEAL} has changed since it was written")
    return content["files"]


def set_aside(path: Path, reason: object) -> Path | None:
    """Rename a damaged file or folder to a free name beside it and warn; None if another process was faster."""
    number = 1
    while (target := path.with_name(f"{path.name}{ASIDE}{number}")).exists():
        number += 1
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    print(f"Warning: {path} is damaged ({reason}); set aside as {target.name}.", file=sys.stderr, flush=True)
    return target


def _state(path: Path) -> list[int] | None:
    """A fingerprint that differs after any change of a file: size, inode, modification time and change time.

    None for a file changed so recently that another change could get the same time.
    """
    now, stat = time.time_ns(), path.stat()
    state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    return state if now - max(state[2:]) > TICK else None


def _stamp(folder: Path) -> dict[str, Any]:
    """The states of a folder's files at their last successful check; empty if unreadable."""
    try:
        states = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return states if isinstance(states, dict) else {}

"""Folders and files whose content is known by checksum, and what becomes of those that are not what was written.

Nothing damaged is deleted: it is set aside under a name beside it, ``<name>.damaged-<n>``, with a line that says so.
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
TICK = 20_000_000  # ns: file systems tell time in steps of up to ten milliseconds


class Damaged(HarnessError):
    """A folder that is not what was written."""

    def __init__(self, folder: Path, why: object) -> None:
        super().__init__(f"{folder} is damaged ({why}).")


def check(folder: Path, sums: Mapping[str, str]) -> None:
    """Raises ValueError with the name of the first file whose sha256 is not the one given.

    A file in the state in which it was last found right, which a stamp in the folder tells, is not read: a large one
    is read in full once after it was copied or touched, and else passes in no time. A byte that is flipped through the
    file system is found, even if the time of the last write is put back after it: the time of the last change of state
    tells, which no program can set (Windows has none). What a disk loses by itself, below the file system, is found
    only when the stamp is deleted.
    """
    stamped, seen = _stamp(folder), {}
    for name, was in sums.items():
        path = folder / name
        state = seen[name] = _state(path)
        if (state is None or state != stamped.get(name)) and files.sha256(path) != was:
            raise ValueError(f"{name} is not what was written")
    if seen != stamped:
        with suppress(OSError):  # a home that may only be read is checked in full each time
            files.write_json(folder / STAMP, seen)


def stamp(folder: Path, names: list[str]) -> None:
    """Note the present state of files that were just written as right."""
    files.write_json(folder / STAMP, {name: _state(folder / name) for name in names})


def seal(folder: Path, without: tuple[str, ...] = ()) -> None:
    """Write down the sha256 of the files of a folder."""
    names = sorted(path.name for path in folder.glob("[!.]*") if path.name not in (SEAL, STAMP, *without))
    sums = {name: files.sha256(folder / name) for name in names}
    files.write_json(folder / SEAL, {"files": sums, "digest": digest(sums)})


def sums(folder: Path) -> dict[str, str] | None:
    """What `seal` wrote, None if it never did. Raises ValueError if that is not what it wrote."""
    try:
        found = json.loads((folder / SEAL).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(found, dict) or found.get("digest") != digest(found.get("files")):
        raise ValueError(f"{SEAL} is not what was written")
    return found["files"]


def set_aside(path: Path, why: object) -> Path | None:
    """Rename a damaged file or folder to a free name beside it and say so; None if another process did."""
    number = 1
    while (target := path.with_name(f"{path.name}{ASIDE}{number}")).exists():
        number += 1
    try:
        os.rename(path, target)
    except FileNotFoundError:
        return None
    print(f"Warning: {path} is damaged ({why}); set aside as {target.name}.", file=sys.stderr, flush=True)
    return target


def _state(path: Path) -> list[int] | None:
    """What differs after any change of a file: size, inode, times of the last write and of the last change of state.

    None for a file that changed so lately that another change could bear the same time.
    """
    now, stat = time.time_ns(), path.stat()
    state = [stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
    return state if now - max(state[2:]) > TICK else None


def _stamp(folder: Path) -> dict[str, Any]:
    """The states in which a folder's files were last found right; empty if it cannot be read."""
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

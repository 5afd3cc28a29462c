"""The data files of a folder: which ones are read, and the parts of a data file that is itself a folder."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from urllib.parse import unquote

from harness.system import files
from harness.types import HarnessError, digest

PARQUET = ".parquet"
DELIMITED = (".csv", ".tsv")
ATOMIC = {"interactions": ".inter", "items": ".item"}  # RecBole's: ml-100k.inter beside ml-100k.item
SUFFIXES = (PARQUET, *(suffix + gz for suffix in (*DELIMITED, *ATOMIC.values()) for gz in ("", ".gz")))
FORMATS = ".parquet, .csv, .tsv, .csv.gz, .tsv.gz, .inter or .item"
SKIPPED = ("_", ".")  # first letters of Spark's own files: _SUCCESS, .part-00000.crc
REFUSED = {  # what a folder holds -> why its parts are not its rows
    "_temporary": "the job that writes it is running or was interrupted",
    "_delta_log": "a Delta table keeps deleted rows in its parts; export it as plain Parquet",
    ".hoodie": "a Hudi table keeps deleted rows in its parts; export it as plain Parquet",
}
NULL = "__HIVE_DEFAULT_PARTITION__"


def data_files(folder: Path) -> tuple[Path, Path]:
    """Interactions and items of a folder: each a file, or a folder of parts.

    Raises HarnessError if one is missing, or there are two of them.
    """
    interactions = _one(folder, "interactions")
    return interactions, _one(folder, "items", near=interactions)


def settings_file(folder: Path) -> Path:
    """`dataset.toml` of a folder, there or not, whatever the case of its letters."""
    return next((path for path in _entries(folder) if path.name.lower() == "dataset.toml"), folder / "dataset.toml")


def kind(path: Path) -> str:
    """The suffix that says how a file is read, without `.gz`; "" if it is not read.

    >>> kind(Path("Interactions.CSV.gz")), kind(Path("items.jsonl"))
    ('.csv', '')
    """
    name = path.name.lower()
    return next((suffix.removesuffix(".gz") for suffix in SUFFIXES if name.endswith(suffix)), "")


def parts(path: Path) -> list[Path]:
    """The files that make up a data file: itself, or the parts in its folder, sorted by name with numbers by value.

    Raises HarnessError if a folder has no parts, a file that cannot be read, or the log of a table or job.
    """
    if not path.is_dir():
        return [path]
    for name, why in REFUSED.items():
        if (path / name).exists():
            raise HarnessError(f"{path} holds {name}: {why}.")
    found = sorted(_parts_in(path, path), key=lambda part: _natural(part.relative_to(path).as_posix()))
    if not found:
        raise HarnessError(f"{path} is a folder without parts; it must hold files that end in {FORMATS}.")
    return found


def _parts_in(folder: Path, top: Path) -> list[Path]:
    found = []
    for path in _entries(folder):
        if path.name.startswith(SKIPPED):
            continue
        if path.is_dir() and "=" in path.name:
            found += _parts_in(path, top)
        elif path.is_dir() or not kind(path):
            what = "a folder that is no partition such as year=2020" if path.is_dir() else "not a part that can be read"
            raise HarnessError(f"{top}: {path.relative_to(top)} is {what}. Move it away.")
        else:
            found.append(path)
    return found


def partition(part: Path, top: Path) -> dict[str, str | None]:
    """The columns that the folders between `top` and its part stand for (`year=2020/part-0.parquet`)."""
    pairs = [name.partition("=") for name in part.relative_to(top).parent.parts] if part != top else []
    return {key: None if value == NULL else unquote(value) for key, _, value in pairs}


def size(path: Path) -> int:
    """Bytes of a data file, of all its parts."""
    return sum(part.stat().st_size for part in parts(path))


def sha256(path: Path) -> str:
    """Identity of a data file's content: the sha256 of a file; of a folder, a digest of its parts in their order."""
    if not path.is_dir():
        return files.sha256(path)
    return digest([[partition(part, path), files.sha256(part)] for part in parts(path)])


def _one(folder: Path, stem: str, near: Path | None = None) -> Path:
    names = {f"{stem}{suffix}" for suffix in SUFFIXES}
    atomic = (ATOMIC[stem], f"{ATOMIC[stem]}.gz")
    entries = [path for path in _entries(folder) if not path.name.startswith(".")]  # such as ._a.inter of macOS
    found = [path for path in entries if path.name.lower() in names]
    found += [path for path in entries if path not in found and path.name.lower().endswith(atomic)]
    if near is not None and len(found) > 1 and all(kind(path) == ATOMIC[stem] for path in found):
        found = [path for path in found if _bare(path) == _bare(near)] or found
    if not found and (folder / stem).is_dir():
        found = [folder / stem]
    if len(found) > 1:
        listed = f"{', '.join(path.name for path in found[:-1])} and {found[-1].name}"
        raise HarnessError(f"{folder} has {listed}, but only one file of {stem} can be read. Move or rename the rest.")
    if not found:
        raise HarnessError(_lacks(folder, stem, near))
    return found[0]


def _lacks(folder: Path, stem: str, beside: Path | None) -> str:
    text = f"{folder} has neither {stem}.parquet nor {stem}.csv"
    entries = [path.name for path in _entries(folder) if not path.name.startswith(".")]
    if unread := [name for name in entries if name.lower().startswith(f"{stem}.")]:
        return f"{text}. There is {unread[0]}, which cannot be read; a data file ends in {FORMATS}."
    known = _bare(beside) if beside is not None and kind(beside) in ATOMIC.values() else "*"
    text += f" (nor .tsv, .csv.gz, .tsv.gz, or {known}{ATOMIC[stem]})."
    near = difflib.get_close_matches(f"{stem}.csv", entries, n=1)
    return f"{text} Did you mean '{near[0]}'?" if near else text


def _bare(path: Path) -> str:
    """The stem that RecBole's files share: ml-100k of ml-100k.inter.gz."""
    return re.sub(r"(?i)\.(inter|item)(\.gz)?$", "", path.name)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() or path.is_dir())


def _natural(name: str) -> list[str | int]:
    """Sort key that puts part.2 before part.10."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)]

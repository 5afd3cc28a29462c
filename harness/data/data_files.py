"""Find the data files of a folder, and the parts of a data file that is itself a folder."""

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
SKIPPED = ("_", ".")  # first characters of Spark's bookkeeping files: _SUCCESS, .part-00000.crc
REFUSED = {  # entry of a folder -> why the parts beside it are not the rows of the table
    "_temporary": "the job that writes it is running or was interrupted",
    "_delta_log": "a Delta table keeps deleted rows in its parts; export it as plain Parquet",
    ".hoodie": "a Hudi table keeps deleted rows in its parts; export it as plain Parquet",
}
NULL = "__HIVE_DEFAULT_PARTITION__"


def data_files(folder: Path) -> tuple[Path, Path]:
    """Return the paths of a folder's interactions and items: each a file, or a folder of parts.

    Raises HarnessError if one is missing or exists twice.
    """
    interactions = _one(folder, "interactions")
    return interactions, _one(folder, "items", near=interactions)


def settings_file(folder: Path) -> Path:
    """Return the path of a folder's `dataset.toml`, in upper or lower case, whether or not it exists."""
    return next((path for path in _entries(folder) if path.name.lower() == "dataset.toml"), folder / "dataset.toml")


def kind(path: Path) -> str:
    """Return the suffix that decides how a file is read, without `.gz`; "" if it cannot be read.

    >>> kind(Path("Interactions.CSV.gz")), kind(Path("items.jsonl"))
    ('.csv', '')
    """
    name = path.name.lower()
    return next((suffix.removesuffix(".gz") for suffix in SUFFIXES if name.endswith(suffix)), "")


def parts(path: Path) -> list[Path]:
    """Return the files of a data file: itself, or the parts in its folder, sorted by name with numbers by value.

    Raises HarnessError if a folder has no parts, contains a file that cannot be read, or the log of a table or job.
    """
    if not path.is_dir():
        return [path]
    for name, why in REFUSED.items():
        if (path / name).exists():
            raise HarnessError(f"{path} contains {name}: {why}.")
    paths = sorted(_parts_in(path, path), key=lambda part: _natural(part.relative_to(path).as_posix()))
    if not paths:
        raise HarnessError(f"{path} is a folder without parts; it must contain files that end in {FORMATS}.")
    return paths


def _parts_in(folder: Path, top: Path) -> list[Path]:
    paths = []
    for path in _entries(folder):
        if path.name.startswith(SKIPPED):
            continue
        if path.is_dir() and "=" in path.name:
            paths += _parts_in(path, top)
        elif path.is_dir() or not kind(path):
            fault = "not a partition folder such as year=2020" if path.is_dir() else "not a part that can be read"
            raise HarnessError(f"{top}: {path.relative_to(top)} is {fault}. Move it out of the folder.")
        else:
            paths.append(path)
    return paths


def partition(part: Path, top: Path) -> dict[str, str | None]:
    """Return the columns encoded in the folder names between `top` and `part` (`year=2020/part-0.parquet`)."""
    pairs = [name.partition("=") for name in part.relative_to(top).parent.parts] if part != top else []
    return {key: None if value == NULL else unquote(value) for key, _, value in pairs}


def size(path: Path) -> int:
    """Return the bytes of a data file, summed over its parts."""
    return sum(part.stat().st_size for part in parts(path))


def sha256(path: Path) -> str:
    """Return the identity of a data file's content: the sha256 of a file, or a digest of a folder's parts in order."""
    if not path.is_dir():
        return files.sha256(path)
    return digest([[partition(part, path), files.sha256(part)] for part in parts(path)])


def _one(folder: Path, stem: str, near: Path | None = None) -> Path:
    names = {f"{stem}{suffix}" for suffix in SUFFIXES}
    atomic = (ATOMIC[stem], f"{ATOMIC[stem]}.gz")
    entries = [path for path in _entries(folder) if not path.name.startswith(".")]  # skips ._a.inter of macOS
    paths = [path for path in entries if path.name.lower() in names]
    paths += [path for path in entries if path not in paths and path.name.lower().endswith(atomic)]
    if near is not None and len(paths) > 1 and all(kind(path) == ATOMIC[stem] for path in paths):
        paths = [path for path in paths if _bare(path) == _bare(near)] or paths
    if (bare := folder / stem).is_dir() and (not paths or _has_data(bare)):
        paths.append(bare)
    if len(paths) > 1:
        listed = f"{', '.join(path.name for path in paths[:-1])} and {paths[-1].name}"
        raise HarnessError(f"{folder} has {listed}, but only one {stem} file can be read. Move or rename the others.")
    if not paths:
        raise HarnessError(_lacks(folder, stem, near))
    return paths[0]


def _has_data(folder: Path) -> bool:
    """Return whether a folder or one of its partitions contains a data file."""
    entries = [path for path in _entries(folder) if not path.name.startswith(SKIPPED)]
    return any("=" in path.name and _has_data(path) if path.is_dir() else kind(path) for path in entries)


def _lacks(folder: Path, stem: str, beside: Path | None) -> str:
    text = f"{folder} has neither {stem}.parquet nor {stem}.csv"
    entries = [path.name for path in _entries(folder) if not path.name.startswith(".")]
    if unread := [name for name in entries if name.lower().startswith(f"{stem}.")]:
        return f"{text}. There is {unread[0]}, which cannot be read; a data file ends in {FORMATS}."
    atomic = _bare(beside) if beside is not None and kind(beside) in ATOMIC.values() else "*"
    text += f" (nor .tsv, .csv.gz, .tsv.gz, or {atomic}{ATOMIC[stem]})."
    near = difflib.get_close_matches(f"{stem}.csv", entries, n=1)
    return f"{text} Did you mean '{near[0]}'?" if near else text


def _bare(path: Path) -> str:
    """Return the stem that RecBole's files share: ml-100k for ml-100k.inter.gz."""
    return re.sub(r"(?i)\.(inter|item)(\.gz)?$", "", path.name)


def _entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() or path.is_dir())


def _natural(name: str) -> list[str | int]:
    """Return a sort key that puts part.2 before part.10."""
    return [int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", name)]

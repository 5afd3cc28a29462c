"""Local MLflow stores: SQLite files, their creation and their state on disk."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from filelock import FileLock

from harness.system import checksums, files, tempdirs
from harness.types import HarnessError

SCHEME = "sqlite:///"
REBUILD = "`harness sync` rebuilds it"
UNFINISHED = "MLflow's tables are unfinished"


def path_of(uri: str) -> Path | None:
    """Return the file of a local store; None for other stores."""
    return Path(uri.removeprefix(SCHEME)) if uri.startswith(SCHEME) else None


def prepare(path: Path, newest: str, migrate: Callable[[str], None], *, mend: bool) -> None:
    """Create the database of a store, or bring one of an earlier MLflow up to date.

    `newest`: version of the tables that MLflow reads; `migrate`: writes them to the store at a URI.

    MLflow would do so in the file itself, in many steps and without a lock: after a kill, or with two processes, it
    never opens the file again. Here a copy is migrated under a lock and renamed into place.

    `mend`: quarantine a damaged or unfinished file, so that the mirror is rebuilt. Raises HarnessError for an
    unfinished file without `mend`, and any exception of SQLite or MLflow.
    """
    if not (mend and damage(path)) and _schema(path) == newest:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if why := (damage(path) if mend else "") or _unfinished(path, newest):
            if not mend:
                raise HarnessError(f"{path} is damaged ({why}); {REBUILD}.")
            checksums.set_aside(path, f"{why}; it will be rebuilt from the ledger")
        if _schema(path) != newest:
            _migrate(path, migrate)


def _migrate(path: Path, migrate: Callable[[str], None]) -> None:
    with tempdirs.folder("mlflow") as folder:
        copy = folder / path.name
        if path.is_file():
            with closing(_opened(path)) as old, closing(sqlite3.connect(copy)) as new:
                old.backup(new)
        migrate(f"{SCHEME}{copy}")
        with files.atomic(path) as complete:
            shutil.copyfile(copy, complete)


def damage(path: Path) -> str:
    """Return the fault that SQLite finds in a file; '' if none or if there is no file."""
    if not path.is_file():
        return ""
    try:
        with closing(_opened(path)) as database:
            verdict = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:  # for example locked: not damaged
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if verdict == "ok" else verdict.splitlines()[0]


def unreadable(path: Path) -> str:
    """Return why a file is no store that can be read; '' if it may be one."""
    if not path.is_file():
        return f"There is no MLflow store at {SCHEME}{path}."
    if why := damage(path):
        return f"{path} is damaged ({why}); {REBUILD}."
    with suppress(sqlite3.OperationalError), closing(_opened(path)) as database:
        if "runs" not in _tables(database):
            return f"{path} is no MLflow store: it has no table of runs."
    return ""


def _schema(path: Path) -> str:
    """Return the version of MLflow's tables; '' if there are none, or if a migration left its temporary tables."""
    if not path.is_file():
        return ""
    with closing(_opened(path)) as database:
        tables = _tables(database)
        if "alembic_version" not in tables or _leftovers(tables):
            return ""
        version = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(version[0]) if version else ""


def _unfinished(path: Path, newest: str) -> str:
    """Return why MLflow would not open the tables of a file; '' if it may. The default experiment comes last."""
    if _schema(path) == newest or not path.is_file():
        return ""
    with closing(_opened(path)) as database:
        tables = _tables(database)
        empty = "experiments" in tables and not database.execute("SELECT 1 FROM experiments").fetchone()
    return UNFINISHED if empty or _leftovers(tables) else ""


def _tables(database: sqlite3.Connection) -> set[str]:
    return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _leftovers(tables: set[str]) -> bool:
    return any(name.startswith("_alembic_tmp_") for name in tables)


def _opened(path: Path) -> sqlite3.Connection:
    """Open a file that exists. A read-only connection could not undo what a killed process left half written."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=30)

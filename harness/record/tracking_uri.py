"""Addresses of MLflow stores: the default one, its state on disk, and forms that are safe to print."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path


def default_uri(home: Path) -> str:
    return f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"


def damage(uri: str) -> str:
    """Return the fault that SQLite finds in a local store; '' if none, or for other stores."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or not path.is_file():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            verdict = str(database.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError:  # for example locked: not damaged
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if verdict == "ok" else verdict.splitlines()[0]


def runs_page(uri: str, experiment: str) -> str | None:
    """Return the URL of an experiment's runs on a server, without user name and password; None for a local store.

    >>> runs_page("https://me:secret@mlflow.lab:5000/", "7"), runs_page("sqlite:///mlflow.db", "1")
    ('https://mlflow.lab:5000/#/experiments/7/runs', None)
    """
    scheme, mark, rest = uri.partition("://")
    if not mark or scheme not in ("http", "https"):
        return None
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}".rstrip("/") + f"/#/experiments/{experiment}/runs"


def first_line(error: BaseException) -> str:
    """The first line of an error, without what a URL in it may carry before its host."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"://[^/@\s]*@", "://", line)[:200]


def redact(uri: str) -> str:
    """A URI without user and password.

    >>> redact("http://ann:secret@host:5000")
    'http://host:5000'
    """
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + rest.rpartition("@")[2] if separator else uri

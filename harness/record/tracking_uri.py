"""Addresses of MLflow stores: the default one, and forms that are safe to print."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from harness.record import local_store
from harness.registry import suggest
from harness.system import networks
from harness.types import HarnessError

OFF = "off"  # in place of an address: no mirror
UNFIT = re.compile(r"\?|%[0-9A-Fa-f]{2}")  # begins a query; is decoded by SQLAlchemy 2.1, but not by 2.0 and MLflow
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "file", "databricks", "databricks-uc", "uc")
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


def default_uri(home: Path) -> str:
    return f"{local_store.SCHEME}{home / 'mlflow' / 'mlflow.db'}"


def check_readable(uri: str) -> None:
    """Raise HarnessError as `check`, or if there is no store to read. Reading must create none, as MLflow would."""
    check(uri)
    if (file := local_store.path_of(uri)) is not None and (why := local_store.unreadable(file)):
        raise HarnessError(why)


def check(uri: str) -> None:
    """Raise HarnessError if a word is no address of a store, names no file for certain, or would send user name and
    password or a token unencrypted: plain http to another machine, unless the user declares the network as trusted."""
    if "://" not in uri and not uri.startswith(("databricks", "uc")):
        word = uri.rpartition("@")[2]  # without a password
        raise HarnessError(
            f"'{word}' is no address of an MLflow store, such as sqlite:////path/mlflow.db or https://host."
            + (" Only `harness bench` knows this word." if word == OFF else "")
        )
    _check_scheme(uri)
    if uri.startswith("sqlite:"):
        _check_file(uri)
    if uri.lower().startswith(("http://", "https://")):
        _check_server(uri)


def _check_scheme(uri: str) -> None:
    """Raise HarnessError for an address that no store of MLflow takes: the mirror would stay empty."""
    scheme, separator, _ = uri.partition("://")
    if separator and scheme.lower().partition("+")[0] not in SCHEMES:
        raise HarnessError(
            f"'{scheme}' is no kind of MLflow store. {suggest(scheme, list(SCHEMES))} Give an address such as "
            "sqlite:////path/mlflow.db or https://host."
        )


def _check_file(uri: str) -> None:
    name = uri.removeprefix(local_store.SCHEME)
    if name in (uri, "", ":memory:"):
        raise HarnessError(f"{uri} names no file; write it as sqlite:////path/mlflow.db.")
    if found := UNFIT.search(name):
        raise HarnessError(
            f"The path {hide(name)} contains '{found[0]}', which the address of a database cannot hold; choose another "
            "home, or another store with --tracking."
        )


def _check_server(uri: str) -> None:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:  # its message may repeat a part of a password
        raise HarnessError(f"The address of MLflow, {redact(uri)}, has no valid host and port.") from None
    if parts.scheme != "http" or networks.is_loopback(host) or networks.trusted():
        return
    if secret := "the password in its URI" if "@" in uri else _credentials(uri):
        raise HarnessError(
            f"MLflow at {redact(uri)}: {secret} would be sent unencrypted. Use https, or a tunnel to loopback "
            f"(ssh -L 5000:127.0.0.1:5000 {host}); or set {networks.TRUSTED}=1 if only people you trust reach that "
            "network."
        )


def _credentials(uri: str) -> str:
    """Name what would authenticate a request to the server, as requests and MLflow's client look it up; '' if
    nothing."""
    if name := next((name for name in SECRETS if os.environ.get(name)), ""):
        return name
    from requests.utils import get_netrc_auth

    if has_credentials_file():
        return "the password in ~/.mlflow/credentials"
    return "the password in ~/.netrc" if get_netrc_auth(uri) else ""


def has_credentials_file() -> bool:
    """Whether there is a file with user name and password for MLflow's client."""
    return os.path.exists(os.path.expanduser("~/.mlflow/credentials"))  # unlike `Path`, also without a HOME


def runs_page(uri: str, experiment: str) -> str | None:
    """Return the URL of an experiment's runs on a server, without user name and password; None for a local store.

    >>> runs_page("https://me:secret@mlflow.lab:5000/", "7"), runs_page("sqlite:///mlflow.db", "1")
    ('https://mlflow.lab:5000/#/experiments/7/runs', None)
    """
    if not uri.startswith(("http://", "https://")):
        return None
    return f"{redact(uri).rstrip('/')}/#/experiments/{experiment}/runs"


def first_line(error: BaseException) -> str:
    """The first line of an error, without secrets.

    Removed are user and password of a URL, values of parameters such as `password=`, and the values of MLflow's
    variables, which a server may repeat.

    >>> first_line(ValueError("no answer from postgresql://ann:a/b@c@host/db?password=x"))
    'no answer from postgresql://host/db?password=***'
    """
    return hide((str(error).splitlines() or [type(error).__name__])[0])[:200]


def hide(text: str) -> str:
    """Remove secrets from a message, as `first_line` does."""
    text = re.sub(r"://\S*@", "://", text)
    text = re.sub(r"(?i)(password|passwd|pwd|token|secret|key)=[^\s&'\")]+", r"\1=***", text)
    for name in SECRETS:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def redact(uri: str) -> str:
    """A URI without user, password and parameters.

    >>> redact("http://ann:secret@host:5000"), redact("postgresql://host/db?password=secret")
    ('http://host:5000', 'postgresql://host/db')
    """
    scheme, separator, rest = uri.partition("://")
    return scheme + separator + re.split(r"[?#]", rest.rpartition("@")[2])[0] if separator else uri

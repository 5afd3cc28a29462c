"""Addresses of MLflow: passwords are not sent unencrypted and not printed, and reading makes no store."""

import pwd
import sqlite3
from contextlib import closing

import pytest
from command_line import harness

from harness.record import mlflow_client, tracking, tracking_uri
from harness.record.ledger import Ledger
from harness.types import HarnessError

VARIABLES = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HARNESS_TRUSTED_NETWORK")


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)


def put(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def secret_of(kind, tmp_path, monkeypatch):
    """Put a secret where a user can put one; return the URI to use."""
    if kind.startswith("MLFLOW"):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
        monkeypatch.setenv(kind, "hunter2")
    elif kind == "netrc":
        put(tmp_path, ".netrc", "machine mlflow.lab login ann password hunter2\n")
    elif kind == "credentials":
        put(tmp_path, ".mlflow/credentials", "[mlflow]\nmlflow_tracking_username = ann\n")
    return "http://ann:hunter2@mlflow.lab:5000" if kind == "URI" else "http://mlflow.lab:5000"


KINDS = ["URI", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "netrc", "credentials"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_password_is_not_sent_unencrypted(kind, tmp_path, monkeypatch):
    uri = secret_of(kind, tmp_path, monkeypatch)
    attempts = [tracking_uri.check, lambda uri: tracking.Tracker(uri, tmp_path), mlflow_client.ClientStore]
    attempts += [lambda uri: mlflow_client.log_model(uri, "trial", "name", tmp_path)]
    for attempt in attempts:
        with pytest.raises(HarnessError) as error:
            attempt(uri)
        line = str(error.value)
        assert "hunter2" not in line
        assert "\n" not in line
        for part in ("http://mlflow.lab:5000", "unencrypted", "https", "ssh -L", "HARNESS_TRUSTED_NETWORK=1"):
            assert part in line
    tracking_uri.check(uri.replace("http:", "https:"))
    tracking_uri.check(uri.replace("mlflow.lab", "127.0.0.1"))
    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")
    tracking_uri.check(uri)


@pytest.mark.parametrize(
    "uri", ["http://mlflow.lab:5000", "sqlite:////a/b.db", "databricks", "postgresql://a:b@host/db"]
)
def test_what_sends_no_password_over_http_is_free(uri):
    tracking_uri.check(uri)


def test_a_password_in_netrc_is_found_without_a_home_folder(tmp_path, monkeypatch):
    def unknown(_):
        raise KeyError

    uri = secret_of("netrc", tmp_path, monkeypatch)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(HarnessError, match="unencrypted"):
        tracking_uri.check(uri)


@pytest.mark.parametrize(
    "word", ["off", "", "notes.txt", "ann:hunter2@mlflow.lab:5000", "mlflow.lab:5000", "file:runs"]
)
def test_a_word_that_is_no_address_is_refused_by_every_command(word, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = [["sync", "--tracking"], ["leaderboard", "--from-mlflow"]]
    commands += [["bench", "--datasets", "x", "--tracking"]] if word != "off" else []
    for words in commands if word else []:
        done = harness(home, *words, word)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert "is no address of an MLflow store, such as sqlite:////path/mlflow.db or https://host." in line
        assert "hunter2" not in line
        assert ("harness bench" in line) == (word == "off")
    with pytest.raises(HarnessError, match="no address"):
        tracking.sync(word, home, Ledger())
    assert not (tmp_path / word).exists() or not word


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(uri, home):
    with pytest.raises(HarnessError, match="names no file"):
        tracking.sync(uri, home, Ledger())


@pytest.mark.parametrize("content", [None, b"", b"x", b"x" * 999, "database"])
def test_reading_makes_no_store_of_what_is_none(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "notes.txt"
    if content == "database":
        with closing(sqlite3.connect(file)) as other:
            other.execute("CREATE TABLE notes (text)")
    elif content is not None:
        file.write_bytes(content)
    before = file.read_bytes() if content is not None else None
    for uri in (f"sqlite:///{file}", "", "notes.txt", "file:notes.txt"):
        for attempt in (tracking.read, mlflow_client.mirrored_run):
            with pytest.raises(HarnessError, match=r"no MLflow store|damaged|no address"):
                attempt(uri, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["notes.txt"])
    assert before is None or file.read_bytes() == before


def test_an_invalid_address_is_not_repeated():
    with pytest.raises(HarnessError) as error:
        tracking_uri.check("http://ann:hunter2@[::1")
    assert "hunter2" not in str(error.value)


URIS = [
    "http://ann:hunter2@mlflow.lab:5000",
    "http://ann:hunter2@x@mlflow.lab:5000",
    "http://ann:x/hunter2@mlflow.lab:5000",
    "http://ann:x?hunter2@mlflow.lab:5000",
    "http://ann:x#hunter2@mlflow.lab:5000",
    "http://mlflow.lab:5000?password=hunter2",
    "http://mlflow.lab:5000#hunter2",
]


@pytest.mark.parametrize("uri", URIS)
def test_printed_addresses_have_no_password(uri):
    assert tracking_uri.redact(uri) == "http://mlflow.lab:5000"
    assert tracking_uri.runs_page(uri, "3") == "http://mlflow.lab:5000/#/experiments/3/runs"


@pytest.mark.parametrize("uri", URIS[:-1])
def test_errors_have_no_password(uri):
    line = tracking_uri.first_line(RuntimeError(f"cannot connect to {uri}: refused\nmore"))
    assert "hunter2" not in line
    assert "mlflow.lab" in line
    assert line.startswith("cannot connect to")


def test_a_server_that_repeats_the_password_is_not_quoted(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    assert "hunter2" not in tracking_uri.first_line(RuntimeError("401: token 'hunter2' is unknown"))


@pytest.mark.parametrize("uri", ["ftp://x", "s3://bucket/runs", "sqlit:///x.db"])
def test_an_address_that_no_store_takes_is_refused(uri):
    with pytest.raises(HarnessError, match=f"'{uri.partition(':')[0]}' is no kind of MLflow store. .*Known: sqlite, "):
        tracking_uri.check(uri)


@pytest.mark.parametrize(
    "uri", ["postgresql+psycopg2://lab/db", "mysql://lab/db", "databricks", "uc://profile", "HTTPS://lab"]
)
def test_the_stores_of_mlflow_are_taken(uri):
    tracking_uri.check(uri)

"""Commands of a user whom the system does not know, without HOME: a container, or a job of a cluster."""

import subprocess
import sys

import pytest
import synthetic_ledgers
from command_line import environment, harness
from mlflow_server import check_mirror, free_port, serve, stop

from harness.record.ledger import Ledger

UNKNOWN = """
import pwd, sys
def getpwuid(number):
    raise KeyError(number)
pwd.getpwuid = getpwuid
from harness.cli import main
main()
"""


def command(home, *words, without=("HOME",)):
    env = {name: value for name, value in environment(home).items() if name not in without}
    return subprocess.run(
        [sys.executable, "-c", UNKNOWN, *words],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def ledger(home):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    return Ledger.open(home)


def test_the_local_mirror_is_written_and_read(home, ledger, mlflow_store):
    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    done = command(home, "sync")
    assert done.returncode == 0, done.stderr
    check_mirror(uri, ledger)
    local, stored = (command(home, "leaderboard", "--format", "csv", *more) for more in ([], ["--from-mlflow"]))
    assert stored.returncode == 0, stored.stderr
    assert stored.stdout == local.stdout


def test_a_server_is_written_and_read(home, ledger, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = serve(tmp_path / "server", port)
    try:
        done = command(home, "sync", "--tracking", uri)
        assert done.returncode == 0, done.stderr
        check_mirror(uri, ledger)
        stored = command(home, "leaderboard", "--format", "csv", "--from-mlflow", uri)
        assert stored.stdout == harness(home, "leaderboard", "--format", "csv").stdout, stored.stderr
    finally:
        stop(server)


def test_a_missing_home_is_named_where_none_is_given(home):
    done = command(home, "sync", without=("HOME", "HARNESS_HOME"))
    assert done.returncode == 2
    assert "because HOME is not set; give the full path, with --home or HARNESS_HOME." in done.stderr

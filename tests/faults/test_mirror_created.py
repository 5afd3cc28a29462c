"""The database of the local mirror while it is created: SIGKILL, two processes at once, and what they left earlier."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import pytest
import synthetic_ledgers
from command_line import environment, harness_process
from mlflow_server import check_mirror

from harness.record import mlflow_client, tracking
from harness.record.ledger import Ledger
from harness.types import HarnessError

SYNC = [sys.executable, "-m", "harness.cli", "sync"]


@pytest.fixture
def ledger(home):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    return Ledger.open(home)


def start(home, temporary):
    temporary.mkdir(exist_ok=True)
    env = environment(home) | {"TMPDIR": str(temporary)}
    return subprocess.Popen(SYNC, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tables(folders):
    """The names of tables in the databases below the folders."""
    for file in (file for folder in folders for file in folder.rglob("*.db")):
        try:
            with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
                yield from (row[0] for row in database.execute("SELECT name FROM sqlite_master"))
        except sqlite3.Error:  # it is being written
            pass


def wait_for_migration(process, folders):
    """Until a database has the temporary table of a step of the migration."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        if any(name.startswith("_alembic_tmp_") for name in tables(folders)):
            return
    raise AssertionError(f"it ended before: {process.poll()} {process.communicate()}")


def test_a_kill_while_the_database_is_created_costs_nothing(home, ledger, tmp_path):
    process = start(home, tmp_path / "tmp")
    wait_for_migration(process, [home / "mlflow", tmp_path / "tmp"])
    process.kill()
    process.communicate()
    again = harness_process(home, "sync")
    assert again.returncode == 0, again.stderr
    assert "Warning" not in again.stderr
    check_mirror(tracking.default_uri(home), ledger)


def test_two_processes_that_create_the_database_at_once_write_one_mirror(home, ledger, tmp_path):
    both = [start(home, tmp_path / name) for name in ("a", "b")]
    outputs = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    last = harness_process(home, "sync")
    assert "MLflow has every trial" in last.stdout, last.stderr
    check_mirror(tracking.default_uri(home), ledger)


def changed(file, *statements):
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)


OLDER = "UPDATE alembic_version SET version_num = 'b7c8d9e0f1a2'"


@pytest.mark.parametrize(
    "statements",
    [
        ["CREATE TABLE _alembic_tmp_tags (key TEXT)", OLDER],
        ["CREATE TABLE _alembic_tmp_tags (key TEXT)", "DROP TABLE tags"],  # by a second process, after the first ended
        ["DELETE FROM experiments", OLDER],
        ["DELETE FROM experiments", "DELETE FROM alembic_version"],
        ["DELETE FROM experiments", "DROP TABLE alembic_version", "DROP TABLE tags"],
    ],
)
def test_a_database_that_was_left_unfinished_is_set_aside_and_rebuilt(home, ledger, mlflow_store, capsys, statements):
    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    changed(home / "mlflow" / "mlflow.db", *statements)
    with pytest.raises(HarnessError, match=r"mlflow.db is damaged \(MLflow's tables are unfinished\); .*harness sync"):
        tracking.read(uri, home)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    assert "mlflow.db.damaged-1" in capsys.readouterr().err
    check_mirror(uri, ledger)
    assert tracking.sync(uri, home, ledger) == 0


def older_store(file):
    """The tables and the experiment that an MLflow before model registries, jobs and issues has left."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    file.parent.mkdir()
    engine = utils.create_sqlalchemy_engine(f"sqlite:///{file}")
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0584bdc529eb")
    engine.dispose()
    place = "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES "
    changed(file, f"{place} (0, 'Default', '/mlruns/0', 'active'), (7, 'theirs', '/mlruns/7', 'active')")


def test_the_store_of_an_earlier_mlflow_is_brought_up_to_date_and_keeps_its_content(home, ledger, tmp_path, capsys):
    from mlflow import MlflowClient

    file = home / "mlflow" / "mlflow.db"
    older_store(file)
    uri = tracking.default_uri(home)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    assert "damaged" not in capsys.readouterr().err
    check_mirror(uri, ledger)
    assert MlflowClient(uri).get_experiment_by_name("theirs").experiment_id == "7"


def test_a_store_that_mlflow_does_not_migrate_stays_as_it_is(home, ledger, mlflow_store, capsys):
    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    changed(home / "mlflow" / "mlflow.db", OLDER)
    before = (home / "mlflow" / "mlflow.db").read_bytes()
    with pytest.raises(HarnessError, match=r"out-of-date database schema.*mlflow db upgrade"):
        tracking.sync(uri, home, ledger)
    assert (home / "mlflow" / "mlflow.db").read_bytes() == before
    assert "damaged" not in capsys.readouterr().err


def test_what_a_killed_writer_left_half_written_is_undone(home, ledger, mlflow_store):
    file = home / "mlflow" / "mlflow.db"
    uri = mlflow_store(file)
    program = f"""import os, sqlite3
database = sqlite3.connect({str(file)!r})
database.execute("PRAGMA cache_size = 1")
database.execute("UPDATE experiments SET name = hex(randomblob(400000))")
os._exit(9)"""
    subprocess.run([sys.executable, "-c", program], check=False)
    assert file.with_name("mlflow.db-journal").stat().st_size > 0, "as after SIGKILL"
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    check_mirror(uri, ledger)


def test_an_experiment_that_another_process_creates_at_the_same_time_is_used(home, ledger, mlflow_store, monkeypatch):
    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    create = mlflow_client.ClientStore.create_experiment

    def twice(self, *arguments):
        create(self, *arguments)
        return create(self, *arguments)

    monkeypatch.setattr(mlflow_client.ClientStore, "create_experiment", twice)
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    check_mirror(uri, ledger)

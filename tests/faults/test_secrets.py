"""Secrets in every place where a user can put one: none of them in the home, the output or a traceback."""

import base64
import json
import socket
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from click.testing import CliRunner
from command_line import TINY, bench_words, harness, harness_process, settings

from harness.cli import main
from harness.record import mlflow_client, tracking
from harness.record.ledger import Ledger
from harness.types import HarnessError

MARK = "hunter2"  # in every secret below, and nowhere else
VARIABLES = ("RAY_AUTH_TOKEN", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HARNESS_API_KEY", "OPENAI_API_KEY")
VARIABLES += ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GITHUB_TOKEN")
ENCODED = [base64.b64encode(f"ann:{MARK}-uri".encode()).decode().rstrip("=")[:-1]]


class Refusing(BaseHTTPRequestHandler):
    """An MLflow server and mirror that wants other credentials, and repeats the ones it was sent."""

    seen: ClassVar[list[str]] = []

    def do_GET(self):
        sent = self.headers.get("Authorization", "")
        self.seen.append(sent)
        repeated = sent.removeprefix("Bearer ") if sent.startswith("Bearer") else "none"
        body = json.dumps({"error_code": "PERMISSION_DENIED", "message": f"token {repeated} is unknown"}).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def port():
    Refusing.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def secrets(tmp_path, monkeypatch, port):
    """Set them all; return the words of a bench that uses them."""
    for name in VARIABLES:
        monkeypatch.setenv(name, f"{MARK}-{name}")
    token = tmp_path / "token"
    token.write_text(f"{MARK}-file")
    token.chmod(0o600)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", f"{MARK}-bearer")
    monkeypatch.setenv("HARNESS_MIRROR", f"http://ann:{MARK}-mirror@127.0.0.1:{port}/mirror")
    monkeypatch.setenv("HTTPS_PROXY", f"http://ann:{MARK}-proxy@127.0.0.1:9")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://ann:{MARK}-index@127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def leaks(text):
    return [line for line in text.splitlines() if MARK in line or any(code in line for code in ENCODED)]


def leaking_files(folder):
    wanted = [MARK.encode(), *(code.encode() for code in ENCODED)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(word in path.read_bytes() for word in wanted)]


def test_the_search_for_leaks_finds_them(tmp_path):
    (tmp_path / "a").write_bytes(b"\x00" + base64.b64encode(f"ann:{MARK}-uri".encode()))
    (tmp_path / "b").write_text("ann")
    assert leaking_files(tmp_path) == [tmp_path / "a"]
    assert leaks(f"x\ny {MARK}\n") == [f"y {MARK}"]


def test_a_bench_and_its_tables_leak_none(dataset, home, port, secrets):
    uri = f"http://ann:{MARK}-uri@127.0.0.1:{port}"
    words = bench_words(dataset, "--adapters", "id", "--backbones", "sasrec", "--tracking", uri)
    process = harness_process(home, *words)
    assert process.returncode == 0, process.stderr
    assert "is away" in process.stderr, "the server was asked"
    outputs = {"bench": process.stdout + process.stderr}
    commands = [
        ["sync"],  # into SQLite, which a table then reads
        ["leaderboard", "--from-mlflow"],
        *(["leaderboard", "--format", kind] for kind in ("md", "json", "html", "csv")),
        ["status", "--json"],
        ["doctor", "--json"],
        ["plan", "--datasets", str(dataset), *TINY],
        ["cache"],
    ]
    for command in commands:
        done = harness(home, *command)
        assert done.returncode in (0, 1, 2), done.stderr
        outputs[" ".join(command)] = done.stdout + done.stderr
    assert {name: lines for name, text in outputs.items() if (lines := leaks(text))} == {}
    assert (home / "mlflow" / "mlflow.db").is_file()
    assert leaking_files(home) == []
    assert any(Refusing.seen), "credentials were sent"


def test_nothing_sends_a_password_over_http_to_another_machine(home, port, secrets, tmp_path, monkeypatch):
    found = socket.getaddrinfo

    def other(host, *arguments, **options):
        return found("127.0.0.1" if host == "mlflow.lab" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", other)
    uri = f"http://ann:{MARK}-uri@mlflow.lab:{port}"
    for attempt in (
        lambda: tracking.sync(uri, home, Ledger()),
        lambda: tracking.read(uri, home),
        lambda: mlflow_client.log_model(uri, "trial", "name", tmp_path),
    ):
        with pytest.raises(HarnessError, match="unencrypted"):
            attempt()
    assert Refusing.seen == []


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_errors_and_tracebacks_leak_none(dataset, home, port, secrets, monkeypatch, capfd, debug):
    uri = f"http://ann:{MARK}-uri@127.0.0.1:{port}"
    lab = f"http://ann:{MARK}-uri@mlflow.invalid:5000"
    malformed = f"http://ann:{MARK}-uri@127.0.0.1:port"
    gone = f"http://ann:{MARK}-uri@127.0.0.1:1"
    database = f"postgresql://ann:{MARK}-uri@127.0.0.1:1/db?password={MARK}-query"
    bench = ["bench", "--datasets", str(dataset), *TINY]
    encoder = f"api:m@http://ann:{MARK}-api@127.0.0.1:{port}/v1"
    commands = [
        *(["sync", "--tracking", place] for place in (uri, lab, malformed, gone, database)),
        ["leaderboard", "--from-mlflow", uri],
        [*bench, "--tracking", lab],
        [*bench, "--encoders", encoder],
        [*bench, "--address", "192.0.2.1:6379"],
        [*bench, "--address", f"http://ann:{MARK}@127.0.0.1:8265"],
        ["prepare", "amazon2014-beauty"],
    ]
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    outputs = {}
    for number, command in enumerate(commands):
        done = CliRunner().invoke(main, [*debug, *command], env=settings(home))
        shown = "".join(traceback.format_exception(done.exception)) if debug else ""
        outputs[number] = (done.exit_code, leaks(done.output + shown + "".join(capfd.readouterr())))
        assert isinstance(done.exception, HarnessError if debug else SystemExit), f"{number}: {shown}"
    code = 1 if debug else 2
    assert outputs == {number: (code, []) for number in outputs}
    assert not home.exists() or not any(home.rglob("*")) or leaking_files(home) == []


def test_a_traceback_as_the_interpreter_prints_it_leaks_none(home, port, secrets):
    done = harness_process(home, "--debug", "sync", "--tracking", f"http://ann:{MARK}-uri@127.0.0.1:{port}")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert leaks(done.stdout + done.stderr) == []

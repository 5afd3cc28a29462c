"""The REST client: what it sends and makes of answers, and that MLflow's client sees the same runs as its own."""

import base64
import json
import math
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow_server import free_port, serve, stop

from harness.record import mlflow_client, mlflow_rest
from harness.record.mlflow_run import Point, StoredRun

RUN = StoredRun("r1", "mlflow-artifacts:/7/r1/artifacts", "RUNNING", 5, {})


class Elsewhere:
    """Artifacts outside the server; notes what is asked of it."""

    def __init__(self):
        self.calls = []

    def put(self, run, file, folder=""):
        self.calls.append(("put", run.place, file.name, folder))

    def has(self, run, name):
        self.calls.append(("has", run.place, name))
        return True

    def get(self, run, name, span=None):
        self.calls.append(("get", run.place, name, span))
        return b"elsewhere"


class Server:
    """A web server that answers from a list, then with `{}`, and notes the requests."""

    def __init__(self):
        self.requests, self.answers = [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append((self.command, self.path, dict(self.headers), body))
                status, content = outer.answers.pop(0) if outer.answers else (200, b"{}")
                if status == "lost":
                    self.close_connection = True
                    return self.connection.close()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = answer

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch, tmp_path):
    for name in ("USERNAME", "PASSWORD", "TOKEN", "AUTH", "AWS_SIGV4", "INSECURE_TLS", "SERVER_CERT_PATH"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Server()
    yield found
    found.server.shutdown()
    found.server.server_close()


def store(uri):
    return mlflow_rest.RestStore(uri, Elsewhere())


def run_json(run_id):
    info = {"run_id": run_id, "artifact_uri": "mlflow-artifacts:/7/x", "status": "RUNNING", "start_time": 5}
    return json.dumps(
        {"run": {"info": info, "data": {"tags": [{"key": "a", "value": "b"}, {"key": "empty"}]}}}
    ).encode()


def test_credentials_are_those_of_mlflows_variables(server, monkeypatch):
    store(server.uri).delete("x")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    store(server.uri).delete("x")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "sécret")
    store(server.uri).delete("x")
    basic = "Basic " + base64.b64encode("ann:sécret".encode()).decode()
    assert [headers.get("Authorization") for _, _, headers, _ in server.requests] == [None, "Bearer t0ken", basic]


def test_a_server_on_loopback_is_reached_without_a_proxy(server, monkeypatch):
    proxy = Server()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.uri)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    store(server.uri).delete("x")
    assert (len(server.requests), len(proxy.requests)) == (1, 0)
    store("http://mlflow.invalid:5000").delete("x")
    assert (len(server.requests), len(proxy.requests)) == (1, 1)
    proxy.server.shutdown()
    proxy.server.server_close()


@pytest.mark.parametrize(
    ("name", "served"),
    [
        ("MLFLOW_TRACKING_AUTH", False),
        ("MLFLOW_TRACKING_AWS_SIGV4", False),
        ("MLFLOW_WORKSPACE", False),
        ("MLFLOW_TRACKING_TOKEN", True),
    ],
)
def test_what_needs_a_plugin_of_mlflow_is_left_to_its_client(server, monkeypatch, tmp_path, name, served):
    assert mlflow_rest.serves()
    monkeypatch.setenv(name, "x")
    assert mlflow_rest.serves() is served
    monkeypatch.delenv(name)
    (tmp_path / ".mlflow").mkdir()
    (tmp_path / ".mlflow" / "credentials").write_text("[mlflow]\n")
    assert not mlflow_rest.serves()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, b'{"error_code": "X", "message": "Params were already logged"}'), "400 .*already logged"),
        ((401, b"no"), "401 .*MLFLOW_TRACKING_USERNAME"),
        ((404, b"<html>not MLflow</html>"), "404 "),
        ((200, b"<html>not MLflow</html>"), "not MLflow's"),
        (("lost", b""), "no answer"),
        ((503, b""), "503 "),
    ],
)
def test_a_refusal_is_one_clear_line(server, answer, message):
    server.answers = [answer] * 2
    with pytest.raises(mlflow_rest.ServerError, match=message) as error:
        store(server.uri).experiment("harness")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("sent", "answer", "remedy"),
    [
        (False, (401, b"You are not authenticated."), "set MLFLOW_TRACKING_USERNAME"),
        (True, (401, b"You are not authenticated."), "were sent and are wrong"),
        (True, (403, b"Permission denied"), "lacks the permission"),
        (True, (403, b"Invalid Host header - possible DNS rebinding attack detected"), r"add 127.0.0.1:\d+ to its"),
    ],
)
def test_a_refused_request_is_answered_with_what_to_do(server, monkeypatch, sent, answer, remedy):
    if sent:
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    server.answers = [answer]
    with pytest.raises(mlflow_rest.ServerError, match=remedy) as error:
        store(server.uri).experiment("harness")
    assert "\n" not in str(error.value)


def test_no_server_is_one_clear_line():
    with pytest.raises(mlflow_rest.ServerError, match=r"no answer: .*refused"):
        store(f"http://127.0.0.1:{free_port()}").experiment("harness")


def test_an_experiment_that_is_not_there_is_none(server):
    server.answers = [(404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}')]
    assert store(server.uri).experiment("harness") is None


@pytest.mark.parametrize("fault", [("lost", b""), (503, b"")])
def test_a_call_that_failed_once_is_repeated_and_a_repeated_creation_is_reported(server, fault):
    server.answers = [(200, run_json("one")), fault, (200, run_json("two")), fault, (200, b"{}")]
    rest = store(server.uri)
    run, repeated = rest.create_run("7", "name", 5, {"a": "b"})
    assert (run.id, dict(run.tags), repeated) == ("one", {"a": "b", "empty": ""}, False)
    run, repeated = rest.create_run("7", "name", 5, {"a": "b"})
    assert (run.id, repeated) == ("two", True)
    rest.end("two", "FINISHED", 9)
    assert len(server.requests) == 5
    assert server.requests[3][3] == server.requests[4][3]


def test_calls_share_an_open_connection(server):
    rest, opened = store(server.uri), []
    accept = server.server.get_request
    server.server.get_request = lambda: opened.append(1) or accept()
    for _ in range(5):
        rest.delete("x")
    assert len(server.requests) == 5
    assert len(opened) == 1


def test_a_part_of_a_file_is_cut_out_if_the_server_sends_all_of_it(server):
    content = bytes(range(256)) * 4_000
    server.answers = [(206, content[300:310]), (200, content)]
    rest = store(server.uri)
    assert rest.get(RUN, "files.zip", (300, 10)) == content[300:310]
    assert rest.get(RUN, "files.zip", (300, 10)) == content[300:310]
    assert [headers["Range"] for _, _, headers, _ in server.requests] == ["bytes=300-309"] * 2


def test_artifacts_outside_the_server_are_read_and_written_there(tmp_path):
    elsewhere = Elsewhere()
    rest = mlflow_rest.RestStore("http://127.0.0.1:1", elsewhere)
    (tmp_path / "file").write_bytes(b"x")
    for place in ("s3://bucket/7/r1", "/srv/artifacts/7/r1", "mlflow-artifacts://other:5000/7/r1", "file:///srv/7/r1"):
        run = StoredRun("r1", place, "RUNNING", 5, {})
        rest.put(run, tmp_path / "file", "queries")
        assert rest.has(run, "a/b")
        assert rest.get(run, "a", (1, 2)) == b"elsewhere"
        expected = [("put", place, "file", "queries"), ("has", place, "a/b"), ("get", place, "a", (1, 2))]
        assert elsewhere.calls == expected
        elsewhere.calls.clear()


@pytest.mark.slow
def test_mlflows_client_sees_the_same_runs_as_if_it_had_written_them(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    port = free_port()
    process = serve(tmp_path / "server", port)
    uri = f"http://127.0.0.1:{port}"
    (tmp_path / "ünï 漢.bin").write_bytes(b"0123456789")
    points = [Point("loss", 0.1 + step, 7, step) for step in range(3)] + [Point("nan", math.nan, 7)]
    points += [Point("high", math.inf, 7), Point("low", -math.inf, 7), Point("tiny", 5e-324, 7)]
    try:
        experiments, seen = [], []
        for number, one in enumerate((store(uri), mlflow_client.ClientStore(uri))):
            assert one.experiment(f"e{number}") is None
            experiments.append(one.create_experiment(f"e{number}", None))
            assert one.experiment(f"e{number}") == (experiments[-1], True)
            run, repeated = one.create_run(experiments[-1], "naïve", 5, {"k": "v'\"漢", "x": "y" * 5_000})
            assert not repeated
            for _ in range(2):  # writing twice changes nothing
                one.log(run.id, {"p": "1", "ö": ""}, points, {"later": "tag"})
                one.put(run, tmp_path / "ünï 漢.bin")
                one.put(run, tmp_path / "ünï 漢.bin", "folder")
            one.end(run.id, "KILLED", 99)
            gone, _ = one.create_run(experiments[-1], "gone", 5, {})
            one.delete(gone.id)
        for reader in (store(uri), mlflow_client.ClientStore(uri)):
            for experiment in experiments:
                (run,) = reader.runs(experiment, "tags.`k` != ''")
                assert reader.has(run, "folder/ünï 漢.bin")
                assert not reader.has(run, "folder/none")
                assert not reader.has(run, "none/none")
                assert reader.get(run, "ünï 漢.bin") == b"0123456789"
                assert reader.get(run, "folder/ünï 漢.bin", (3, 4)) == b"3456"
                tags = {key: value for key, value in run.tags.items() if not key.startswith("mlflow.user")}
                seen.append((run.status, run.start, tags))
        assert all(one == seen[0] for one in seen[1:])
        client = mlflow_client.ClientStore(uri).client
        shown = []
        for experiment in experiments:
            (run,) = client.search_runs([experiment])
            values = {
                key: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                for key in run.data.metrics
            }
            shown.append((run.data.params, repr(values), run.info.end_time, run.info.run_name, run.info.user_id))
        assert shown[0] == shown[1]
        assert run.data.params == {"p": "1", "ö": ""}
        many = store(uri)
        for number in range(3):
            many.create_run(experiments[0], f"n{number}", number, {"k": "v"})
        monkeypatch.setattr(mlflow_rest, "PAGE", 2)
        assert len({run.id for run in many.runs(experiments[0])}) == 4, "all pages"
    finally:
        stop(process)

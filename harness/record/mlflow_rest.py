"""A client of MLflow's REST API for servers that need none of MLflow's plugins.

Importing MLflow takes seconds of CPU, more than the table of a hundred trials; this client has the calls of the mirror
on a pool of open connections. It reads the same environment: MLFLOW_TRACKING_USERNAME, _PASSWORD, _TOKEN,
_INSECURE_TLS, _SERVER_CERT_PATH, _CLIENT_CERT_PATH and MLFLOW_HTTP_REQUEST_*. `serves` is False for everything else
(plugins, AWS signatures, workspaces, a file of credentials), which MLflow's client handles.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util import Retry

from harness.record.mlflow_run import CONTEXT, REFUSED, SOURCE, DatasetInput, Point, Refused, Span, StoredRun
from harness.record.tracking_uri import has_credentials_file, hide
from harness.system import networks
from harness.types import Json

CONNECTIONS = 8  # concurrent calls to a server (benchmarks/tracking.py)
TRANSIENT = (408, 429, 500, 502, 503, 504)  # worth another try, as for MLflow's client
PAGE = 250  # runs of an answer; a thousand take a busy server up to 8 s, near the time limit of 10
API, ARTIFACTS = "/api/2.0/mlflow", "/api/2.0/mlflow-artifacts/artifacts"
_SPECIAL = ("MLFLOW_TRACKING_AUTH", "MLFLOW_TRACKING_AWS_SIGV4", "MLFLOW_WORKSPACE")
_PLUGINS = ("mlflow.request_header_provider", "mlflow.request_auth_provider")


class ServerError(Exception):
    """A server that did not answer, or answered with an error; one line."""


class ServerRefusal(ServerError, Refused):
    """A server that refuses the content of a request."""


class Artifacts(Protocol):
    """Files of runs in a place of their own."""

    def put(self, run: StoredRun, file: Path, folder: str = "") -> None: ...
    def has(self, run: StoredRun, name: str) -> bool: ...
    def get(self, run: StoredRun, name: str, span: Span | None = None) -> bytes: ...


def serves() -> bool:
    """Whether this client can speak to a server: one without MLflow's special authentication and headers."""
    if any(os.environ.get(name) for name in _SPECIAL):
        return False
    if has_credentials_file():
        return False
    return not any(entry_points(group=group) for group in _PLUGINS)


class RestStore:
    """An MLflow server. Every method raises ServerError if the server is away or refuses.

    elsewhere: reads and writes artifacts that do not go through the server.
    """

    connections = CONNECTIONS

    def __init__(self, uri: str, elsewhere: Artifacts) -> None:
        self._host, self._elsewhere = uri.rstrip("/"), elsewhere
        self._session = requests.Session()
        environ = os.environ
        self._session.auth = _credentials(environ)
        self._session.cert = environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")
        self._verify: bool | str | None = environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None
        if environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
            self._verify = False
        tries = int(environ.get("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"))
        retry = Retry(
            tries,
            status_forcelist=TRANSIENT,
            allowed_methods=None,
            backoff_factor=float(environ.get("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "2")),
            raise_on_status=False,
            respect_retry_after_header=False,  # it may ask for an hour; the mirror retries later
        )
        adapter = HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=retry)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def experiment(self, name: str) -> tuple[str, bool] | None:
        """Return the id of an experiment and whether it is active; None if there is none."""
        reply = self._send("GET", f"{API}/experiments/get-by-name", params={"experiment_name": name}, accept=(404,))
        if reply.status_code == 404:
            if "RESOURCE_DOES_NOT_EXIST" not in reply.text:  # for example a web server that is not MLflow
                raise ServerError(_refusal(reply))
            return None
        found = _json(reply)["experiment"]
        return found["experiment_id"], found.get("lifecycle_stage", "active") == "active"

    def create_experiment(self, name: str, location: str | None) -> str:
        place = {"artifact_location": location} if location else {}
        return self._call("experiments/create", {"name": name, **place})["experiment_id"]

    def runs(self, experiment: str, condition: str = "") -> list[StoredRun]:
        """Return the runs of an experiment that meet a condition in MLflow's language."""
        found: list[StoredRun] = []
        query = {"experiment_ids": [experiment], "filter": condition, "max_results": PAGE}
        while True:
            page = self._call("runs/search", query)
            found += map(_run, page.get("runs", ()))
            if not (token := page.get("next_page_token")):
                return found
            query["page_token"] = token

    def create_run(self, experiment: str, name: str, start: int, tags: Mapping[str, str]) -> tuple[StoredRun, bool]:
        """Create a run. The second value is True if the call was repeated, so there may be two such runs."""
        body = {"experiment_id": experiment, "user_id": "unknown", "run_name": name, "start_time": start}
        reply = self._send("POST", f"{API}/runs/create", json=body | {"tags": _pairs(tags)})
        return _run(_json(reply)["run"]), bool(reply.raw.retries and reply.raw.retries.history)

    def log(self, run: str, params: Mapping[str, str], metrics: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Write parameters, points of metrics and tags, in this order; a point that is there stays once."""
        points = [{"key": p.key, "value": _number(p.value), "timestamp": p.time, "step": p.step} for p in metrics]
        self._call("runs/log-batch", {"run_id": run, "params": _pairs(params), "metrics": points, "tags": _pairs(tags)})

    def log_inputs(self, run: str, inputs: Sequence[DatasetInput]) -> None:
        """Write the data sets and embeddings of a run; one that is there stays once."""
        self._call("runs/log-inputs", {"run_id": run, "datasets": [_input(one) for one in inputs]})

    def end(self, run: str, status: str, time: int | None = None) -> None:
        """Set the status of a run and the time of its end, ms."""
        self._call("runs/update", {"run_id": run, "status": status} | ({"end_time": time} if time else {}))

    def delete(self, run: str) -> None:
        self._call("runs/delete", {"run_id": run})

    def put(self, run: StoredRun, file: Path, folder: str = "") -> None:
        """Write a file as an artifact of a run."""
        if (url := self._url(run, f"{folder}/{file.name}" if folder else file.name)) is None:
            return self._elsewhere.put(run, file, folder)
        with open(file, "rb") as content:
            self._send("PUT", url, data=content)

    def has(self, run: StoredRun, name: str) -> bool:
        """Whether a run has an artifact."""
        folder, _, file = name.rpartition("/")
        if self._url(run, name) is None:
            return self._elsewhere.has(run, name)
        path = f"{urlsplit(run.place).path}/{folder}".strip("/")
        reply = _json(self._send("GET", ARTIFACTS, params={"path": path}))
        return any(found["path"] == file for found in reply.get("files", ()))

    def get(self, run: StoredRun, name: str, span: Span | None = None) -> bytes:
        """Return the content of an artifact or, of the range `span`, no more than the server insists on."""
        if (url := self._url(run, name)) is None:
            return self._elsewhere.get(run, name, span)
        if span is None:
            return self._send("GET", url).content
        start, size = span
        if not size:
            return b""  # no range names it
        with self._send("GET", url, headers={"Range": f"bytes={start}-{start + size - 1}"}, stream=True) as reply:
            if reply.status_code == 206:
                return reply.content
            return _read(reply, start + size)[start:]  # sent from its beginning: stop reading where the range ends

    def _url(self, run: StoredRun, name: str) -> str | None:
        """Return the path of an artifact on the server; None if the run's artifacts do not go through it."""
        scheme, host, path, *_ = urlsplit(run.place)
        return f"{ARTIFACTS}{quote(path)}/{quote(name)}" if scheme == "mlflow-artifacts" and not host else None

    def _call(self, what: str, body: Json) -> Json:
        return _json(self._send("POST", f"{API}/{what}", json=body))

    def _send(self, method: str, path: str, accept: tuple[int, ...] = (), **more: Any) -> requests.Response:
        more["timeout"] = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"))
        more |= {"verify": self._verify, "proxies": networks.proxies(self._host)}
        try:
            reply = self._session.request(method, self._host + path, **more)
        except (requests.RequestException, OSError) as error:
            cause = error.args[0] if error.args else error
            raise ServerError(f"no answer: {getattr(cause, 'reason', None) or cause}") from error
        if reply.ok or reply.status_code in accept:
            return reply
        raise (ServerRefusal if reply.status_code in REFUSED else ServerError)(_refusal(reply))


def _credentials(environ: Mapping[str, str]) -> AuthBase | None:
    user, password = environ.get("MLFLOW_TRACKING_USERNAME"), environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return HTTPBasicAuth(user.encode(), password.encode())
    token = environ.get("MLFLOW_TRACKING_TOKEN")
    return _Bearer(token) if token else None


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _read(reply: requests.Response, size: int) -> bytes:
    parts: list[bytes] = []
    for part in reply.iter_content(1 << 16):
        parts.append(part)
        if sum(map(len, parts)) >= size:
            break
    return b"".join(parts)[:size]


def _run(value: Json) -> StoredRun:
    info, data = value["info"], value.get("data", {})
    tags = {tag["key"]: tag.get("value", "") for tag in data.get("tags", ())}
    return StoredRun(info["run_id"], info["artifact_uri"], info["status"], int(info.get("start_time", 0)), tags)


def _pairs(values: Mapping[str, str]) -> list[Json]:
    return [{"key": key, "value": value} for key, value in values.items()]


def _input(one: DatasetInput) -> Json:
    texts = {"source": json.dumps(one.source), "profile": json.dumps(one.profile), "source_type": SOURCE}
    return {"tags": _pairs({CONTEXT: one.context}), "dataset": {"name": one.name, "digest": one.digest, **texts}}


def _number(value: float) -> float | str:
    """A number as JSON carries it: NaN and infinity by name.

    >>> _number(float("-inf"))
    '-Infinity'
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _json(reply: requests.Response) -> Json:
    try:
        return reply.json()
    except ValueError as error:
        raise ServerError(f"the answer to {_what(reply)} is not MLflow's") from error


def _refusal(reply: requests.Response) -> str:
    try:
        said = f": {hide(str(reply.json()['message']))}"
    except (ValueError, KeyError, TypeError):
        said = ""
    if reply.status_code in (401, 403):
        said += f"; {_remedy(reply)}"
    return f"{reply.status_code} {reply.reason} for {_what(reply)}{said}"


def _remedy(reply: requests.Response) -> str:
    """Name what to do about a refused request, from what MLflow answers: an unknown host name, no or wrong
    credentials, or a user without the permission."""
    if reply.text.startswith("Invalid Host header"):
        name = urlsplit(reply.url).netloc.rpartition("@")[2]
        return f"the server accepts other host names only: add {name} to its --allowed-hosts"
    if "Authorization" not in reply.request.headers:
        return "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
    if reply.status_code == 403:
        return "this user lacks the permission (MANAGE writes, READ reads); its owner or an administrator grants it"
    return "user and password (or the token) were sent and are wrong: see MLFLOW_TRACKING_USERNAME and _PASSWORD"


def _what(reply: requests.Response) -> str:
    return f"{reply.request.method} {urlsplit(reply.url).path.removeprefix(API)}"

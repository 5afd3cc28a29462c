"""MLflow stores of both kinds: a local file and a server."""

import pytest
from mlflow_server import free_port, serve, stop

from harness.record import tracking


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    port = free_port()
    process = serve(tmp_path_factory.mktemp("server"), port)
    yield f"http://127.0.0.1:{port}"
    stop(process)


@pytest.fixture(params=["local", "server"])
def uri(request, tmp_path, mlflow_store, monkeypatch):
    if request.param == "local":
        return mlflow_store(tmp_path / "store" / "mlflow.db")
    monkeypatch.setattr(tracking, "EXPERIMENT", request.node.name)
    return request.getfixturevalue("server")

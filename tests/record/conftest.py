"""MLflow stores of both kinds: a local file and a server."""

import pytest
from mlflow_server import running

from harness.record import tracking


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(params=["local", "server"])
def uri(request, tmp_path, mlflow_store, monkeypatch):
    if request.param == "local":
        return mlflow_store(tmp_path / "store" / "mlflow.db")
    monkeypatch.setattr(tracking, "EXPERIMENT", request.node.name)
    return request.getfixturevalue("server")

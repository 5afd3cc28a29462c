"""A real MLflow server to start and kill, and what its client shows of the mirrored trials."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import requests

from harness.record import tracking


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(folder, port):
    """A tracking server on loopback, ready to answer."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/db.sqlite", "--artifacts-destination", str(folder / "art")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # eight processes that are not tested
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **quiet)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                return server
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError("the MLflow server did not start")


@contextmanager
def running(folder):
    """The address of a server that runs inside the context."""
    port = free_port()
    process = serve(folder, port)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def stop(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def contents(uri):
    """Of every trial's MLflow runs, as MLflow's client shows them: id, points of every metric, whether it has ended."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    found = {}
    for run in client.search_runs([experiment.experiment_id] if experiment else [], max_results=1000):
        if "harness.trial" not in run.data.tags:
            continue
        points = {}
        for key in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, key)
            points[key] = sorted((m.step, m.value) for m in history)
        whole = run.info.status != "RUNNING" and "seed" in run.data.params
        found.setdefault(run.data.tags["harness.trial"], []).append((run.info.run_id, points, whole))
    return found


def check_mirror(uri, ledger):
    found = contents(uri)
    assert set(found) == set(ledger.trials)
    for trial_id, runs in found.items():
        ((_, points, whole),) = runs
        assert whole
        curve = ledger.result(trial_id).curve
        assert points.get("epoch/NDCG_at_10", []) == list(enumerate(curve)), "each epoch once"
        assert all(len(history) == 1 for key, history in points.items() if not key.startswith("epoch/"))

"""A real MLflow server that dies in the middle: a warning, and `harness sync` catches up without duplicates."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter

import pytest
import requests
from helpers import SMALL_MODEL, TINY, bench, ended, environment, harness


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(folder, port):
    """A tracking server on loopback, ready to answer."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/db.sqlite", "--artifacts-destination", str(folder / "art")]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if requests.get(f"http://127.0.0.1:{port}/health", timeout=2).ok:
                return server
        except requests.RequestException:
            time.sleep(0.3)
    raise AssertionError("the MLflow server did not start")


def stop(server):
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def mirrored(uri):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("harness")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    return [run for run in runs if "harness.trial" in run.data.tags]


@pytest.mark.slow
def test_a_server_that_dies_costs_a_warning_and_sync_catches_up(dataset, home, tmp_path):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    server = serve(tmp_path / "server", port)
    words = ["--adapters", "id,svd", "--backbones", "sasrec", "--trials", "6", "--tracking", uri]
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(dataset), *TINY, *SMALL_MODEL, *words]
    process = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if list((home / "ledger").glob("*")) and len(ended(home)) >= 4:
            break
        time.sleep(0.05)
    stop(server)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert "spectran" not in out
    assert "svd" in out
    assert err.count("is away") == 1, err
    assert "harness sync" in err

    server = serve(tmp_path / "server", port)
    try:
        first = harness(home, "sync", "--tracking", uri)
        assert first.returncode == 0, first.stderr
        second = harness(home, "sync", "--tracking", uri)
        assert "MLflow has every trial" in second.stdout
        counts = Counter(run.data.tags["harness.trial"] for run in mirrored(uri))
        assert counts == Counter(ended(home))
        local = harness(home, "leaderboard", "--format", "csv")
        remote = harness(home, "leaderboard", "--format", "csv", "--from-mlflow", uri)
        assert remote.returncode == 0, remote.stderr
        assert remote.stdout == local.stdout
    finally:
        stop(server)


def test_no_server_at_all_is_one_clear_line_for_sync_and_no_fault_for_the_bench(dataset, home):
    uri = f"http://user:secret@127.0.0.1:{free_port()}"
    words = ["--adapters", "id", "--backbones", "gru4rec", "--trials", "1", "--tracking", uri]
    process = bench(home, dataset, *words)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("is away") == 1
    synced = harness(home, "sync", "--tracking", uri)
    assert synced.returncode == 2
    assert synced.stderr.startswith("Error: MLflow at http://127.0.0.1")
    assert "secret" not in process.stderr + synced.stderr

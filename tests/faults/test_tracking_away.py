"""A real MLflow server that dies in the middle: a warning, and `harness sync` catches up without duplicates."""

import json
import re
import subprocess
import sys
import time
from collections import Counter

import pytest
import small_homes
import synthetic_ledgers
from command_line import SMALL_MODEL, TINY, bench, ended, environment, harness, harness_process, metrics_of
from dataset_files import make_dataset
from mlflow_server import check_mirror, contents, free_port, running, serve, stop
from proxy import Proxy

from harness.record import mirror, tracking
from harness.record.ledger import Ledger
from harness.report import ledger_frames, tables
from harness.types import HarnessError


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
    words = ["--adapters", "id,svd", "--backbones", "sasrec", "--trials", "8", "--tracking", uri]
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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture
def proxy(server, monkeypatch, request):
    """A way to the server that can fail, and an experiment of the test's own."""
    monkeypatch.setattr(tracking, "EXPERIMENT", request.node.name)
    monkeypatch.setattr(mirror, "RETRY_AFTER", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    found = Proxy(server)
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["away", "slow", 500, 429])
def test_the_mirror_outlives_every_outage_and_catches_up_in_the_run(proxy, home, mode, monkeypatch):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger, warnings = Ledger.open(home), []
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    proxy.mode, proxy.seconds = mode, 4.0
    following = mirror.Mirror(proxy.uri, home, ledger, warnings.append)
    ids = list(ledger.trials)
    for trial_id in ids[:-1]:
        following.put(trial_id)
    deadline = time.monotonic() + 60
    while not warnings and time.monotonic() < deadline:
        time.sleep(0.05)
    proxy.mode = "pass"
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is no outage
    following.put(ids[-1])
    assert following.close(120) == 0
    assert len(warnings) == 1
    assert "is away" in warnings[0]
    assert re.fullmatch(rf"{proxy.uri}/#/experiments/\d+/runs", following.page or "")
    check_mirror(proxy.uri, ledger)


@pytest.mark.slow
def test_a_write_broken_off_at_any_call_is_finished_under_the_same_run(proxy, home):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger, known, broken = Ledger.open(home), {}, 0
    for calls in range(1, 40):
        proxy.mode, proxy.failing = "pass", calls
        try:
            assert tracking.sync(proxy.uri, home, ledger) > 0
        except HarnessError:
            broken += 1
        else:
            break
        finally:
            proxy.mode, proxy.failing = "pass", None
        for trial_id, ((run_id, _, _),) in contents(proxy.uri).items():
            assert known.setdefault(trial_id, run_id) == run_id, "an MLflow run keeps its id"
    assert broken > 8
    check_mirror(proxy.uri, ledger)
    table = tables.build(ledger_frames.build(*tracking.read(proxy.uri, home)))
    address = rf'"tracking":"{proxy.uri}/#/experiments/\d+/runs"'
    assert re.search(address, tables.render(table, "html")), "numbers lead to their runs as from the ledger"
    assert {i: runs[0][0] for i, runs in contents(proxy.uri).items()}.items() >= known.items()
    assert tracking.sync(proxy.uri, home, ledger) == 0


def test_a_damaged_mlflow_file_is_set_aside_and_written_anew(home, capsys):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger, uri = Ledger.open(home), tracking.default_uri(home)
    assert harness_process(home, "sync").returncode == 0  # this process would keep the file open
    file = home / "mlflow" / "mlflow.db"
    content = bytearray(file.read_bytes())
    content[:4096] = bytes(4096)
    file.write_bytes(content)
    with pytest.raises(HarnessError, match=r"mlflow.db is damaged .*harness sync"):
        tracking.read(uri, home)
    process = harness_process(home, "sync")
    assert process.returncode == 0, process.stderr
    assert "mlflow.db.damaged-1" in process.stderr
    assert f"{len(ledger.trials)} trials written" in process.stdout
    assert (home / "mlflow" / "mlflow.db.damaged-1").read_bytes() == bytes(content)
    check_mirror(uri, ledger)


def delete(uri):
    """The experiment, as the server's pages and `mlflow experiments delete` do it."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(client.get_experiment_by_name(tracking.EXPERIMENT).experiment_id)
    return client


def test_a_deleted_experiment_is_told_with_the_way_out_and_that_way_works(home, mlflow_store):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger, uri, warnings = Ledger.open(home), mlflow_store(home / "mlflow" / "mlflow.db"), []
    assert tracking.sync(uri, home, ledger) == len(ledger.trials)
    client = delete(uri)
    remedy = r"deleted the experiment 'harness'.* mlflow experiments restore --experiment-id (\d+), .*--tracking"
    for refused in (lambda: tracking.sync(uri, home, ledger), lambda: tracking.read(uri, home)):
        with pytest.raises(HarnessError, match=remedy) as error:
            refused()
        assert "\n" not in str(error.value)
    following = mirror.Mirror(uri, home, ledger, warnings.append)
    following.put(next(iter(ledger.trials)))
    assert following.close(60) == 1
    assert len(warnings) == 1
    assert "is away" not in warnings[0], "the server answers"
    client.restore_experiment(re.search(remedy, warnings[0]).group(1))
    assert tracking.sync(uri, home, ledger) == 0
    check_mirror(uri, ledger)


def test_a_store_without_our_experiment_is_told_and_none_is_made(home, mlflow_store):
    from mlflow import MlflowClient

    uri = mlflow_store(home / "mlflow" / "mlflow.db")
    client = MlflowClient(tracking_uri=uri)
    client.create_experiment("another's")
    with pytest.raises(HarnessError, match=r"no experiment 'harness'.*harness sync"):
        tracking.read(uri, home)
    assert client.get_experiment_by_name("harness") is None


@pytest.mark.slow
def test_what_mlflow_prints_of_its_runs_does_not_reach_stdout(proxy, home, capfd):
    synthetic_ledgers.write(home, datasets=1, trials=1, seeds=1)
    ledger = Ledger.open(home)
    assert tracking.sync(proxy.uri, home, ledger) == len(ledger.trials)
    tracking.read(proxy.uri, home)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_a_server_absent_at_the_start_that_comes_back_costs_nothing(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "EXPERIMENT", "harness")
    folder = make_dataset(tmp_path / "toy", seed=7)
    home, plain = tmp_path / "home", tmp_path / "plain"
    grid = ["--adapters", "id", "--backbones", "sasrec", "--sampler", "random", "--trials", "3", "--gpu", "0"]
    proxy.mode = 429
    command = [sys.executable, "-m", "harness.cli", "bench", "--datasets", str(folder), *TINY, *SMALL_MODEL, *grid]
    process = subprocess.Popen(
        [*command, "--tracking", proxy.uri], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 200
    while proxy.calls < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    proxy.mode = "pass"
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err.decode().count("is away") <= 1
    before = {i: runs[0][0] for i, runs in contents(proxy.uri).items()}
    check_mirror(proxy.uri, Ledger.open(home))
    grown = bench(home, folder, *grid, "--trials", "4", "--tracking", proxy.uri)
    assert grown.returncode == 0, grown.stderr
    after = {i: runs[0][0] for i, runs in contents(proxy.uri).items()}
    assert before.items() < after.items(), "what was there keeps its MLflow run"
    small_homes.bench(plain, folder, *grid)
    run = min(Ledger.open(home).launches)
    tables = [
        json.loads(harness(h, "leaderboard", "--format", "json", *more).stdout)
        for h, more in ((home, ["--run", run]), (plain, []))
    ]
    assert metrics_of(tables[0]) == metrics_of(tables[1])

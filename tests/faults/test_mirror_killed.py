"""SIGKILL of the MLflow server or of `harness sync` in the middle of a sync: nothing is lost, nothing doubled."""

import json
import subprocess
import sys
from functools import partial

import pytest
import synthetic_ledgers
from command_line import environment, harness
from mlflow_server import contents, free_port, serve, stop
from proxy import Proxy

from harness.record.ledger import Ledger


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["server", "client"])
def test_a_kill_in_the_middle_of_a_sync_loses_and_doubles_nothing(home, tmp_path, victim):
    synthetic_ledgers.write(home, datasets=2, trials=4, seeds=2)
    ledger, port = Ledger.open(home), free_port()
    server = serve(tmp_path / "server", port)
    proxy = Proxy(f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "harness.cli", "sync", "--tracking", proxy.uri]
    written = []
    try:
        for calls, answered in ((7, False), (60, True)):
            sync = subprocess.Popen(command, env=environment(home), stderr=subprocess.PIPE, text=True)
            proxy.kill(calls, partial(stop, server) if victim == "server" else sync.kill, answered=answered)
            _, err = sync.communicate(timeout=200)
            if victim == "server":
                assert sync.returncode == 2, err
                assert err.splitlines()[-1].startswith("Error: MLflow at http://127.0.0.1")
                server = serve(tmp_path / "server", port)
            else:
                assert sync.returncode == -9
            written.append(len(contents(proxy.target)))
        assert 0 < written[1] < len(ledger.trials), "in the middle"
        assert written == sorted(written)
        last = harness(home, "sync", "--tracking", proxy.target)
        assert last.returncode == 0, last.stderr
        assert "MLflow has every trial" in harness(home, "sync", "--tracking", proxy.target).stdout
        found = contents(proxy.target)
        assert {trial_id: len(runs) for trial_id, runs in found.items()} == dict.fromkeys(ledger.trials, 1)
        assert all(whole for ((_, _, whole),) in found.values())
        local, remote = [
            {form: harness(home, "leaderboard", "--format", form, *more).stdout for form in ("csv", "json")}
            for more in ([], ["--from-mlflow", proxy.target])
        ]
        assert remote["csv"] == local["csv"]
        board = json.loads(remote["json"])
        assert board["header"].pop("tracking").startswith(proxy.target), "the link to the runs, which MLflow alone has"
        assert board == json.loads(local["json"])
    finally:
        stop(server)
        proxy.close()

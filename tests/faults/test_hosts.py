"""One bench over three hosts with addresses of their own, a token, and no shared folder."""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import hosts
import pytest
from command_line import bench, bench_words, ended, environment, events, harness, metrics_of
from dataset_files import make_dataset
from processes import count, wait_for

GRID = ["--adapters", "id,spectran,svd", "--backbones", "sasrec", "--sampler", "random", "--pruner", "none"]
# Long enough for what happens to the hosts to happen during the bench.
GRID += ["--tracking", "off", "--budget", "standard", "--trials", "4", "--epochs", "12", "--seeds", "2"]
HEAD, FIRST, SECOND = "head", "one", "two"


@pytest.fixture
def network():
    if why := hosts.missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="h", dir="/tmp") as folder:  # a short path: Ray's sockets are below it
        made = hosts.Network(Path(folder) / "r", [HEAD, FIRST, SECOND])
        made.folder.mkdir()
        try:
            yield made
        finally:
            made.close()


def start_bench(network, home, folder):
    command = [sys.executable, "-m", "harness.cli", *bench_words(folder, *GRID)]
    command = network.words(HEAD, *command, "--address", f"{network.address(HEAD)}:6379")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(home), cwd=home.parent, start_new_session=True, **pipes)


def wait_for_nodes(network, number, seconds=120):
    """Until Ray's own client, on the head's host, sees that many nodes."""
    script = "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False); "
    script += "print(sum(node['Alive'] for node in ray.nodes()))"
    command = network.words(HEAD, sys.executable, "-c", script, f"{network.address(HEAD)}:6379")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.stdout.strip().endswith(str(number)):
            return
        time.sleep(1)
    raise AssertionError(f"no {number} nodes: {asked.stdout} {asked.stderr[-2000:]}")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_hosts_that_join_leave_and_return_give_the_table_of_one_machine(tmp_path, monkeypatch, network):
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "12")  # 60 by default
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")  # a cut cable is noticed after about ten seconds
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("a" * 64)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    folder = make_dataset(tmp_path / "toy", users=800, items=200)
    home = tmp_path / "home"

    network.ray(HEAD, HEAD, "--num-cpus=0")
    wait_for_nodes(network, 1)
    for name in (FIRST, SECOND):
        network.ray(name, HEAD, "--num-cpus=1")
    wait_for_nodes(network, 3)
    process = start_bench(network, home, folder)
    wait_for(home, "epoch", 5, process)
    network.kill(FIRST)  # its trial goes on elsewhere
    wait_for(home, "epoch", count(home, "epoch") + 10, process)
    network.ray(FIRST, HEAD, "--num-cpus=1")  # a power cut later the host returns
    wait_for_nodes(network, 3)
    wait_for(home, "epoch", count(home, "epoch") + 10, process)
    network.cut(SECOND, True)
    wait_for(home, "epoch", count(home, "epoch") + 15, process)
    network.cut(SECOND, False)
    wait_for(home, "epoch", count(home, "epoch") + 5, process)
    network.kill(HEAD)  # and the driver, which runs there
    process.communicate(timeout=60)
    for name in (FIRST, SECOND):
        network.kill(name)

    network.ray(HEAD, HEAD, "--num-cpus=0")
    wait_for_nodes(network, 1)
    network.ray(SECOND, HEAD, "--num-cpus=2")
    wait_for_nodes(network, 2)
    process = start_bench(network, home, folder)
    _, err = process.communicate(timeout=400)
    assert process.returncode == 0, err

    local = bench(tmp_path / "local", folder, *GRID)
    assert local.returncode == 0, local.stderr
    tables = [json.loads(harness(h, "leaderboard", "--format", "json").stdout) for h in (home, tmp_path / "local")]
    assert metrics_of(tables[0]) == metrics_of(tables[1])
    assert set(ended(home)) == set(ended(tmp_path / "local"))
    assert [i for i, n in Counter(ended(home)).items() if n > 1] == []
    assert [e["result"]["reason"] for e in events(home, "ended") if e["result"]["status"] == "failed"] == []

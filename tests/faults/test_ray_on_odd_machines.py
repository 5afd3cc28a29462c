"""A real Ray on machines that are not as one likes them, with a long TMPDIR and no HOME to write to; who may reach it;
and where on a cluster trials go."""

import json
import os
import subprocess
import sys

import pytest

# A cluster as a bench has it; tells what it found, and stays until its input ends.
OWN = """
import json, os, stat, sys
import psutil, ray
from harness.engine import ray_cluster as search
from harness.engine.slots import Layout

@ray.remote
def pid():
    return os.getpid()

with search.cluster(None) as resources:
    worker = ray.get(pid.remote())
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        (process.pid, c.laddr.ip)
        for process in processes for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    }
    found = {
        "cpus": resources["cpus"], "worker": worker, "listening": sorted(listening),
        "gcs": ray.get_runtime_context().gcs_address,
        "folder": os.path.dirname(ray.get_runtime_context().get_temp_dir()),
        "token": os.environ["RAY_AUTH_TOKEN_PATH"],
    }
    print(json.dumps(found), flush=True)
    sys.stdin.read()
"""
# Asks the head who its nodes are, as anybody who found its port could.
CLIENT = """
import sys
from ray._raylet import GcsClient
print(len(GcsClient(address=sys.argv[1]).get_all_node_info(timeout=10)))
"""


def ask(address, **variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | variables
    command = [sys.executable, "-c", CLIENT, address]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_ray_of_a_bench_is_on_loopback_behind_a_token_and_needs_neither_a_short_tmpdir_nor_a_home(tmp_path):
    long = tmp_path / ("x" * 110)
    long.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {"TMPDIR": str(long), "HOME": "/proc"}
    process = subprocess.Popen(
        [sys.executable, "-c", OWN], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    line = process.stdout.readline()
    assert line, process.stderr.read().decode()
    found = json.loads(line)
    try:
        folder, token = found["folder"], found["token"]
        assert os.stat(folder).st_mode & 0o077 == 0
        assert os.stat(token).st_mode & 0o177 == 0
        assert len({pid for pid, _ in found["listening"]}) >= 3, "the head, the node, a worker"
        assert found["worker"] in {pid for pid, _ in found["listening"]}
        assert {ip.removeprefix("::ffff:") for _, ip in found["listening"]} <= {"127.0.0.1", "::1"}
        known = {"RAY_AUTH_MODE": "token", "HOME": str(tmp_path)}
        with open(token) as file:
            allowed = ask(found["gcs"], **known, RAY_AUTH_TOKEN=file.read())
        assert allowed.stdout == "1\n", allowed.stderr
        for refused in (ask(found["gcs"], **known, RAY_AUTH_TOKEN="0" * 64), ask(found["gcs"], HOME=str(tmp_path))):
            assert refused.returncode != 0
            assert refused.stdout == ""
            assert "auth" in refused.stderr.lower(), refused.stderr
    finally:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    assert not os.path.exists(folder)
    assert [path.name for path in long.iterdir() if path.name != f"harness-workers-{os.getuid()}"] == []


@pytest.mark.slow
def test_six_trials_on_two_nodes_of_four_gpus_take_three_of_each(tmp_path, monkeypatch):
    import ray
    from ray import tune
    from ray.cluster_utils import Cluster

    from harness.engine import ray_cluster, ray_tune
    from harness.engine import slots as layouts

    def trial(config):
        node = ray.get_runtime_context().get_node_id()
        slots = layouts.slots_on(ray_cluster.resources_of(node), config["layout"])
        here = [node, *ray.get_gpu_ids()]
        tune.report({"here": json.dumps(here), "slots": slots, "all": ray.get(config["meet"].arrive.remote())})

    class Meeting:
        """Lets nobody go before six are there: what runs at once has to have six places."""

        def __init__(self):
            import asyncio

            self.count, self.full = 0, asyncio.Event()

        async def arrive(self):
            self.count += 1
            if self.count == 6:
                self.full.set()
            await self.full.wait()
            return self.count

    monkeypatch.setenv("HARNESS_TRUSTED_NETWORK", "1")  # the nodes are not on loopback and ask for no token
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=8, num_gpus=4)
        cluster.wait_for_nodes()
        with ray_cluster.cluster(cluster.address) as resources:
            found = layouts.layout(resources, 6, 1, None)
            assert found == layouts.Layout(8, 1, 1.0)
            meet = ray.remote(num_cpus=0, max_concurrency=8)(Meeting).remote()
            tuner = tune.Tuner(
                tune.with_resources(trial, ray_tune.needs(found)),
                param_space={"meet": meet, "layout": found},
                tune_config=tune.TuneConfig(num_samples=6),
                run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
            )
            results = [result.metrics for result in tuner.fit()]
    finally:
        cluster.shutdown()
    places = [json.loads(metrics["here"]) for metrics in results]
    assert len({tuple(place) for place in places}) == 6, "a GPU each"
    nodes = [node for node, _ in places]
    assert sorted(map(nodes.count, set(nodes))) == [3, 3]
    assert [metrics["slots"] for metrics in results] == [4] * 6, "of its own node, of eight in all"


PINNED = """
import json, os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from harness.engine import ray_cluster
with ray_cluster.cluster(None) as resources:
    try:
        with ray_cluster.cluster(None):
            pass
    except Exception as error:
        refused = f"{type(error).__name__}: {error}"
    import ray
    print(json.dumps([resources["cpus"], refused, ray.is_initialized()]))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no set of cores per process")
def test_a_bench_uses_the_cores_that_its_job_may_use_and_leaves_another_session_alone(tmp_path):
    """A part of a node, as SLURM and taskset give it: more trials than cores would share them."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PINNED], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    cpus, refused, running = json.loads(done.stdout.splitlines()[-1])
    assert cpus == 1
    assert refused.startswith("HarnessError: Ray already runs in this Python process")
    assert running

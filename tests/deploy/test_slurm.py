"""deploy/slurm.sbatch against fake srun, scontrol, ray and harness commands that record their calls."""

import os
import re
import signal
import subprocess
import time
from importlib import metadata
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm.sbatch"
FAKES = {
    "srun": 'while [[ $1 == --* ]]; do shift; done; export SLURM_CPUS_ON_NODE=6; exec "$@"',  # a node of its own
    "scontrol": '[ "$1" != show ] || echo node1',
    # as Ray: start, run what follows -- on the head, pass no signal on
    "ray": 'while [ "$1" != -- ]; do shift; done; shift; "$@"',
    "harness": 'stat -c %a "$RAY_AUTH_TOKEN_PATH" "$RAY_TMPDIR" >> "$CALLS"; '
    'wc -c < "$RAY_AUTH_TOKEN_PATH" >> "$CALLS"; trap "exit 143" TERM; touch "$READY"; '
    '[ -z "$STAY" ] || while :; do sleep 0.05; done; exit "$CODE"',
}


@pytest.fixture
def job(tmp_path):
    """Start the script as a job with an id; return its process and the file of calls."""
    for name, body in FAKES.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        path.chmod(0o755)
    (tmp_path / "home").mkdir()

    def start(number, stay="", code="0"):
        calls, ready = tmp_path / f"calls-{number}", tmp_path / f"ready-{number}"
        env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
        env |= {"CALLS": str(calls), "READY": str(ready), "STAY": stay, "CODE": code, "SLURM_JOB_ID": str(number)}
        env |= {"SLURM_JOB_NODELIST": "node[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_CPUS_ON_NODE": "8"}
        env["HARNESS_NODE_TMP"] = str(tmp_path)
        command = ["bash", str(SCRIPT), "bench", "--adapters", "id,svd"]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return process, calls, ready

    return start


def ports(calls):
    line = next(line for line in calls.read_text().splitlines() if line.startswith("ray symmetric-run"))
    first = int(re.search(r"--address node1:(\d+)", line)[1])
    return [first, *map(int, re.findall(r"-port=(\d+)", line))]


def test_it_is_bash():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert f"ray {metadata.version('ray')}" in SCRIPT.read_text(), "the version that parsed its options"


def test_two_jobs_have_ports_of_their_own_and_private_tokens(job, tmp_path):
    ranges = []
    for number in (4711, 4712):
        process, calls, _ = job(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err
        found = ports(calls)
        assert len(set(found)) == len(found) == 11
        assert min(found) >= 10000
        assert max(found) < 32000
        ranges.append(range(min(found), max(found) + 1))
        text = calls.read_text()
        assert f"harness bench --adapters id,svd --address node1:{min(found)}" in text
        assert "600\n700\n64\n" in text, "mode of the token and of the folder; length of the token"
        assert "scontrol requeue" not in text
    assert not set(ranges[0]) & set(ranges[1])
    assert list((tmp_path / "home").iterdir()) == []
    assert not list(tmp_path.glob("h47*"))


def test_sigterm_reaches_the_bench_and_the_job_is_requeued(job, tmp_path):
    process, calls, ready = job(4711, stay="yes")
    while not ready.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 143, out + err
    assert "scontrol requeue 4711" in calls.read_text()
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize("code", ["1", "2", "143"])
def test_a_bench_that_ends_by_itself_is_not_requeued(job, code):
    process, calls, _ = job(4711, code=code)
    process.communicate(timeout=60)
    assert process.returncode == int(code)
    assert "requeue" not in calls.read_text()


def test_ray_knows_every_option(job):
    from ray.scripts import scripts, symmetric_run

    process, calls, _ = job(4711)
    process.communicate(timeout=60)
    line = next(line for line in calls.read_text().splitlines() if line.startswith("ray symmetric-run"))
    words = line.partition(" -- ")[0].split()[2:]
    rest = symmetric_run.curate_and_validate_ray_start_args(list(words))
    options = scripts.start.make_context("start", ["--head", *rest]).params
    assert options["num_cpus"] == 6, "those of the node, not of the script's"
    worker = scripts.start.make_context("start", ["--address", "node1:1", "--block", *rest]).params
    refused = {name: worker[name] for name in ("port", "redis_shard_ports", "include_dashboard")}
    assert set(refused.values()) == {None}, "Ray takes these on the head only"
    assert options["min_worker_port"] < options["max_worker_port"]
    assert symmetric_run.symmetric_run.make_context("_", list(words)).params["min_nodes"] == 2

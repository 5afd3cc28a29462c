"""deploy/ssh.sh against fake ssh, ray and harness commands that record their calls."""

import fcntl
import os
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "ssh.sh"
TRAP = 'trap "echo $0 ended >> $CALLS; exit" TERM HUP'
STAY = "while :; do sleep .05; done"
# The nodes are there once the head and two connections have written their calls, and so can be ended.
STATUS = '[ "$(grep -c -e "^ssh " -e "start --head" "$CALLS")" != 3 ] || echo "$NODES"'
MISSING = '{ echo "bash: ray: command not found"; exit 127; }'
FAKES = {
    "ray": f'[ "$1" = status ] || {TRAP}; echo "ray $RAY_AUTH_MODE $*" >> "$CALLS"; '
    f'case "$1" in status) {STATUS};; *) {STAY};; esac',
    "ssh": f'{TRAP}; echo "ssh $*" >> "$CALLS"; [ -z "$LOST" ] || {MISSING}; {STAY}',
    "harness": 'echo "harness $*" >> "$CALLS"; [ -z "$SIGNALLED" ] || exec "$PYTHON" -c "$SIGNALLED"; '
    'trap "echo bench saved >> $CALLS; exit 143" TERM; '
    'touch "$READY"; if [ -n "$STAYS" ]; then while :; do sleep .05; done; fi; exit "$CODE"',
}
# A bench that counts its signals: it ends a second after the first. Bash could not: it ignores SIGINT as a child does.
COUNT = """
import os, pathlib, signal, sys, time
got = []
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda *_: got.append("bench got a signal\\n"))
pathlib.Path(os.environ["READY"]).touch()
while not got:
    time.sleep(0.02)
time.sleep(1)
with open(os.environ["CALLS"], "a") as calls:
    calls.writelines(got)
sys.exit(143)
"""


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in FAKES.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    calls, ready = tmp_path / "calls", tmp_path / "ready"
    calls.touch()

    def start(*words, terminal=None, **variables):
        nodes = "Active:\n 1 node_a\n 1 node_b\n 1 node_c\nPending:\n (no pending nodes)"
        env = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "READY": str(ready), "NODES": nodes}
        env |= {"CODE": "0", "STAYS": "", "LOST": "", "HARNESS_HEAD": "192.0.2.1", "SIGNALLED": ""} | variables
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if terminal is not None:
            pipes |= {"stdin": terminal, "start_new_session": True}
            pipes["preexec_fn"] = lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # Ctrl-C there becomes SIGINT
        return subprocess.Popen(["bash", str(SCRIPT), *words], env=env, **pipes), calls, ready

    return start


WORDS = ("gpu1", "gpu2", "--", "bench", "--adapters", "id,svd")


@pytest.mark.parametrize("code", ["0", "1", "2"])
def test_the_bench_runs_over_all_hosts_and_ray_ends_with_it(run, code):
    process, calls, _ = run(*WORDS, CODE=code)
    _, err = process.communicate(timeout=60)
    assert process.returncode == int(code), err
    lines = calls.read_text().splitlines()
    assert "harness bench --adapters id,svd --address 192.0.2.1:6379" in lines
    for host in ("gpu1", "gpu2"):
        start = "RAY_AUTH_MODE=token ray start --address=192.0.2.1:6379 --block"
        assert any(line.startswith(f"ssh -tt {host} ") and line.endswith(start) for line in lines)
    assert sum(line.endswith("ended") for line in lines) == 3, "the head and both connections"


def test_sigterm_lets_the_bench_save_its_trials(run):
    process, calls, ready = run(*WORDS, STAYS="yes")
    while not ready.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    lines = calls.read_text().splitlines()
    assert lines.index("bench saved") < min(i for i, line in enumerate(lines) if line.endswith("ended"))


def test_ctrl_c_in_a_terminal_reaches_the_bench_once(run):
    """A second signal would end it at once, without saving."""
    keyboard, terminal = os.openpty()
    process, calls, ready = run(*WORDS, SIGNALLED=COUNT, PYTHON=sys.executable, terminal=terminal)
    while not ready.exists() and process.poll() is None:
        time.sleep(0.02)
    os.write(keyboard, b"\x03")
    process.communicate(timeout=60)
    os.close(keyboard), os.close(terminal)
    assert process.returncode == 143
    assert calls.read_text().splitlines().count("bench got a signal") == 1


def test_a_host_that_cannot_be_reached_is_told(run):
    process, calls, _ = run(*WORDS, LOST="yes", NODES="Active:\n 1 node_a")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search("Ray ended on gpu[12] before the bench began", err)
    assert "ray: command not found" in err
    assert "harness" not in calls.read_text()


@pytest.mark.parametrize("words", [(), ("gpu1",), ("--", "bench"), ("gpu1", "--")])
def test_without_hosts_or_command_it_says_how_it_is_called(run, words):
    process, calls, _ = run(*words)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "usage:" in err
    assert not calls.read_text()


def test_ray_knows_every_option(run):
    from ray.scripts import scripts

    process, calls, _ = run(*WORDS)
    process.communicate(timeout=60)
    lines = calls.read_text().splitlines()
    head = next(line for line in lines if line.startswith("ray token start --head"))
    options = scripts.start.make_context("start", shlex.split(head.partition("start ")[2])).params
    assert (options["head"], options["include_dashboard"], options["block"]) == (True, False, True)
    status = next(line for line in lines if line.startswith("ray token status"))
    assert scripts.status.make_context("status", shlex.split(status.partition("status ")[2])).params["address"]

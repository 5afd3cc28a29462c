"""Benches as processes: started, waited for, killed; and a copy of the package that a test may edit."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
from command_line import bench_words, environment, harness, metrics_of

ROOT = Path(__file__).resolve().parents[2]


def start(home, dataset, *words, source=None, failpoint=""):
    """A bench in a session of its own, as a terminal or a batch system gives it one."""
    env = environment(home) | {"HARNESS_FAILPOINT": failpoint}
    if source is not None:
        env["PYTHONPATH"] = str(source)
    command = [sys.executable, "-m", "harness.cli", *bench_words(dataset, *words)]
    return subprocess.Popen(
        command,
        env=env,
        cwd=home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def lines(home):
    """Whole lines of all ledger segments."""
    return [line for file in (home / "ledger").glob("*.jsonl") for line in file.read_text().split("\n")[:-1]]


def count(home, kind):
    return sum(line.startswith(f'{{"kind":"{kind}"') for line in lines(home))


def wait_for(home, kind, number, process, seconds=400):
    """Until that many events of a kind are in the ledger. Fails if the process ends before."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if count(home, kind) >= number:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {number} events of kind {kind}: {process.poll()} {process.stderr.read()}")


def title(process):
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def offspring(process):
    return psutil.Process(process.pid).children(recursive=True)


def kill_a_worker(process, kind="ResourceTrainable", seconds=60):
    """SIGKILL a process that runs a trial, as soon as there is one: trials are short, and workers come and go. Or one
    that runs another kind of actor."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        for helper in offspring(process):
            if title(helper).startswith(f"ray::{kind}"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    helper.kill()
                    return
        time.sleep(0.01)
    raise AssertionError(f"no trial was seen under way: {process.poll()}")


def alive(processes):
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def sweep(helpers):
    """End what a killed driver left behind; it would go by itself in about a minute."""
    for helper in helpers:
        with contextlib.suppress(psutil.Error):
            helper.kill()
    psutil.wait_procs(helpers, timeout=20)


def copied(folder):
    """The package's source in a folder of its own, to be put first on PYTHONPATH: a test may add to it and edit it."""
    for package in ("harness", "adapters", "backbones", "search_spaces"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def table(home):
    return metrics_of(json.loads(harness(home, "leaderboard", "--format", "json").stdout))

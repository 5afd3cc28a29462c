"""Run the command line: in this process, or in one of its own where the process matters (Ray, kills, full disks)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from harness.cli import main

TINY = ["--encoders", "noise", "--trials", "2", "--epochs", "2", "--seeds", "1", "--kcore", "0"]
SMALL_MODEL = ["--set", "train.d=16", "--set", "train.max_len=8", "--set", "train.batch_size=96"]


def settings(home: Path) -> dict[str, str]:
    """Variables of a command. Threads that wait must not spin: they would take the cores from the tests beside them."""
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    return {"HARNESS_HOME": str(home), "COLUMNS": "160", "NO_COLOR": "1", **threads}


def environment(home: Path) -> dict[str, str]:
    return os.environ | settings(home)


def harness(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process. An exception that it does not report as an error is raised."""
    result = CliRunner().invoke(main, words, env=settings(home))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)


def harness_process(home: Path, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, as a user does."""
    command = [sys.executable, "-m", "harness.cli", *words]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=timeout, check=False)


def bench_words(dataset: Path, *words: str) -> list[str]:
    """The words of a bench of a few seconds; words given later win."""
    return ["bench", "--datasets", str(dataset), *TINY, *SMALL_MODEL, *words]


def bench(home: Path, dataset: Path, *words: str, mlflow: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a small bench in a process of its own. MLflow is off by default: creating its database takes seconds."""
    tracking = [] if mlflow else ["--tracking", "off"]
    return harness_process(home, *bench_words(dataset, *tracking, *words))


def events(home: Path, *kinds: str) -> list[dict[str, Any]]:
    """Ledger events read as the plain JSON lines they are, by this test alone."""
    lines = []
    for file in sorted((home / "ledger").glob("*.jsonl")):
        lines += [json.loads(line) for line in file.read_text().splitlines()]
    return [event for event in lines if not kinds or event["kind"] in kinds]


def ended(home: Path) -> list[str]:
    return [event["id"] for event in events(home, "ended")]


def metrics_of(table: dict[str, Any]) -> Any:
    """What must be equal between two runs of one grid: everything but times and run names."""
    return [[(row["cell"], row["state"], row["metrics"]) for row in section["rows"]] for section in table["sections"]]

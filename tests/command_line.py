"""Run the real command line in a process of its own, the way a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

TINY = ["--encoders", "noise", "--trials", "2", "--epochs", "2", "--seeds", "1", "--kcore", "0"]
SMALL_MODEL = ["--set", "train.d=16", "--set", "train.max_len=8", "--set", "train.batch_size=96"]


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "HARNESS_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "160", "NO_COLOR": "1"}


def harness(home: Path, *words: str, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *words]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=timeout, check=False)


def bench(home: Path, dataset: Path, *words: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """A bench of a few seconds; words given later win."""
    return harness(home, "bench", "--datasets", str(dataset), *TINY, *SMALL_MODEL, *words, **kwargs)


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

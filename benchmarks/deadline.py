"""Does `harness plan --deadline` say what the bench then takes?

A small grid of uneven cells is forecast and run twice: from a calibration alone, and grown, with prices from its own
trials. Both commands are those that a user types; the clock is around the whole bench.

    python benchmarks/deadline.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _measure

GRID = ["--max-history", "30", "--adapters", "id,mlp,spectran", "--encoders", "noise"]
GRID += ["--backbones", "sasrec,gru4rec", "--epochs", "8", "--set", "train.d=32", "--set", "train.max_len=30"]
SIZES = {
    "calibrated": ["--trials", "4", "--seeds", "2"],
    "grown, by its own trials": ["--trials", "8", "--seeds", "3"],
}


def harness(home: str, data: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *words, *GRID, "--datasets", data, "--home", home]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def measure(home: str, data: str, name: str, size: list[str]) -> dict[str, object]:
    begin = time.monotonic()
    told = json.loads(harness(home, data, "plan", *size, "--deadline", "1h", "--json").stdout)
    planned = time.monotonic()
    said = harness(home, data, "bench", *size, "--tracking", "off", "--json").stderr
    took = time.monotonic() - planned
    print(next((line for line in said.splitlines() if line.startswith("Took")), "no comparison"), file=sys.stderr)
    return {
        "forecast": name,
        "trials": sum(c["trials"] + c["seeds"] for c in told["costs"]),
        "planning s": planned - begin,
        "forecast s": told["seconds"],
        "90 % interval": f"{told['low']:.0f} to {told['high']:.0f}",
        "took s": took,
        "error": f"{100 * (told['seconds'] / took - 1):+.0f} %",
        "inside": "yes" if told["low"] <= took <= told["high"] else "no",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Forecasts against real runs")
    parser.add_argument("--data", type=Path, default=_measure.HERE.parent.parent / "shared" / "data")
    data = _measure.ml_100k(parser.parse_args().data)
    with tempfile.TemporaryDirectory() as home:
        harness(home, data, "plan")  # the data are there before the clock starts
        rows = [measure(home, data, name, size) for name, size in SIZES.items()]
    _measure.write(
        "deadline",
        "Forecast against the real run",
        f"`harness plan --deadline 1h --datasets ml-100k {' '.join(GRID)}`, then `harness bench` with the same "
        "words. Three adapters under two backbones; the second row adds trials and seeds to the first one's grid.",
        _measure.table(rows),
    )


if __name__ == "__main__":
    main()

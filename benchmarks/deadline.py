"""Compare the forecast of `harness plan --deadline` with the time that the bench takes.

A small grid of uneven cells is forecast and run twice: first from a calibration only, then enlarged, with costs from
the trials of the first run. Both use the command line; the whole bench is timed.

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
    "enlarged, from its own trials": ["--trials", "8", "--seeds", "3"],
}


def harness(home: str, data: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness.cli", *words, *GRID, "--datasets", data, "--home", home]
    return subprocess.run(command, check=True, capture_output=True, text=True)


def measure(home: str, data: str, name: str, size: list[str]) -> dict[str, object]:
    begin = time.monotonic()
    forecast = json.loads(harness(home, data, "plan", *size, "--deadline", "1h", "--json").stdout)
    planned = time.monotonic()
    log = harness(home, data, "bench", *size, "--tracking", "off", "--json").stderr
    took = time.monotonic() - planned
    print(next((line for line in log.splitlines() if line.startswith("Took")), "no comparison"), file=sys.stderr)
    return {
        "forecast": name,
        "trials": sum(c["trials"] + c["seeds"] for c in forecast["costs"]),
        "planning s": planned - begin,
        "forecast s": forecast["seconds"],
        "90 % interval": f"{forecast['low']:.0f} to {forecast['high']:.0f}",
        "took s": took,
        "error": f"{100 * (forecast['seconds'] / took - 1):+.0f} %",
        "inside": "yes" if forecast["low"] <= took <= forecast["high"] else "no",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare forecasts with real runs")
    parser.add_argument("--data", type=Path, default=_measure.HERE.parent.parent / "shared" / "data")
    data = _measure.ml_100k(parser.parse_args().data)
    with tempfile.TemporaryDirectory() as home:
        harness(home, data, "plan")  # fetch the data before anything is timed
        rows = [measure(home, data, name, size) for name, size in SIZES.items()]
    _measure.write(
        "deadline",
        "Forecast against the real run",
        f"`harness plan --deadline 1h --datasets ml-100k {' '.join(GRID)}`, then `harness bench` with the same "
        "options. Three adapters under two backbones; the second row adds trials and seeds to the grid of the first.",
        _measure.table(rows),
    )


if __name__ == "__main__":
    main()

"""Seconds and peak memory of preparing a data set of MovieLens-32M's size: read, order, filter and describe it.

Each spec runs in a separate process. The events are synthetic (same schema, users, items and skew; no download).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _measure
import numpy as np

USERS, ITEMS, EVENTS = 200_948, 87_585, 32_000_204  # ML-32M
GOAL = 6e9  # bytes
SPECS = ["default", "spectran", "amazon2023", "llm-esr"]


def make(folder: Path, events: int, users: int, items: int) -> None:
    """Write a data set folder with MovieLens' columns: text ids, ratings in halves, each user's times in bursts."""
    import polars as pl

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weights = rng.lognormal(0, 1.2, users)
    lengths = 20 + (weights / weights.sum() * (events - 20 * users)).astype(np.int64)
    lengths[0] += events - lengths.sum()
    user = np.repeat(np.arange(1, users + 1, dtype=np.int32), lengths)
    item = np.minimum((items * rng.random(events, np.float32) ** 4).astype(np.int32) + 1, items)
    start = rng.integers(800_000_000, 1_690_000_000, users)
    clock = np.repeat(start, lengths) + (rng.random(events, np.float32) * 500_000).astype(np.int64) // 20 * 20
    pl.DataFrame(
        {
            "user_id": pl.Series(user).cast(pl.String),
            "item_id": pl.Series(item).cast(pl.String),
            "timestamp": clock,
            "rating": (rng.integers(1, 11, events) / 2).astype(np.float32),
        }
    ).write_parquet(folder / "interactions.parquet")
    titles = [f"Film number {n} (19{n % 100:02d})" for n in range(1, items + 1)]
    names = pl.Series(np.arange(1, items + 1)).cast(pl.String)
    pl.DataFrame({"item_id": names, "title": titles}).write_parquet(folder / "items.parquet")


def child(folder: Path, word: str) -> dict[str, Any]:
    """Prepare `folder` under a preset into an empty home; return seconds, peak bytes and the prepared counts."""
    from harness.data import preparation, reader
    from harness.data.presets import preset

    before, start = _measure.peak_memory(), time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        prepared = preparation.prepare(reader.open_dataset(str(folder), Path(home)), preset(word), Path(home))
        seconds = time.monotonic() - start
    counts = {name: getattr(prepared.card, name) for name in ("users", "items", "events")}
    return {"seconds": seconds, "before": before, "peak": _measure.peak_memory(), **counts}


def in_child(words: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed.")
    return json.loads(done.stdout or "{}")


def row(word: str, measured: dict[str, Any]) -> dict[str, object]:
    return {
        "spec": word,
        **{name: measured[name] for name in ("users", "items", "events")},
        "seconds": round(measured["seconds"]),
        "peak GB": round(measured["peak"] / 1e9, 2),
        "imports GB": round(measured["before"] / 1e9, 2),
        "under 6 GB": "met" if measured["peak"] < GOAL else "missed",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=EVENTS)
    parser.add_argument("--specs", nargs="*", default=SPECS)
    parser.add_argument("--data", type=Path, help="keep the synthetic data set in this folder and reuse it")
    parser.add_argument("--child", nargs="+", metavar="WHAT", help="for internal use")
    options = parser.parse_args()
    if options.child:
        folder, word = Path(options.child[0]), options.child[1]
        if word == "make":
            share = int(options.child[2]) / EVENTS
            make(folder, int(options.child[2]), max(int(USERS * share), 50), max(int(ITEMS * share), 50))
        else:
            print(json.dumps(child(folder, word)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.data or Path(scratch) / "large"
        if not (folder / "items.parquet").is_file():
            in_child([str(folder), "make", str(options.events)])
        rows = [row(word, in_child([str(folder), word])) for word in options.specs]
    about = (
        f"{options.events:,} synthetic interactions with the schema of MovieLens-32M (parquet), prepared under each "
        "spec in a separate process: read, ordered, filtered, written, card with cold shares and the order test. "
        "Peak resident memory in GB of 10⁹ bytes, and the part of it that imports take."
    )
    _measure.write("prepare", "Preparing 32 million interactions", about, _measure.table(rows))


if __name__ == "__main__":
    main()

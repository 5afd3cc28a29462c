"""Lag of a bench's MLflow mirror: trials end at a steady rate, and the mirror's thread writes them over HTTP.

The server is the one of `tracking.py`, on the same machine; a fifth of the trials are confirmations with ranks, spectra
and weights. Lag: age of the oldest trial that has ended and is not yet mirrored, looked at once a second. A rate that
the mirror sustains has a lag that stays; at a higher one the lag grows and `harness sync` or the end of the bench
catches up. 1,000 slots with trials of a minute end 16.7 trials per second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _measure
import ledger as ledgers
import tracking

RATES = (5.0, 10.0, 16.7)  # trials per second
CELLS = len(tracking.ADAPTERS.split(",")) * len(tracking.BACKBONES.split(","))


def feed(home: Path, uri: str, rate: float, seconds: float, first: int) -> dict[str, float]:
    """Hand trials of a home to a mirror, from the `first` on, for `seconds`; return the lags in seconds."""
    from harness.record.ledger import Ledger
    from harness.record.mirror import Mirror

    records = Ledger.open(home)
    warnings: list[str] = []
    ids, put = list(records.trials)[first : first + round(rate * seconds)], {}
    mirror, start, lags, looked = Mirror(uri, home, records, warnings.append), time.monotonic(), [], 0.0
    cpu = time.process_time()
    while len(put) < len(ids):
        now = time.monotonic() - start
        for trial_id in ids[len(put) : round(rate * now)]:
            put[trial_id] = now
            mirror.put(trial_id)
        if now > looked + 1:
            looked, waiting = now, set(mirror._pending) | set(mirror._queue.queue)
            lags.append(now - min((put[trial_id] for trial_id in waiting if trial_id), default=now))
        time.sleep(0.01)
    ended = time.monotonic()
    left = mirror.close(600)
    if left or warnings:
        raise SystemExit(f"{left} trials were not mirrored. {' '.join(warnings)}")
    half = lags[len(lags) // 2 :]
    return {
        "trials": len(ids),
        "median": statistics.median(half),
        "largest": max(lags),
        "last": lags[-1],
        "drained": time.monotonic() - ended,
        "cpu": 1000 * (time.process_time() - cpu) / len(ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="of each rate")
    parser.add_argument("--feed", nargs=5, metavar="HOME URI RATE SECONDS FIRST", help="for internal use")
    options = parser.parse_args()
    if options.feed:
        home, uri, rate, seconds, first = options.feed
        return print(json.dumps(feed(Path(home), uri, float(rate), float(seconds), int(first))))
    counts = [round(rate * options.seconds) for rate in RATES]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as scratch, tracking.server(Path(scratch)) as (uri, database, pids):
        home, data = Path(scratch) / "home", ledgers.dataset(Path(scratch) / "data")
        tracking.fill(home, data, sum(counts) + CELLS, seeds=sum(counts) // (5 * CELLS))
        tracking.wake(uri, pids)
        for number, rate in enumerate(RATES):
            command = [sys.executable, __file__, "--feed", str(home), uri, *map(str, (rate, options.seconds))]
            command.append(str(sum(counts[:number])))
            before = tracking.tree_cpu(pids)
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            found = json.loads(done.stdout)
            rows.append(
                {
                    "trials/s": rate,
                    "trials": found["trials"],
                    "lag s, median of the second half": found["median"],
                    "largest": found["largest"],
                    "last": found["last"],
                    "s until all are mirrored": found["drained"],
                    "client CPU ms per trial": found["cpu"],
                    "server CPU ms per trial": 1000 * (tracking.tree_cpu(pids) - before) / found["trials"],
                }
            )
    about = (
        f"MLflow over {database}, {options.seconds:g} s of each rate. Load of the machine: {os.getloadavg()[0]:.0f}."
    )
    _measure.write("mirror_lag", "Lag of the MLflow mirror", about, _measure.table(rows))


if __name__ == "__main__":
    main()

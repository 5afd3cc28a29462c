"""What another order of equal times does to the rows of a table: gains over `id` under each tie policy.

Input is a publication (`harness publish`) or a home with tables that differ in --tie-policy (see pilot/ties.toml).
There is one comparison per protocol, of one backbone and the rows that have results under every policy. The spread is
the standard deviation of a row's gain over the policies. Another order has other test targets and other training
sequences, so it contains the noise of training too; the half width of the interval (users and seeds) is beside it.
Kendall's tau compares the order of the trained rows with that of the first policy.

    python benchmarks/tie_orders.py results/ml-1m
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import cast

import _measure
import polars as pl
from rank_measures import opened
from scipy import stats

from harness.report import ledger_frames, tables

ROW, SCORE, GAIN, LOW, HIGH = "row", "NDCG@10", "vs_id_percent", "vs_id_low", "vs_id_high"


def frames(folder: Path) -> dict[str, dict[str, pl.DataFrame]]:
    """Protocol -> tie policy -> the newest table of them, in the order of the policies' names (source first)."""
    found: dict[str, dict[str, pl.DataFrame]] = {}
    with opened(folder) as (ledger, files):
        newest = {launch.table: run for run, launch in sorted(ledger.launches.items())}
        for run in sorted(newest.values()):
            launch = ledger.launches[run]
            frame = tables.build(ledger_frames.build(ledger, files, run)).frame().filter(pl.col(SCORE).is_not_null())
            text = pl.when(pl.col("encoder") == "none").then(pl.lit("")).otherwise(" on " + pl.col("encoder"))
            frame = frame.with_columns((pl.col("adapter") + text).alias(ROW))
            found.setdefault(launch.protocol.split, {})[launch.prep.tie_policy] = frame
    return {
        split: dict(sorted(by.items(), key=lambda one: (one[0] != "source", one[0]))) for split, by in found.items()
    }


def lines(by_policy: dict[str, pl.DataFrame]) -> list[dict[str, object]]:
    """One line per row: its gains, their spread, and the half width of the first one's interval."""
    first, *_ = by_policy.values()
    common = [name for name in first[ROW] if all(name in frame[ROW].to_list() for frame in by_policy.values())]
    found = []
    for name in common:
        rows = {policy: frame.row(by_predicate=pl.col(ROW) == name, named=True) for policy, frame in by_policy.items()}
        gains = [row[GAIN] for row in rows.values() if row[GAIN] is not None]
        line: dict[str, object] = {"row": f"`{name}`"}
        line |= {policy: _cell(row, policy == next(iter(rows))) for policy, row in rows.items()}
        line["spread over orders"] = f"{statistics.stdev(gains):.1f}" if len(gains) > 1 else ""
        halves = [(row[HIGH] - row[LOW]) / 2 for row in rows.values() if row[GAIN] is not None]
        found.append(line | {"half an interval": f"{halves[0]:.1f}" if halves else ""})
    return found


def _cell(row: dict[str, float], with_interval: bool) -> str:
    if row[GAIN] is None:
        return f"{row[SCORE]:.4f}"
    between = f" [{row[LOW]:+.1f}, {row[HIGH]:+.1f}]" if with_interval else ""
    return f"{row[SCORE]:.4f} ({row[GAIN]:+.1f} %{between})"


def agreement(by_policy: dict[str, pl.DataFrame]) -> str:
    """Kendall's tau of the order of trained rows under each policy with that under the first."""
    trained = {policy: frame.filter(pl.col("backbone") != "none") for policy, frame in by_policy.items()}
    (first, reference), *others = trained.items()
    parts = []
    for policy, frame in others:
        both = reference.join(frame, on=ROW, suffix="_other")
        tau, _ = cast(tuple[float, float], stats.kendalltau(both[SCORE], both[f"{SCORE}_other"]))
        parts.append(f"{policy} {tau:+.2f}")
    return f"Kendall's tau with the order of rows under {first}: {', '.join(parts)}." if parts else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="publication or home")
    options = parser.parse_args()
    parts = []
    for split, by_policy in frames(options.folder).items():
        parts += [f"## Protocol {split}", _measure.table(lines(by_policy)), agreement(by_policy)]
    about = "Test NDCG@10 and gain over `id` under each order of equal times; spread and half an interval in points."
    _measure.write("tie_orders", "Order of ties", about, *filter(None, parts))


if __name__ == "__main__":
    main()

"""What rank and spectrum of the item table explain: their correlation with validation NDCG@10 over a bench's trials.

Input is a publication (`harness publish`) or a home; its newest table. Only trained trials that ended by themselves
count (a pruned one says how it began), and none on noise or shuffled texts. Three Spearman correlations for each
measure:

- all trials: over every search trial, across adapters and configurations;
- within a row: of the ranks that trials have within their row, so differences between adapters play no part;
- between rows: of the means of the rows' confirmed runs, one point a row.

Intervals: 95 %, bootstrap over rows (2,000 rounds), since trials of a row are not independent. Correlation is no cause:
a learning rate changes both the spectrum and the score.

    python benchmarks/rank_measures.py results/office --backbone sasrec
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import _measure
import numpy as np
import polars as pl
from scipy import stats

from harness.record import artifacts
from harness.record.artifacts import ArtifactSources
from harness.record.ledger import Ledger
from harness.report import ledger_frames
from harness.report.tables import Results
from harness.report.tables._frames import CELL
from harness.workflows import publication

MEASURES = {
    "effective_rank": "effective rank after training",
    "effective_rank_start": "effective rank before training",
    "stable_rank": "stable rank",
    "participation_ratio": "participation ratio",
    "information_abundance": "information abundance",
    "components_90": "components with 90 % of the variance",
    "mean_cosine": "mean cosine of two items",
    "uniformity": "uniformity of items",
    "state_uniformity": "uniformity of states",
    "alignment": "alignment of states and targets",
    "table_mass_beyond_d": "variance along the text's components after d",
    "table_mass_outside_text": "variance along no component of the text",
}
ROUNDS, LEAST = 2_000, 3  # bootstrap rounds; trials of a row that have ranks within it
SCORE, ROW = "best", "row"


def trials_of(results: Results, backbone: str) -> pl.DataFrame:
    """One line per finished trained trial with a backbone: row, role, score and measures (null where not measured)."""
    control = (pl.col("encoder") == "noise") | pl.col("encoder").str.starts_with("shuffled:")
    wanted = (pl.col("backbone") == backbone) & (pl.col("status") == "done") & pl.col(SCORE).is_not_null()
    frame = results.trials.filter(~control, wanted).collect()
    info = [json.loads(text or "{}") for text in frame["info"]]
    columns = {name: pl.Series([facts.get(name) for facts in info], dtype=pl.Float64) for name in MEASURES}
    frame = frame.select(pl.concat_str(list(CELL), separator=" / ").alias(ROW), "role", SCORE).with_columns(**columns)
    return frame.filter(pl.col("effective_rank").is_not_null())


def searched(trials: pl.DataFrame) -> pl.DataFrame:
    return trials.filter(pl.col("role") == "search")


def within(trials: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Ranks of score and measure within their row, from -.5 to .5, in place of the values."""
    kept = searched(trials).drop_nulls(measure).filter(pl.len().over(ROW) >= LEAST)
    centred = [
        ((pl.col(name).rank().over(ROW) - 0.5) / pl.len().over(ROW) - 0.5).alias(name) for name in (SCORE, measure)
    ]
    return kept.with_columns(centred)


def between(trials: pl.DataFrame, measure: str) -> pl.DataFrame:
    confirmed = trials.filter(pl.col("role") == "confirm").drop_nulls(measure)
    return confirmed.group_by(ROW, maintain_order=True).agg(pl.col(SCORE, measure).mean())


KINDS = {
    "all trials": lambda trials, measure: searched(trials).drop_nulls(measure),
    "within a row": within,
    "between rows": between,
}


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; NaN if one of them is constant."""
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return float("nan")
    value, _ = cast(tuple[float, float], stats.spearmanr(x, y))
    return float(value)


def interval(points: pl.DataFrame, measure: str) -> tuple[float, float, float]:
    """Correlation and its interval, resampled by row."""
    x, y = points[measure].to_numpy(), points[SCORE].to_numpy()
    codes = points[ROW].rank("dense").to_numpy().astype(int) - 1
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)] if len(codes) else []
    rng, draws = np.random.default_rng(0), []
    for _ in range(ROUNDS if len(members) > 2 else 0):
        chosen = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        draws.append(correlation(x[chosen], y[chosen]))
    low, high = np.nanpercentile(draws, [2.5, 97.5]) if draws and not np.isnan(draws).all() else (np.nan, np.nan)
    return correlation(x, y), float(low), float(high)


def table(trials: pl.DataFrame) -> list[dict[str, object]]:
    rows = []
    for measure, words in MEASURES.items():
        row: dict[str, object] = {"measure": words}
        for kind, points in KINDS.items():
            value, low, high = interval(points(trials, measure), measure)
            row[kind] = "-" if np.isnan(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(row)
    return rows


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Ledger, ArtifactSources]]:
    """Ledger and ranks of a publication or home."""
    if not (folder / publication.MANIFEST).exists():
        yield Ledger.open(folder), artifacts.sources(folder)
        return
    found = publication.find(folder)
    with found.ledger() as ledger:
        yield ledger, found.sources()


def results_of(folder: Path) -> Results:
    """The newest table of a publication or home, with its trials in memory."""
    with opened(folder) as (ledger, files):
        results = ledger_frames.build(ledger, files)
        return replace(results, trials=results.trials.collect().lazy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="publication or home")
    parser.add_argument("--backbone", default="sasrec", help="its rows only: levels differ between backbones")
    options = parser.parse_args()
    trials = trials_of(results_of(options.folder), options.backbone)
    rows, count = trials[ROW].n_unique(), searched(trials).height
    about = f"{count:,} search trials of {rows} trained rows with {options.backbone}; Spearman's correlation with "
    _measure.write(
        "rank_measures" if options.backbone == "sasrec" else f"rank_measures_{options.backbone}",
        "Rank measures and quality",
        f"{about}validation NDCG@10 and its 95 % interval (rows resampled).",
        _measure.table(table(trials)),
    )


if __name__ == "__main__":
    main()

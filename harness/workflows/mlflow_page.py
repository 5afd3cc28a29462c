"""The page of a bench in MLflow: its report, the headline metric of every row, data sets and embeddings."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from harness.metrics._all import HEADLINE
from harness.record import tracking
from harness.record.launches import LaunchRecord
from harness.record.ledger import Ledger
from harness.record.mlflow_run import DATASET, PART, BenchPage, DatasetInput, Point, metric_name, shortened
from harness.system import parquet
from harness.types import NO_TEXT, Json

SHOWN = ("leaderboard.html", "leaderboard.md", "leaderboard.parquet")
COUNTS = ("users", "items", "events", "valid_targets", "test_targets")  # of a data card
FACTS = ("files", "licence", "citation", "spec")  # of a data card: where it comes from
REST = "\n\nThe full table is in `report/leaderboard.md`."


def show(uri: str, home: Path, ledger: Ledger, report: Path, run: str | None = None) -> bool:
    """Write a report, the HTML file of the newest table, to the MLflow run of the newest launch, or the report of `run`
    to that launch; False if it is there or the launch is not. Raises HarnessError if MLflow refuses."""
    if not ledger.launches:
        return False
    run = run or max(ledger.launches)
    return tracking.show(uri, home, run, page(ledger, ledger.launches[run], report.parent))


def page(ledger: Ledger, launch: LaunchRecord, folder: Path) -> BenchPage:
    """The page of a launch whose report is in `folder`."""
    text = (folder / "leaderboard.md").read_text(encoding="utf-8")
    return BenchPage(
        folder.name,
        tuple(folder / name for name in SHOWN),
        text if len(text) <= PART else text[: PART - len(REST)].rpartition("\n")[0] + REST,
        _metrics(parquet.read(folder / "leaderboard.parquet"), int(launch.time * 1000)),
        [*(_data(name, card) for name, card in launch.data.items()), *_embeddings(ledger, launch)],
    )


def _metrics(rows: pl.DataFrame, time: int) -> list[Point]:
    """The headline metric of each row that has one, as `test/NDCG_at_10/<data set>/<backbone>/<row>`."""
    found = []
    for row in rows.filter(pl.col(HEADLINE).is_not_null()).iter_rows(named=True):
        text = "" if row["encoder"] == NO_TEXT else f" {row['encoder']}"
        name = metric_name("test", HEADLINE, row["dataset"], row["backbone"], row["adapter"] + text)
        found.append(Point(name, row[HEADLINE], time))
    return found


def _data(name: str, card: Json) -> DatasetInput:
    source, profile = ({key: card[key] for key in keys if key in card} for keys in (FACTS, COUNTS))
    return DatasetInput(shortened(name, DATASET), card["hash"], "data", source, profile)


def _embeddings(ledger: Ledger, launch: LaunchRecord) -> list[DatasetInput]:
    """The embeddings that the launch's finished rows read."""
    found = {}
    for study in launch.studies:
        for trial_id in ledger.confirmations(study):
            if (entry := ledger.trials.get(trial_id)) is not None and (inputs := entry.trial.inputs).embedding:
                cell = study.cell
                name = shortened(f"{cell.encoder} of {cell.dataset}", DATASET)
                source = {"encoder": cell.encoder, "data": cell.dataset, "data_hash": inputs.data}
                found[name] = DatasetInput(name, inputs.embedding, "embedding", source, {"basis": inputs.basis})
    return list(found.values())

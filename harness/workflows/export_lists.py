"""Export the top-K lists of a row's test users: those stored at its confirmation, else recomputed from its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import polars as pl
import safetensors.torch
from torch import Tensor

from harness import registry
from harness.data import splits
from harness.data.splits import Prepared, Queries, Split
from harness.metrics._ties import Ranks
from harness.metrics.lists._base import TopLists
from harness.paths import expanded
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.report.row_lookup import LedgerRow
from harness.system import files
from harness.training import ensemble, ranking, trial
from harness.types import HarnessError, Trial
from harness.workflows import export


@dataclasses.dataclass(frozen=True)
class ListsRequest:
    """Lists to export: of the row that `row` names, `top_k` items each.

    ``seed``: of the confirmed run, by default the one with the best validation score; ``dataset``: name or folder of
    the row's data, needed if they are no longer cached; ``launch``: use the table as of this launch; ``fold``: of
    sliding windows, by default the last.
    """

    row: str
    top_k: int
    seed: int | None = None
    dataset: str = ""
    launch: str | None = None
    fold: int | None = None


@dataclasses.dataclass(frozen=True)
class ListsReport:
    """Report on exported lists. ``source``: `stored` or `recomputed`; ``equal``: test ranks equal to the bench's, of
    ``queries``, all of them if the lists were stored."""

    file: Path
    row: str
    trial: str
    seed: int
    top_k: int
    queries: int
    equal: int
    source: str


def write(home: Path, request: ListsRequest, file: Path) -> ListsReport:
    """Write the lists of a row to a Parquet file, one row per place, in the order of the test targets.

    Columns: `query` (i32, number of the test target), `user_id` and `item_id` (str), `rank` (i32, from 1), `score`
    (f32). Raises HarnessError if the file exists, the row has no confirmed run, or its data, text or weights are
    missing or do not reproduce the test ranks of the bench.
    """
    file = expanded(file)
    if file.exists():
        raise HarnessError(f"--output {file} already exists; choose a new file.")
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger, request.launch), request.row)
    chosen = export.run_of(ledger, row, request.seed, request.fold)
    row_lookup.check_components(row, chosen)
    prepared = row_lookup.sequences(home, row, chosen.inputs.data, request.dataset)
    ranks = row_lookup.ranks(home, chosen)
    checked = {"queries": ranks.height, "equal": ranks.height}
    stored = artifacts.load_lists(home, chosen.id) if artifacts.list_length(home, chosen.id) >= request.top_k else None
    frame = None if stored is None else stored.filter(pl.col("rank") <= request.top_k)
    if frame is None:
        split = splits.split(prepared, chosen.protocol)
        assert split.test is not None
        if row.cell.is_ensemble:
            found, lists = _combined(home, ledger, row, chosen, prepared, request.top_k)
        else:
            found, lists = _recomputed(home, row, chosen, prepared, split, request.top_k)
        checked = export.check_ranks(found, split.test.users, chosen, ranks)
        frame = artifacts.lists_frame(split.test.users, lists)
    try:
        with files.atomic(file) as path:
            _with_ids(frame, prepared).write_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise HarnessError(f"--output {file} is not writable: {error}.") from error
    source = "stored" if stored is not None else "recomputed"
    return ListsReport(file, row.words, chosen.id, chosen.seed, request.top_k, source=source, **checked)


def _with_ids(frame: pl.DataFrame, prepared: Prepared) -> pl.DataFrame:
    """Replace user numbers and catalogue rows by the ids of the data set."""
    users = pl.DataFrame({"user": range(len(prepared.users)), "user_id": prepared.users.cast(pl.String)})
    items = pl.DataFrame({"item": range(prepared.catalogue.height), "item_id": prepared.catalogue["item_id"]})
    users, items = users.cast({"user": pl.Int32}), items.cast({"item": pl.Int32})
    joined = frame.join(users, "user", maintain_order="left").join(items, "item", maintain_order="left")
    return joined.select("query", "user_id", "item_id", "rank", "score")


def _combined(
    home: Path, ledger: Ledger, row: LedgerRow, chosen: Trial, prepared: Prepared, k: int
) -> tuple[Ranks, TopLists]:
    """Rank the test with the kept weights of an ensemble's parts."""
    split, arrays = (
        splits.split(prepared, chosen.protocol),
        row_lookup.text(home, row, chosen.inputs.embedding, prepared),
    )
    text_of = ensemble.text_of(trial.spectrum(arrays, split.n_items))
    parts = row_lookup.parts(home, ledger, chosen)
    try:
        _, left = ensemble.run(chosen, parts, split, text_of, ensemble.Settings(top_k=k))
    except trial.TrialFailed as error:
        raise HarnessError(f"{row.words}: {error}") from error
    assert left.lists is not None
    return left.ranks, left.lists


def _recomputed(
    home: Path, row: LedgerRow, chosen: Trial, prepared: Prepared, split: Split, k: int
) -> tuple[Ranks, TopLists]:
    """Rank the test with the kept weights; a baseline is fitted again, which takes no training."""
    assert split.test is not None
    weights = {} if row.cell.is_baseline else safetensors.torch.load_file(row_lookup.weights_file(home, chosen))
    spectrum = trial.spectrum(row_lookup.text(home, row, chosen.inputs.embedding, prepared), split.n_items)
    if row.cell.is_baseline:
        scorer = registry.load(registry.BASELINES, row.cell.adapter)(split, spectrum)

        def scores(queries: Queries) -> Tensor:
            return scorer.scores(queries)

        return ranking.ranks_and_lists(scores, split, split.test, k, filter_seen=chosen.protocol.filter_seen)
    del weights["item_table"]
    try:
        training = trial.Training(chosen, split, spectrum)
        training.model.load_state_dict(weights)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(
            f"The weights of {row.words} do not fit the installed {row.cell.adapter} and {row.cell.backbone}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return training.ranks_and_lists(split.test, k)

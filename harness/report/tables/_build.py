"""Build the table from frames: rank and compare rows, slices and data sets. Pure functions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from harness.metrics._all import HEADLINE
from harness.report.tables import _ensembles as ensembles
from harness.report.tables import _slices as slices
from harness.report.tables._across import Drawn, across, method_of
from harness.report.tables._budget import SearchCurve, best_of, valued
from harness.report.tables._cautions import cautions
from harness.report.tables._format import label
from harness.report.tables._frames import (
    COMING,
    KEY,
    Confirmed,
    ConfirmedRuns,
    Record,
    Results,
    cell_of,
    finite,
    json_object,
)
from harness.report.tables._scores import metrics, samples
from harness.report.tables._section import SectionComparison
from harness.report.tables._table import COSTS, MEASURED, Row, RunSummary, SearchCost, Section, Table, TrialCounts
from harness.report.tables._verdict import verdict
from harness.stats import resampling
from harness.types import BASELINE, EXPECTED, NO_TEXT, Cell, Json, digest


def build(results: Results) -> Table:
    """Rank and compare the results. Equal frames give an equal table.

    Raises HarnessError if the frames are inconsistent (see `ConfirmedRuns`).
    """
    runs = ConfirmedRuns(results)
    records = list(results.cells.sort(KEY).iter_rows(named=True))
    rising = ensembles.with_ensembles(_rising(results.trials), map(cell_of, records))
    header = finite(results.header)
    searches = _searches(results.trials)
    sections, over = [], defaultdict(dict)
    for dataset in sorted({record["dataset"] for record in records}):
        own = [record for record in records if record["dataset"] == dataset]
        data = _DataSet(own, runs.of(dataset), searches, rising)
        parts = data.parts(results.queries)
        for backbone in data.backbones():
            comparison = data.comparison(backbone)
            over[backbone][dataset] = {method_of(one.cell): Drawn.of(one) for one in comparison.ranked}
            sections.append(_section(data, backbone, comparison, header, parts))
    folds = bool((header.get("protocol") or {}).get("folds"))
    comparisons = [across(backbone, over[backbone], folds) for backbone in sorted(over)]
    compared = tuple(one for one in comparisons if one is not None)
    return Table(tuple(metrics()), HEADLINE, header, tuple(sections), compared, results.trials.lazy(), results.spectra)


class _DataSet:
    """The cells of one data set: their scores, with the same user draws for all."""

    def __init__(
        self,
        records: list[Record],
        runs: dict[Cell, Confirmed],
        searches: dict[Cell, pl.DataFrame],
        rising: set[Cell],
    ) -> None:
        self.name = records[0]["dataset"]
        self.records = {cell_of(record): record for record in records}
        self.runs = {cell: runs[cell] for cell in self.records if cell in runs}
        trials = {cell: searches[cell] for cell in self.records if cell in searches}
        planned = {cell: int(self.records[cell]["trials_planned"] or 0) for cell in trials}
        self.budgets = best_of({cell: SearchCurve.of(frame, planned[cell]) for cell, frame in trials.items()})
        first = next(iter(self.runs.values()), None)
        self.draws = _draws(self.name, first) if first else np.empty((0, 0), np.uint8)
        if self.draws.size <= resampling.CELLS:
            self.draws = self.draws.astype(np.float64)  # converted once; multiplied for every row
        self.samples = samples(self.runs, self.draws, rising)

    def backbones(self) -> list[str]:
        """Return the backbones of its sections; `none` only if just baselines are planned."""
        return sorted({cell.backbone for cell in self.records if not cell.is_baseline}) or [BASELINE]

    def members(self, backbone: str) -> list[Cell]:
        return [cell for cell in self.records if cell.backbone in (backbone, BASELINE)]

    def comparison(self, backbone: str) -> SectionComparison:
        scored = [self.samples[cell] for cell in self.members(backbone) if cell in self.samples]
        return SectionComparison(scored, self.draws)

    def parts(self, queries: pl.DataFrame) -> list[slices.SliceDraws]:
        return slices.parts(self.name, queries.filter(pl.col("dataset") == self.name), self.runs)


def _draws(name: str, confirmed: Confirmed) -> np.ndarray:
    """Return the resampled users (R, U) of a data set or, of sliding windows, the resampled folds."""
    if confirmed.folds is not None:
        return confirmed.folds.draws(seed=int(digest(name)[:8], 16))  # data sets have folds of their own
    return resampling.user_draws(len(np.unique(confirmed.users)))


def _searches(trials: pl.LazyFrame) -> dict[Cell, pl.DataFrame]:
    """Return the numbers and values of each cell's search."""
    frame = valued(trials.lazy().filter(pl.col("role") == "search")).collect()
    return {Cell(*key): part for key, part in frame.partition_by(KEY, as_dict=True).items()}


def _rising(trials: pl.LazyFrame) -> set[Cell]:
    """Return the cells whose best epoch is the last allowed one in more than half of the seeds."""
    confirmed = (pl.col("role") == "confirm") & (pl.col("status") == "done") & (pl.col("epochs") > 0)
    frame = trials.lazy().select(*KEY, "role", "status", "best_epoch", "epochs").filter(confirmed).collect()
    last = pl.col("best_epoch") == pl.col("epochs") - 1  # neither patience nor a pruner stops a run there
    rising = frame.group_by(KEY).agg(last.mean().alias("share")).filter(pl.col("share") > 0.5)
    return {cell_of(record) for record in rising.iter_rows(named=True)}


def _section(
    data: _DataSet, backbone: str, comparison: SectionComparison, header: Json, parts: list[slices.SliceDraws]
) -> Section:
    members = data.members(backbone)
    rows = _rows(data, members, comparison)
    users = next((data.runs[cell].n_users for cell in members if cell in data.samples), None)
    card = (header.get("data") or {}).get(data.name) or {}
    components = _components(header.get("components") or {}, backbone, rows)
    pace = next((facts["pace"] for facts in components.values() if "pace" in facts), 1)
    remarks = [f"{name.partition('/')[2]}: {facts['note']}" for name, facts in components.items() if "note" in facts]
    protocol = header.get("protocol") or {}
    remarks += _held_out(protocol, rows) + _of_folds(protocol) + _of_variants(components, rows) + _in_parts(rows)
    unfinished = COMING if "at_trials" in header else (*COMING, "partial")
    trained = [row for row in rows if not row.cell.is_baseline]
    coming = sum(row.state in unfinished for row in trained)
    untested = sum(row.state == "partial" for row in trained) if "at_trials" in header else 0
    doubts = [
        *cautions(rows, card, header.get("ties", EXPECTED), bool(protocol.get("folds"))),
        *comparison.unresolved(),
        *_untested(untested, header),
    ]
    return Section(
        dataset=data.name,
        backbone=backbone,
        test_users=users,
        card=card,
        rows=tuple(rows),
        pace=pace,
        remarks=(*remarks, *ensembles.remarks(comparison)),
        cautions=tuple(doubts),
        verdict=verdict(
            comparison,
            None if protocol.get("folds") else users,
            coming,
            (untested, sum(bool(row.metrics) for row in trained)),
        ),
        slices=tuple(part.of([row.cell for row in rows]) for part in parts),
        pairs=comparison.pairs,
    )


def _untested(rows: int, header: Json) -> list[str]:
    """Warn of a cut budget at which rows have a test only if their early winner was confirmed."""
    if not rows:
        return []
    return [
        f"{rows} trained row{'s have' if rows > 1 else ' has'} no test at {header['at_trials']} trials: a later trial "
        "was better, so the best of these was never confirmed. The other rows are chosen by that outcome; compare "
        "budgets by the validation scores."
    ]


def _held_out(protocol: Json, rows: list[Row]) -> list[str]:
    """Name the trained rows without text, whose vectors of held-out items mean nothing."""
    names = [label(row.cell) for row in rows if row.cell.encoder == NO_TEXT and not row.cell.is_baseline]
    if not protocol.get("cold_items") or not names:
        return []
    return [
        f"{', '.join(names)}: held-out items keep their untrained random vectors, so the score on cold targets is no "
        "result of the method. It may lie above or below chance, since training moves the vectors of all other items."
    ]


def _of_folds(protocol: Json) -> list[str]:
    """State how scores of sliding windows are computed, and what their intervals cover."""
    folds = protocol.get("folds")
    if not folds:
        return []
    wide = " With two folds, intervals have one degree of freedom: they are wide." if folds == 2 else ""
    return [
        f"Scores are means over {folds} test windows of the mean over the users of each, with a model trained for each "
        "window; the search saw only the earliest. Intervals are over windows, users and seeds. Parts of the test "
        f"are means over the users of all windows, with intervals over users and seeds.{wide}"
    ]


def _of_variants(components: Json, rows: list[Row]) -> list[str]:
    """Name the rows with several texts an item that train on the mean of the texts."""
    mean = {name.partition("/")[2] for name, facts in components.items() if facts.get("reads_mean")}
    names = {row.cell.adapter for row in rows if row.cell.has_variants and row.cell.is_trained}
    named = sorted(name for name in names if name.partition("[")[0] in mean)
    return [f"Trained on the mean of an item's texts, not on one drawn at each step: {', '.join(named)}."] * bool(named)


def _in_parts(rows: list[Row]) -> list[str]:
    """Name the rows with a run whose batches were cut in parts because the GPU's memory ran out."""
    names = [label(row.cell) for row in rows if row.fit is not None and row.fit.info.get("accumulated")]
    return [f"Batches in two parts, out of GPU memory: {', '.join(names)}."] if names else []


def _components(components: Json, backbone: str, rows: list[Row]) -> dict[str, Json]:
    """Return the header's facts about the components of a section, the backbone first."""
    bare = [f"backbones/{backbone.partition('[')[0]}"]
    bare += [f"adapters/{row.cell.adapter.partition('[')[0]}" for row in rows if row.cell.is_trained]
    return {name: components[name] for name in dict.fromkeys(bare) if name in components}


def _rows(data: _DataSet, members: list[Cell], comparison: SectionComparison) -> list[Row]:
    """Return the rows of one section, best first, holes last."""
    most = _most([data.records[cell] for cell in members if cell.is_trained])
    rows = [_row(data, cell, comparison, most) for cell in members]
    costs = [(row.metrics[HEADLINE].mean if row.metrics else None, _compared(row.costs)) for row in rows]
    rows = [replace(row, front=front) for row, front in zip(rows, fronts(costs), strict=True)]
    return sorted(rows, key=lambda row: (row.rank is None, row.rank, row.cell.is_baseline, row.cell))


@dataclass(frozen=True)
class _Most:
    """Largest planned trials, seeds and seconds among the trained rows of a section; trials among rows limited by
    trials, seconds among rows limited by time."""

    trials: int
    seeds: int
    seconds: float


def _most(records: list[Record]) -> _Most:
    trials = [_planned(r) for r in records if r["cell_seconds"] is None]
    seconds = [float(r["cell_seconds"]) for r in records if r["cell_seconds"] is not None]
    seeds = [int(r["seeds_planned"] or 0) for r in records]
    return _Most(max(trials, default=0), max(seeds, default=0), max(seconds, default=0.0))


def _planned(record: Record) -> int:
    """Planned trials of a row's search, or of the one whose winner it trains."""
    return int(record["trials_planned"] or record["source_trials"] or 0)


def _less(record: Record, most: _Most) -> bool:
    """Whether a trained row has a smaller plan than others of its section.

    Fewer trials within the same time limit are not a smaller plan, since slow trials cause them; fewer than those of a
    row without a limit are.
    """
    if record["state"] == "skipped":
        return False
    limit = record["cell_seconds"]
    fewer = _planned(record) < most.trials or (limit is not None and limit < most.seconds)
    return fewer or int(record["seeds_planned"] or 0) < most.seeds


def _row(data: _DataSet, cell: Cell, comparison: SectionComparison, most: _Most) -> Row:
    record, scores, runs = data.records[cell], comparison.get(cell), data.runs.get(cell)
    trials = TrialCounts(*(int(record[f"trials_{name}"] or 0) for name in ("done", "pruned", "failed", "planned")))
    marks = comparison.marks(scores) if scores else []
    seeds_done, seeds_planned = int(record["seeds_done"] or 0), int(record["seeds_planned"] or 0)
    if scores and (trials.done + trials.pruned < trials.planned or seeds_done < seeds_planned):
        marks.append("short")
    if cell.is_trained and _less(record, most):
        marks.append("less")
    seconds, fit = float(record["search_seconds"] or 0), _fit(cell, runs.runs) if runs else None
    return Row(
        cell=cell,
        state=record["state"],
        reason=record["reason"] or "",
        rank=comparison.rank(scores) if scores else None,
        marks=tuple(marks),
        metrics=comparison.intervals(scores) if scores else {},
        vs_id=comparison.vs_id(scores) if scores else None,
        vs_rival=comparison.vs_rival(scores) if scores else None,
        trials=trials,
        search_seconds=seconds,
        spent=_spent(record),
        seeds_done=seeds_done,
        seeds_planned=seeds_planned,
        fit=fit,
        group=comparison.group(scores) if scores else "",
        first=comparison.stability(scores) if scores else None,
        tied=scores.tied if scores else None,
        best_of=data.budgets.get(cell, ()),
        costs=_costs(fit, seconds if trials.planned else 0.0),
        front=(),
    )


def _spent(record: Record) -> SearchCost:
    searched = record["searched"]
    return SearchCost(
        epochs=int(record["search_epochs"] or 0),
        searched=None if searched is None else tuple(searched),
        shared=json_object(record["shared"], f"{cell_of(record)}: shared"),
        tuned=record["tuned"] or "",
        setting=record["setting"] or "",
        warm_start=record["warm_start"] or "",
        source_trials=record["source_trials"] or 0,
        cell_seconds=record["cell_seconds"],
    )


def _costs(fit: RunSummary | None, search_seconds: float) -> dict[str, float | None]:
    costs = {"search_seconds": search_seconds}
    if fit is not None:
        costs |= {"parameters": fit.parameters, "train_seconds": fit.seconds}
        costs |= {name: fit.info.get(name) for name in MEASURED}
    return {name: costs.get(name) for name in COSTS}


def _compared(costs: dict[str, float | None]) -> dict[str, float | None]:
    """Return the costs but peak memory, which depends on what the process ran before."""
    return {name: cost for name, cost in costs.items() if name != "peak_mb"}


def fronts(rows: list[tuple[float | None, dict[str, float | None]]]) -> list[tuple[str, ...]]:
    """Return, for each (score, costs), the costs for which no other row is at least as good and as cheap, and better
    in one."""

    def beaten(name: str, score: Any, cost: Any) -> bool:
        points = [(s, c[name]) for s, c in rows if s is not None and c[name] is not None]
        return any(s >= score and c <= cost and (s, c) != (score, cost) for s, c in points)

    return [
        tuple(name for name, cost in costs.items() if None not in (score, cost) and not beaten(name, score, cost))
        for score, costs in rows
    ]


def _fit(cell: Cell, runs: list[Record]) -> RunSummary:
    infos = [json_object(run["info"], f"{cell}, seed {run['seed']}: info") for run in runs]
    parameters = [run["parameters"] for run in runs if run["parameters"] is not None]
    return RunSummary(
        valid=_mean(run["best_valid"] for run in runs),
        seconds=_mean(run["seconds"] for run in runs),
        parameters=max(parameters, default=None),
        effective_rank=_mean(run["effective_rank"] for run in runs),
        params=json_object(runs[0]["params"], f"{cell}: params"),
        info={key: _combined([info.get(key) for info in infos]) for key in sorted(set().union(*infos))},
    )


def _combined(values: list[Any]) -> Any:
    """Combine a diagnostic of several runs: the mean of numbers, else the first run's value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return _mean(numbers) if numbers else values[0]


def _mean(values: Iterable[float | None]) -> float | None:
    finite_values = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(finite_values)) if finite_values else None

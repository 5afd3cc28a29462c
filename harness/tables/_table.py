"""The table that every format renders: sections of ranked rows, and holes where no result is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from harness import stats
from harness.metrics._all import HEADLINE
from harness.tables._frames import KEY, Confirmed, Results, cell_of, confirmed, finite, json_object
from harness.tables._pairs import Pairs, pairs
from harness.tables._sample import Gain, Sample, gain, metrics, sample
from harness.types import BASELINE, NO_TEXT, Cell

ALPHA = 0.05
REFERENCE = "id"  # the adapter without text that every other is measured against


@dataclass(frozen=True)
class Trials:
    """What a cell's search came to, in trials."""

    done: int
    pruned: int
    failed: int
    planned: int


@dataclass(frozen=True)
class Fit:
    """The confirmed runs of a row: means over seeds of validation NDCG@10, training seconds, effective rank and the
    numbers in info; parameters trained; the configuration that the search chose."""

    valid: float | None
    seconds: float | None
    parameters: int | None
    effective_rank: float | None
    params: dict[str, Any]
    info: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One cell in one section. Without a test result it is a hole: ``fit`` and ``rank`` are None, ``metrics`` empty.

    ``marks``: ``best``, ``second``, ``tied`` (not distinguishable from the best), ``differs`` (from `id`),
    ``short`` (had less than planned).
    """

    cell: Cell
    state: str
    reason: str
    rank: int | None
    marks: tuple[str, ...]
    metrics: dict[str, stats.Interval]
    vs_id: Gain | None
    vs_rival: Gain | None
    trials: Trials
    search_seconds: float
    seeds_done: int
    seeds_planned: int
    fit: Fit | None


@dataclass(frozen=True)
class Section:
    """One data set and backbone; the data set's baselines are rows of each of its sections. ``test_users``: users
    that each row ranks the target of, None while there is no result. ``card``: what is known of the data set.
    ``pace``: epochs of a row for each of the budget's. ``remarks``: cautions of its backbone and adapters.
    ``pairs``: every two rows compared, None while there is no result."""

    dataset: str
    backbone: str
    test_users: int | None
    card: dict[str, Any]
    rows: tuple[Row, ...]
    pace: int = 1
    remarks: tuple[str, ...] = ()
    pairs: Pairs | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Table:
    """Sections, metrics in column order, the headline metric that ranks the rows, and what all of it rests on.

    ``trials``: every trial of the table's cells, as `Results` has them."""

    metrics: tuple[str, ...]
    headline: str
    header: dict[str, Any]
    sections: tuple[Section, ...]
    trials: pl.LazyFrame = field(repr=False, compare=False)

    def frame(self) -> pl.DataFrame:
        """The table wide: a row a row of every section, holes included, numbers as they are, null where none is."""
        records = [_record(section, row, self.metrics) for section in self.sections for row in section.rows]
        frame = pl.DataFrame(records, infer_schema_length=None)
        unknown = [name for name, dtype in frame.schema.items() if dtype == pl.Null]
        words = [name for name in unknown if name.endswith("_against")]
        return frame.cast({name: pl.String if name in words else pl.Float64 for name in unknown})


def build(results: Results) -> Table:
    """Rank the results. Pure: equal frames give an equal table.

    Raises HarnessError if the frames contradict themselves or one another (`confirmed` lists how).
    """
    runs = confirmed(results)
    cells = {cell_of(record): record for record in results.cells.sort(KEY).iter_rows(named=True)}
    header = finite(results.header)
    sections = []
    for dataset in sorted({cell.dataset for cell in cells}):
        own = [cell for cell in cells if cell.dataset == dataset]
        samples = _samples(own, runs)
        for backbone in _backbones(own):
            members = [cell for cell in own if cell.backbone in (backbone, BASELINE)]
            versus = _Field([samples[cell] for cell in members if cell in samples])
            rows = _rows([cells[cell] for cell in members], versus, runs)
            users = next((len(samples[cell].users) for cell in members if cell in samples), None)
            card = (header.get("data") or {}).get(dataset) or {}
            said = _said(header.get("components") or {}, backbone, rows)
            pace = next((own["pace"] for own in said.values() if "pace" in own), 1)
            remarks = tuple(f"{name.partition('/')[2]}: {own['note']}" for name, own in said.items() if "note" in own)
            sections.append(Section(dataset, backbone, users, card, tuple(rows), pace, remarks, versus.pairs))
    return Table(tuple(metrics()), HEADLINE, header, tuple(sections), results.trials)


def _said(components: dict[str, Any], backbone: str, rows: list[Row]) -> dict[str, dict[str, Any]]:
    """What the header says of the components of a section, the backbone first."""
    bare = [f"backbones/{backbone.partition('[')[0]}"]
    bare += [f"adapters/{row.cell.adapter.partition('[')[0]}" for row in rows if not row.cell.is_baseline]
    return {name: components[name] for name in dict.fromkeys(bare) if name in components}


def _backbones(cells: list[Cell]) -> list[str]:
    """The backbones of a data set's sections; baselines have one of their own only where nothing else is planned."""
    return sorted({cell.backbone for cell in cells if not cell.is_baseline}) or [BASELINE]


def _samples(cells: list[Cell], runs: dict[Cell, Confirmed]) -> dict[Cell, Sample]:
    """The scores of a data set's cells, all under the same draws of users."""
    ready = [cell for cell in cells if cell in runs]
    draws = stats.user_draws(len(np.unique(runs[ready[0]].users))) if ready else np.empty((0, 0), np.uint8)
    return {cell: sample(cell, runs[cell], draws) for cell in ready}


def _rows(records: list[dict[str, Any]], versus: _Field, runs: dict[Cell, Confirmed]) -> list[Row]:
    """Rows of one section, best first, holes last."""
    rows = [_row(record, versus, runs.get(cell_of(record))) for record in records]
    return sorted(rows, key=lambda row: (row.rank is None, row.rank, row.cell.is_baseline, row.cell))


class _Field:
    """The rows of one section that have results, compared with one another."""

    def __init__(self, samples: list[Sample]) -> None:
        self.ranked = sorted(samples, key=lambda s: (-s.headline, s.cell))
        self.by_cell = {sample.cell: sample for sample in self.ranked}
        self.reference = next((s for s in self.ranked if _is_reference(s.cell)), None)
        self.pairs = pairs(self.ranked) if self.ranked else None
        self.p_best = self.pairs.adjusted(self.ranked[0].cell) if self.pairs else {}
        self.p_id = self.pairs.adjusted(self.reference.cell) if self.pairs and self.reference else {}

    def rank(self, row: Sample) -> int:
        return 1 + sum(other.headline > row.headline for other in self.ranked)

    def vs_id(self, row: Sample) -> Gain | None:
        if self.reference is None or row is self.reference:
            return None
        return gain(row, self.reference, self.p_id[row.cell])

    def vs_rival(self, row: Sample) -> Gain | None:
        """The gain over the best row that is neither this one nor a baseline."""
        rivals: Iterable[Sample] = (s for s in self.ranked if s is not row and not s.cell.is_baseline)
        rival = next(iter(rivals), None)
        return gain(row, rival) if rival else None

    def marks(self, row: Sample) -> list[str]:
        place = {1: "best", 2: "second"}.get(self.rank(row))
        p_best = self.p_best.get(row.cell, 0.0)
        p_id = self.p_id.get(row.cell, 1.0)
        found = (place, p_best >= ALPHA and "tied", p_id < ALPHA and "differs")
        return [mark for mark in found if mark]


def _is_reference(cell: Cell) -> bool:
    return cell.adapter == REFERENCE and cell.encoder == NO_TEXT and not cell.is_baseline


def _row(record: dict[str, Any], versus: _Field, runs: Confirmed | None) -> Row:
    cell = cell_of(record)
    own = versus.by_cell.get(cell)
    trials = Trials(*(int(record[f"trials_{name}"] or 0) for name in ("done", "pruned", "failed", "planned")))
    marks = versus.marks(own) if own else []
    seeds_done, seeds_planned = int(record["seeds_done"] or 0), int(record["seeds_planned"] or 0)
    if own and (trials.done + trials.pruned < trials.planned or seeds_done < seeds_planned):
        marks.append("short")
    return Row(
        cell=cell,
        state=record["state"],
        reason=record["reason"] or "",
        rank=versus.rank(own) if own else None,
        marks=tuple(marks),
        metrics=own.intervals() if own else {},
        vs_id=versus.vs_id(own) if own else None,
        vs_rival=versus.vs_rival(own) if own else None,
        trials=trials,
        search_seconds=float(record["search_seconds"] or 0),
        seeds_done=seeds_done,
        seeds_planned=seeds_planned,
        fit=_fit(cell, runs.runs) if runs else None,
    )


def _fit(cell: Cell, runs: list[dict[str, Any]]) -> Fit:
    infos = [json_object(run["info"], f"{cell}, seed {run['seed']}: info") for run in runs]
    parameters = [run["parameters"] for run in runs if run["parameters"] is not None]
    return Fit(
        valid=_mean(run["best_valid"] for run in runs),
        seconds=_mean(run["seconds"] for run in runs),
        parameters=max(parameters, default=None),
        effective_rank=_mean(run["effective_rank"] for run in runs),
        params=json_object(runs[0]["params"], f"{cell}: params"),
        info={key: _agreed([info.get(key) for info in infos]) for key in sorted(set().union(*infos))},
    )


def _agreed(values: list[Any]) -> Any:
    """A diagnostic of several runs: the mean of numbers, or else the first run's value."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return _mean(numbers) if numbers else values[0]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _record(section: Section, row: Row, metrics: tuple[str, ...]) -> dict[str, Any]:
    fit = row.fit
    record = {"dataset": section.dataset, "backbone": section.backbone, "rank": row.rank}
    record |= {"adapter": row.cell.adapter, "encoder": row.cell.encoder, "baseline": row.cell.is_baseline}
    record |= {"state": row.state, "reason": row.reason, "marks": " ".join(row.marks)}
    for name in metrics:
        value = row.metrics.get(name)
        ends = {"": "mean", "_low": "low", "_high": "high"}
        record |= {f"{name}{end}": value and getattr(value, key) for end, key in ends.items()}
    record |= _gain_record("vs_id", row.vs_id) | _gain_record("vs_rival", row.vs_rival)
    record |= {f"trials_{key}": value for key, value in vars(row.trials).items()}
    record |= {"seeds_done": row.seeds_done, "seeds_planned": row.seeds_planned}
    record |= {"search_seconds": row.search_seconds, "train_seconds": fit and fit.seconds}
    record |= {"parameters": fit and fit.parameters, "effective_rank": fit and fit.effective_rank}
    return record | {"valid": fit and fit.valid}


def _gain_record(prefix: str, gain: Gain | None) -> dict[str, Any]:
    against = gain and f"{gain.against.adapter} / {gain.against.encoder}"
    numbers = {f"{prefix}_{name}": gain and getattr(gain, name) for name in ("percent", "low", "high", "p")}
    return {f"{prefix}_against": against, **numbers}

"""The table that every format renders: sections of ranked rows, and holes where no result is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from harness.report.tables._across import Across
from harness.report.tables._budget import BestOf
from harness.report.tables._pairs import Pairs
from harness.report.tables._scores import Gain
from harness.report.tables._slices import Slice
from harness.stats import resampling
from harness.types import Cell

SPECTRAL = ("effective_rank_start", "text_mass_beyond_d", "table_mass_beyond_d", "table_mass_outside_text")  # of info
COSTS = ("parameters", "train_seconds", "search_seconds", "peak_mb", "energy_wh")


@dataclass(frozen=True)
class TrialCounts:
    """What a cell's search came to, in trials."""

    done: int
    pruned: int
    failed: int
    planned: int


@dataclass(frozen=True)
class RunSummary:
    """The confirmed runs of a row: means over seeds of validation NDCG@10, training seconds, effective rank and the
    numbers in info; parameters trained; the configuration that the search chose."""

    valid: float | None
    seconds: float | None
    parameters: int | None
    effective_rank: float | None
    params: dict[str, Any]
    info: dict[str, Any]


@dataclass(frozen=True)
class SearchCost:
    """What a row's search was given and took: its line of the parity certificate.

    ``epochs``: of all search trials together. ``searched``: the dimensions of its space, None if the launch did not
    record them. ``tuned``: ``searched``, ``default`` (no search), ``fixed`` (every parameter given), ``nothing`` (a
    baseline). ``setting``: name of the published setting that its space holds, empty for none. ``warm_start``: data set
    whose best configurations the search began with, empty for none. ``cell_seconds``: time limit of its cell, None
    where trials are the limit.
    """

    epochs: int
    searched: tuple[str, ...] | None
    tuned: str
    setting: str
    warm_start: str
    cell_seconds: float | None


@dataclass(frozen=True)
class Row:
    """One cell in one section. Without a test result it is a hole: ``fit`` and ``rank`` are None, ``metrics`` empty.

    ``marks``: ``best``, ``second``, ``tied`` (not distinguishable from the best), ``differs`` (from `id`),
    ``short`` (had less than planned), ``less`` (was planned less than other rows of the section), ``rising`` (in most
    seeds the best epoch is the last one allowed). ``first``: share of resamples of users and seeds in which the row
    ranks first. ``tied``: share of test targets that share their score with another candidate. ``group``: letters;
    two rows that share one cannot be told apart. ``best_of``: its search at smaller budgets. ``costs``: by name (see
    `COSTS`), None where not known; ``front``: the costs for which no other trained row is at least as good and as
    cheap, and better in one.
    """

    cell: Cell
    state: str
    reason: str
    rank: int | None
    marks: tuple[str, ...]
    metrics: dict[str, resampling.Interval]
    vs_id: Gain | None
    vs_rival: Gain | None
    trials: TrialCounts
    search_seconds: float
    spent: SearchCost
    seeds_done: int
    seeds_planned: int
    fit: RunSummary | None
    group: str
    first: float | None
    tied: float | None
    best_of: tuple[BestOf, ...]
    costs: dict[str, float | None]
    front: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """One data set and backbone; the data set's baselines are rows of each of its sections. ``test_users``: users
    that each row ranks the target of, None while there is no result. ``card``: what is known of the data set.
    ``pace``: epochs of a row for each of the budget's. ``remarks``: what its backbone and adapters say of themselves.
    ``cautions``: reasons to doubt its numbers, in sentences.
    ``slices``: parts of the test with the rows' scores on each, none where nothing is known of the test's targets.
    ``pairs``: every two rows compared, None while there is no result."""

    dataset: str
    backbone: str
    test_users: int | None
    card: dict[str, Any]
    rows: tuple[Row, ...]
    pace: int = 1
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    slices: tuple[Slice, ...] = ()
    pairs: Pairs | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Table:
    """Sections, metrics in column order, the headline metric that ranks the rows, and what all of it rests on.

    ``across``: comparisons over data sets, one a backbone. ``trials``: every trial of the table's cells, as `Results`
    has them. ``spectra``: singular values of item tables before and after training, as `Results` has them."""

    metrics: tuple[str, ...]
    headline: str
    header: dict[str, Any]
    sections: tuple[Section, ...]
    across: tuple[Across, ...]
    trials: pl.LazyFrame = field(repr=False, compare=False)
    spectra: pl.DataFrame = field(repr=False, compare=False)

    def frame(self) -> pl.DataFrame:
        """The table wide: a row a row of every section, holes included, numbers as they are, null where none is."""
        records = [_record(section, row, self.metrics) for section in self.sections for row in section.rows]
        frame = pl.DataFrame(records, infer_schema_length=None)
        return frame.cast({name: _dtype(name) for name, dtype in frame.schema.items() if dtype == pl.Null})

    def wide(self) -> pl.DataFrame:
        """The frame with the slices beside it: columns `dimension:slice`, its interval and the gain over `id` there."""
        records = [_slice_record(section, row.cell) for section in self.sections for row in section.rows]
        names = dict.fromkeys(name for record in records for name in record)
        columns = [pl.Series(name, [r.get(name) for r in records], dtype=pl.Float64) for name in names]
        return self.frame().with_columns(columns)


def _dtype(column: str) -> type[pl.DataType]:
    """What a column that knows nothing in any row would hold."""
    if column in ("rank", "parameters"):
        return pl.Int64
    if column.endswith("_preliminary"):
        return pl.Boolean
    return pl.String if column.endswith("_against") or column == "searched" else pl.Float64


def _slice_record(section: Section, cell: Cell) -> dict[str, float]:
    found = {}
    for one in section.slices:
        for own in (own for own in one.scores if own.cell == cell):
            name = f"{one.dimension}:{one.name}"
            found |= {name: own.score.mean, f"{name}_low": own.score.low, f"{name}_high": own.score.high}
            if own.vs_id is not None:
                ends = {"percent": own.vs_id.mean, "low": own.vs_id.low, "high": own.vs_id.high}
                found |= {f"{name}_vs_id_{end}": value for end, value in ends.items()}
    return found


def _record(section: Section, row: Row, metrics: tuple[str, ...]) -> dict[str, Any]:
    fit = row.fit
    record = {"dataset": section.dataset, "backbone": section.backbone, "rank": row.rank}
    record |= {"adapter": row.cell.adapter, "encoder": row.cell.encoder, "baseline": row.cell.is_baseline}
    record |= {"state": row.state, "reason": row.reason, "marks": " ".join(row.marks)}
    record |= {"group": row.group, "first": row.first, "tied_targets": row.tied}
    for name in metrics:
        value = row.metrics.get(name)
        ends = {"": "mean", "_low": "low", "_high": "high"}
        record |= {f"{name}{end}": value and getattr(value, key) for end, key in ends.items()}
    record |= _gain_record("vs_id", row.vs_id) | _gain_record("vs_rival", row.vs_rival)
    record |= {f"trials_{key}": value for key, value in vars(row.trials).items()}
    record |= {"seeds_done": row.seeds_done, "seeds_planned": row.seeds_planned}
    record |= {"search_seconds": row.search_seconds, "search_epochs": row.spent.epochs}
    record |= {"searched": None if row.spent.searched is None else " ".join(row.spent.searched)}
    given = ("tuned", "setting", "warm_start", "cell_seconds")
    record |= {name: getattr(row.spent, name) for name in given}
    record |= {name: row.costs[name] for name in COSTS if name != "search_seconds"} | {"front": " ".join(row.front)}
    record |= {name: fit and fit.info.get(name) for name in SPECTRAL}
    return record | {"effective_rank": fit and fit.effective_rank, "valid": fit and fit.valid}


def _gain_record(prefix: str, gain: Gain | None) -> dict[str, Any]:
    against = gain and f"{gain.against.adapter} / {gain.against.encoder}"
    names = ("percent", "low", "high", "p", "difference", "effect", "detectable", "preliminary")
    numbers = {f"{prefix}_{name}": gain and getattr(gain, name) for name in names}
    return {f"{prefix}_against": against, **numbers}

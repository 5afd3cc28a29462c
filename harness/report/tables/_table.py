"""The table that every format renders: sections of ranked rows, with holes for missing results."""

from __future__ import annotations

from dataclasses import dataclass, field

import polars as pl
import polars.selectors

from harness.metrics.lists import _all as lists
from harness.report.tables._across import Across
from harness.report.tables._budget import BestOf
from harness.report.tables._pairs import Pairs
from harness.report.tables._scores import Gain
from harness.report.tables._slices import Slice
from harness.stats import resampling
from harness.types import Cell, Json, Params

SPECTRAL = (
    "effective_rank_start",
    "text_mass_beyond_d",
    "table_mass_beyond_d",
    "table_mass_outside_text",
)  # keys of info
MEASURED = ("peak_mb", "energy_wh", "gpu_seconds", "peak_vram_mb")  # costs from the info of runs
COSTS = ("parameters", "train_seconds", "search_seconds", *MEASURED)


@dataclass(frozen=True)
class TrialCounts:
    """Number of search trials of a cell, by outcome."""

    done: int
    pruned: int
    failed: int
    planned: int


@dataclass(frozen=True)
class RunSummary:
    """The confirmed runs of a row: means over seeds of validation NDCG@10, training seconds, effective rank and the
    numbers in info; the number of trained parameters; the chosen configuration."""

    valid: float | None
    seconds: float | None
    parameters: int | None
    effective_rank: float | None
    params: Params
    info: Json


@dataclass(frozen=True)
class SearchCost:
    """Planned and used search budget of a row, for the parity table.

    ``epochs``: sum over all search trials. ``searched``: dimensions of its space, None if the launch did not record
    them. ``shared``: what is recorded of what rows should share: the ranges, as text, of searched parameters that all
    of them have, and the versions of training core, backbone and loss. ``tuned``: ``searched``, ``default`` (no
    search), ``transferred`` (no search, the winner of another one), ``fixed`` (all parameters given), ``nothing`` (a
    baseline), ``parts`` (an ensemble of rows). ``setting``: name of the published setting in its space, or empty.
    ``warm_start``: data set whose best configurations started the search, or whose winner was transferred; or empty.
    ``source_trials``: of the search whose winner was transferred, else 0. ``cell_seconds``: time limit of its cell,
    None if trials are the limit.
    """

    epochs: int
    searched: tuple[str, ...] | None
    shared: Json
    tuned: str
    setting: str
    warm_start: str
    source_trials: int
    cell_seconds: float | None


@dataclass(frozen=True)
class Row:
    """One cell in one section. Without a test result it is a hole: ``fit`` and ``rank`` are None, ``metrics`` empty.

    ``marks``: ``best``, ``second``, ``tied`` (not significantly different from the best), ``differs`` (from `id`),
    ``short`` (incomplete), ``less`` (smaller plan than other rows of the section), ``rising`` (in most seeds the best
    epoch is the last allowed one).
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
    group: str  # letters; rows that share one do not differ significantly
    first: float | None  # share of resamples of users and seeds in which the row ranks first
    tied: float | None  # share of test targets tied with another candidate
    best_of: tuple[BestOf, ...]  # its search at smaller budgets
    costs: dict[str, float | None]  # a value for each of `COSTS`, None if unknown
    front: tuple[str, ...]  # costs for which no other row is at least as good and as cheap, and better in one


@dataclass(frozen=True)
class Section:
    """The rows of one data set and backbone; the baselines of a data set are rows of each of its sections.

    ``test_users``: users with a ranked target, None without results. ``card``: data card. ``pace``: epochs of a row per
    epoch of the budget. ``remarks``: notes of its backbone and adapters. ``cautions``: reasons to doubt its numbers, as
    sentences. ``verdict``: what it shows, in one sentence, or empty. ``slices``: parts of the test with the rows'
    scores, empty without recorded test targets. ``pairs``: the comparison of every two rows, None without results.
    """

    dataset: str
    backbone: str
    test_users: int | None
    card: Json
    rows: tuple[Row, ...]
    pace: int = 1
    remarks: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    verdict: str = ""
    slices: tuple[Slice, ...] = ()
    pairs: Pairs | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Table:
    """Sections, metrics in column order, the headline metric that ranks the rows, and the results' header.

    ``across``: comparisons over data sets, one per backbone. ``trials``, ``spectra``: the frames of `Results`.
    """

    metrics: tuple[str, ...]
    headline: str
    header: Json
    sections: tuple[Section, ...]
    across: tuple[Across, ...]
    trials: pl.LazyFrame = field(repr=False, compare=False)
    spectra: pl.DataFrame = field(repr=False, compare=False)

    @property
    def other_plans(self) -> str:
        """The plans of trained rows, of earlier launches or without a search space, that differ from the newest one's.

        Fewer trials within a limit of time are no other plan.
        """
        budget = self.header.get("budget") or {}
        if not {"trials", "seeds"} <= budget.keys():
            return ""
        newest = min(budget["trials"], self.header.get("at_trials") or budget["trials"]), budget["seeds"]
        rows = [row for section in self.sections for row in section.rows if row.cell.is_trained]
        rows = [row for row in rows if row.state != "skipped" and row.spent.cell_seconds is None]
        plans = {(row.trials.planned, row.seeds_planned) for row in rows} - {newest}
        return "; ".join(f"{n} trial{'s' * (n != 1)} and {m} seed{'s' * (m != 1)}" for n, m in sorted(plans))

    def frame(self) -> pl.DataFrame:
        """Return one row per row of every section, including holes; unformatted numbers, null where missing.

        Metrics of lists have columns only if a row recorded them.
        """
        rows = [(section, row) for section in self.sections for row in section.rows]
        listed = [name for name in lists.names() if any(row.fit and name in row.fit.info for _, row in rows)]
        records = [
            _record(section, row, self.metrics) | {name: row.fit and row.fit.info.get(name) for name in listed}
            for section, row in rows
        ]
        frame = pl.DataFrame(records, infer_schema_length=None)
        frame = frame.with_columns(polars.selectors.float().fill_nan(None))  # the bounds of one test user
        return frame.cast({name: _dtype(name) for name, dtype in frame.schema.items() if dtype == pl.Null})

    def wide(self) -> pl.DataFrame:
        """Return the frame with slices: columns `dimension:slice`, its interval and the gain over `id` there."""
        records = [_slice_record(section, row.cell) for section in self.sections for row in section.rows]
        names = dict.fromkeys(name for record in records for name in record)
        columns = [pl.Series(name, [r.get(name) for r in records], dtype=pl.Float64) for name in names]
        return self.frame().with_columns(columns)


def _dtype(column: str) -> type[pl.DataType]:
    """Return the dtype of a column that is null in every row."""
    if column in ("rank", "parameters"):
        return pl.Int64
    if column.endswith("_preliminary"):
        return pl.Boolean
    return pl.String if column.endswith("_against") or column == "searched" else pl.Float64


def _slice_record(section: Section, cell: Cell) -> dict[str, float]:
    record = {}
    for part in section.slices:
        for value in (value for value in part.scores if value.cell == cell):
            name = f"{part.dimension}:{part.name}"
            record |= {name: value.score.mean, f"{name}_low": value.score.low, f"{name}_high": value.score.high}
            if (gain := value.vs_id) is not None:
                ends = {"percent": gain.mean, "low": gain.low, "high": gain.high}
                record |= {f"{name}_vs_id_{end}": number for end, number in ends.items()}
    return record


def _record(section: Section, row: Row, metrics: tuple[str, ...]) -> Json:
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
    settings = ("tuned", "setting", "warm_start", "cell_seconds")
    record |= {name: getattr(row.spent, name) for name in settings}
    record |= {name: row.costs[name] for name in COSTS if name != "search_seconds"} | {"front": " ".join(row.front)}
    record |= {name: fit and fit.info.get(name) for name in SPECTRAL}
    return record | {"effective_rank": fit and fit.effective_rank, "valid": fit and fit.valid}


def _gain_record(prefix: str, gain: Gain | None) -> Json:
    against = gain and f"{gain.against.adapter} / {gain.against.encoder}"
    names = ("percent", "low", "high", "p", "difference", "effect", "detectable", "preliminary")
    numbers = {f"{prefix}_{name}": gain and getattr(gain, name) for name in names}
    return {f"{prefix}_against": against, **numbers}

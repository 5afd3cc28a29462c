"""Forecast the cost and the end of a grid, and propose cuts that meet a deadline.

A cell's price comes from finished trials with the same threads and device: those of its study, or else those of its
backbone and adapter on the same data; else from a calibration (`calibrate`): seconds per epoch times the epochs that a
trial is likely to train before it stops early or is pruned. That share comes from finished trials with the same epochs
and patience if there are any.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, pstdev

from harness.search.plan import Plan
from harness.search.study import Study
from harness.system.files import write_text
from harness.types import Cell, HarnessError, Json, Params, digest
from harness.workflows.finished_trials import FinishedTrial, Layout, shape

SHARES = {"search": 0.7, "confirm": 0.9}  # share of its epochs that a trial trains, assumed until trials have finished
ERRORS = {"its own trials": 0.1, "similar trials": 0.2, "calibration": 0.35}  # relative error of a price, by source
COMMON = 0.1  # relative error common to all prices: slots that slow each other down, load of the machine
Z = 1.645  # a 90 % interval
START = 20.0  # seconds before the first trial: start of Ray, embeddings
LEAST = {"trials": 4, "seeds": 3}  # lower bounds of the cuts
LONGEST = 36525 * 86400  # seconds, the longest deadline: a century
CALIBRATED = "calibrations"  # folder of the home


@dataclass(frozen=True)
class Pace:
    """Seconds of a calibrated cell: one epoch with its validation, and the work after the last epoch."""

    epoch: float
    finish: float


@dataclass(frozen=True)
class Price:
    """Seconds of one trial of a cell; `source`: a key of `ERRORS`, or "no training"; `error`: relative."""

    search: float
    confirm: float
    source: str
    error: float


@dataclass(frozen=True)
class CellCost:
    """Remaining trials and confirmations of a cell, and the price of each."""

    cell: Cell
    trials: int
    seeds: int
    price: Price

    @property
    def seconds(self) -> float:
        return self.trials * self.price.search + self.seeds * self.price.confirm


@dataclass(frozen=True)
class Forecast:
    """Costs by cell; seconds of wall time to the end with a 90 % interval.

    ``unpriced``: cells left out because no similar trial has finished and their calibration failed."""

    costs: list[CellCost]
    slots: int
    threads: int
    seconds: float
    low: float
    high: float
    unpriced: tuple[Cell, ...] = ()

    def fits(self, deadline: float) -> bool | None:
        """Whether the upper end of the interval meets the deadline (seconds); None if cells without a price decide."""
        return False if self.high > deadline else None if self.unpriced else True

    @property
    def core_hours(self) -> float:
        return sum(cost.seconds for cost in self.costs) * self.threads / 3600


@dataclass(frozen=True)
class Saving:
    """One possible cut: `what` it changes, seconds and core-hours it saves, seconds to the end, and if that `fits`
    (`Forecast.fits`)."""

    what: str
    saves: float
    saves_core_hours: float
    seconds: float
    fits: bool | None


def duration(text: str) -> float:
    """Return the seconds of a duration. Raises HarnessError if it is not one.

    >>> duration("36h"), duration("1h30m"), duration("2d"), duration("90s")
    (129600.0, 5400.0, 172800.0, 90.0)
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?[dhms])+", text):
        raise HarnessError(f"--deadline '{text}' is not a duration; write it as 36h, 1h30m, 2d or 90s.")
    seconds = sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([dhms])", text))
    if not 0 < seconds <= LONGEST:
        raise HarnessError(f"--deadline '{text[:40]}' must be longer than 0s and at most {LONGEST // 86400}d.")
    return seconds


def of(
    grid: Plan, past: Sequence[FinishedTrial], paces: Mapping[str, Pace], slots: int, threads: int, gpu: bool = False
) -> Forecast:
    """Return the forecast of a grid's pending trials.

    `past`: the finished trials of its ledger; `paces`: calibrations by study id of studies `needing_calibration`;
    `slots`, `threads`, `gpu`: how the trials will run.
    """
    costs, unpriced, shares = [], [], _shares(past)
    for study in grid.pending:
        price = _price(study, past, shares, paces, (threads, gpu))
        if price is None:
            unpriced.append(study.cell)
            continue
        searching = study.trials - study.ledger.ended(study.id, study.trials)
        confirming = study.to_run() - searching
        if study.budget.cell_seconds is not None and price.search > 0:
            spent = sum({i: study.ledger.seconds(i) for i, _ in study.history().values()}.values())
            searching = min(searching, math.ceil(max(study.budget.cell_seconds - spent, 0.0) / price.search))
        costs.append(CellCost(study.cell, searching, confirming, price))
    return replace(_total(costs, slots, threads), unpriced=tuple(unpriced))


def needing_calibration(grid: Plan, past: Sequence[FinishedTrial], threads: int, gpu: bool = False) -> list[Study]:
    """Return the pending studies for which no finished trial that ran alike gives a price."""
    shares = _shares(past)
    return [study for study in grid.pending if _price(study, past, shares, {}, (threads, gpu)) is None]


def _total(costs: list[CellCost], slots: int, threads: int) -> Forecast:
    work = sum(cost.seconds for cost in costs)
    longest = max((max(c.price.search * (c.trials > 0), c.price.confirm * (c.seeds > 0)) for c in costs), default=0.0)
    least = max((c.price.search * (c.trials > 0) + c.price.confirm * (c.seeds > 0) for c in costs), default=0.0)
    spread = work / slots + longest * (1 - 1 / slots) / 2
    seconds = START + max(spread, least) if work else 0.0  # a cell is confirmed after its search
    independent = math.sqrt(sum((cost.seconds * cost.price.error) ** 2 for cost in costs)) / work if work else 0.0
    calibrated = sum(c.seconds for c in costs if c.price.source == "calibration") / work if work else 0.0
    # calibrated cells share one guess of the share of epochs, so this error does not average out
    error = math.hypot(independent, COMMON, ERRORS["calibration"] * calibrated)
    return Forecast(costs, slots, threads, seconds, seconds * math.exp(-Z * error), seconds * math.exp(Z * error))


def _shares(past: Iterable[FinishedTrial]) -> dict[tuple[str, int, int], float]:
    """Return the mean share of their epochs that finished trials trained, by (role, epochs, patience)."""
    shares: dict[tuple[str, int, int], list[float]] = {}
    for one in past:
        shares.setdefault((one.role, *one.planned), []).append(one.epochs / one.planned[0])
    return {key: fmean(values) for key, values in shares.items()}


def _price(
    study: Study,
    past: Sequence[FinishedTrial],
    shares: Mapping[tuple[str, int, int], float],
    paces: Mapping[str, Pace],
    layout: Layout,
) -> Price | None:
    """Return the price of a study's trials under a layout, None if unknown. Baselines and ensembles cost a flat second:
    they do not train."""
    if not study.cell.is_trained:
        return Price(0.0, 1.0, "no training", 1.0)
    cell, inputs = (study.cell.backbone, study.cell.adapter), (study.inputs.data, study.inputs.embedding)
    fixed = {k: v for k, v in shape(study.space.default).items() if k not in study.space.searched}
    like = [one for one in past if one.cell == cell and one.inputs == inputs and one.layout in (None, layout)]
    like = [one for one in like if _agree(one.shape, fixed)]
    ids = {trial_id for trial_id, _ in study.history().values()}
    ours = [one for one in like if one.id in ids]
    search = ours or [one for one in like if one.role == "search"] or like
    if not search:
        pace = paces.get(study.id)
        return _calibrated(study, shares, pace) if pace else None
    confirm = [one for one in like if one.role == "confirm"] or search
    seconds = [one.seconds for one in search]
    spread = pstdev(seconds) / fmean(seconds) / math.sqrt(len(seconds))
    source = "its own trials" if ours else "similar trials"
    length = fmean(one.epochs for one in ours) if ours else _length(study, "search", shares)
    last = _rate(confirm) * _length(study, "confirm", shares)
    return Price(_rate(search) * length, last, source, ERRORS[source] + spread)


def _agree(shape: Params, fixed: Params) -> bool:
    """Whether a trial has these values; one that does not know a parameter is older than it."""
    return all(shape.get(name, value) == value for name, value in fixed.items())


def _rate(trials: Sequence[FinishedTrial]) -> float:
    """Return the mean seconds per epoch."""
    return sum(one.seconds for one in trials) / sum(one.epochs for one in trials)


def _length(study: Study, role: str, shares: Mapping[tuple[str, int, int], float]) -> float:
    """Return the epochs that a trial is likely to train."""
    patience = study.pace * study.budget.patience
    share = shares.get((role, study.epochs, patience), SHARES[role] if 0 < patience < study.epochs else 1.0)
    return share * study.epochs


def _calibrated(study: Study, shares: Mapping[tuple[str, int, int], float], pace: Pace) -> Price:
    search, confirm = (pace.epoch * _length(study, role, shares) + pace.finish for role in ("search", "confirm"))
    return Price(search, confirm + pace.finish, "calibration", ERRORS["calibration"])  # plus the ranking of the test


def cuts(grid: Plan, forecast: Forecast, deadline: float) -> list[Saving]:
    """Return possible cuts, the least harmful to a table first: trials, seeds, epochs, data sets.

    One cut of each kind: the smallest that meets the deadline without the others, else the largest. Empty if the
    forecast meets the deadline. Epochs are not cut once a search has begun: with others, another table begins.
    """
    if forecast.high <= deadline:
        return []
    budget = grid.request.budget
    done = {study.cell: study.ledger.ended(study.id, study.trials) for study in grid.pending}
    begun = any(study.begun for study in grid.studies if study.cell.is_trained)

    def trials(to: int) -> list[CellCost]:
        return [replace(c, trials=min(c.trials, max(to - done[c.cell], 0))) for c in forecast.costs]

    def seeds(to: int) -> list[CellCost]:
        fewer, folds = budget.seeds - to, len(grid.request.protocol.parts)
        return [
            replace(c, seeds=max(c.seeds - fewer * folds, 0) if c.seeds > folds else c.seeds) for c in forecast.costs
        ]

    def epochs(to: int) -> list[CellCost]:
        factor = to / budget.epochs
        return [
            replace(c, price=replace(c.price, search=factor * c.price.search, confirm=factor * c.price.confirm))
            for c in forecast.costs
        ]

    by_data = sorted({c.cell.dataset for c in forecast.costs}, key=lambda name: -_of(forecast.costs, name))

    def dropped(to: int) -> list[CellCost]:
        return [c for c in forecast.costs if c.cell.dataset not in by_data[:to]]

    ways = [
        (f"trials {budget.trials} -> ", _down(budget.trials, LEAST["trials"]), str, trials),
        (f"seeds {budget.seeds} -> ", _down(budget.seeds, LEAST["seeds"]), str, seeds),
        (f"epochs {budget.epochs} -> ", _down(0 if begun else budget.epochs, -(-budget.epochs // 2)), str, epochs),
        ("without ", range(1, len(by_data)), lambda to: ", ".join(by_data[:to]), dropped),
    ]
    savings = [
        _smallest([(name + words(to), change(to)) for to in steps], forecast, deadline)
        for name, steps, words, change in ways
    ]
    return [cut for cut in savings if cut is not None and cut.saves > 0]


def _down(planned: int, least: int) -> range:
    return range(planned - 1, min(least, planned - 1) - 1, -1) if planned > least else range(0)


def _of(costs: Iterable[CellCost], dataset: str) -> float:
    return sum(cost.seconds for cost in costs if cost.cell.dataset == dataset)


def _smallest(steps: Iterable[tuple[str, list[CellCost]]], forecast: Forecast, deadline: float) -> Saving | None:
    """Return the first step that meets the deadline, else the last; a step is a name and the remaining costs."""
    cut = None
    for what, costs in steps:
        total = replace(_total(costs, forecast.slots, forecast.threads), unpriced=forecast.unpriced)
        saved = forecast.core_hours - total.core_hours
        cut = Saving(what, forecast.seconds - total.seconds, saved, total.seconds, total.fits(deadline))
        if cut.fits is not False:
            break
    return cut


def key(grid: Plan) -> str:
    """Return a hash of the work a forecast covers: the pending studies and the trials each has left."""
    return digest(sorted([study.id, study.to_run()] for study in grid.pending))


def remember(grid: Plan, forecast: Forecast) -> None:
    """Save a forecast in the home, so that the bench can compare its duration with it; not one that leaves cells out,
    which is no forecast of this work."""
    if forecast.unpriced:
        return
    value = {"of": key(grid), "seconds": forecast.seconds, "low": forecast.low, "high": forecast.high}
    write_text(grid.request.home / "forecast.json", json.dumps(value | {"time": time.time()}))


def accuracy(home: Path, work: str, took: float) -> str | None:
    """Compare a bench of `took` seconds with its forecast; None without one. `work`: the `key` at its start."""
    from harness.workflows.progress import clock

    try:
        saved = json.loads((home / "forecast.json").read_text())
        if saved["of"] != work:
            return None
        low, high = clock(saved["low"]), clock(saved["high"])
        return (
            f"Took {clock(took)}; the forecast was {clock(saved['seconds'])} [{low}, {high}], "
            f"a difference of {100 * (saved['seconds'] / took - 1):+.0f} %."
        )
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None


def to_json(forecast: Forecast, deadline: float, savings: list[Saving]) -> Json:
    """Return the forecast and the cuts for scripts; durations in seconds, `fits` null where `Forecast.fits` is None."""
    return {
        "deadline": deadline,
        "fits": forecast.fits(deadline),
        "seconds": round(forecast.seconds, 1),
        "low": round(forecast.low, 1),
        "high": round(forecast.high, 1),
        "core_hours": round(forecast.core_hours, 3),
        "slots": forecast.slots,
        "threads": forecast.threads,
        "costs": [
            {**vars(c.cell), "trials": c.trials, "seeds": c.seeds, "seconds": round(c.seconds, 1), **vars(c.price)}
            for c in forecast.costs
        ],
        "cuts": [vars(cut) for cut in savings],
        "unpriced": [vars(cell) for cell in forecast.unpriced],
    }


def text(forecast: Forecast, deadline: float, savings: list[Saving]) -> str:
    """Format the forecast and the cuts for a terminal."""
    from harness.workflows.progress import clock

    lines = []
    for c in forecast.costs:
        each = f"{c.trials} x {c.price.search:.1f}s + {c.seeds} x {c.price.confirm:.1f}s"
        lines.append(f"{c.seconds * forecast.threads / 3600:8.3g} core-hours  {each:28s} by {c.price.source}: {c.cell}")
    lines += [f"  no price  calibration failed, not in the forecast: {c}" for c in forecast.unpriced]
    span = f"{clock(forecast.seconds)} [{clock(forecast.low)}, {clock(forecast.high)}]"
    lines.append(
        f"{forecast.core_hours:.3g} core-hours, done in {span} (90 % interval) on {forecast.slots} slots of "
        f"{forecast.threads} thread(s){_verdict(forecast, deadline)} {clock(deadline)}."
    )
    lines += ["Possible cuts, the least harmful to a table first:"] if savings else []
    for place, cut in enumerate(savings, 1):
        fits = {True: "fits", False: "not enough by itself", None: "fits without the cells that have no price"}[
            cut.fits
        ]
        saves = f"saves {cut.saves_core_hours:.3g} core-hours, done in {clock(cut.seconds)}, {fits}"
        lines.append(f"  {place}. {cut.what}: {saves}")
    return "\n".join(lines)


def _verdict(forecast: Forecast, deadline: float) -> str:
    if forecast.fits(deadline) is None:
        return f"; {len(forecast.unpriced)} cell(s) without a price decide whether it fits in"
    if forecast.seconds > deadline:
        return ": does not fit in"
    return ": fits in" if forecast.fits(deadline) else ": may not fit in"

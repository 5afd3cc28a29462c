"""What a grid will cost and when it will be done, and what to cut where that is too late.

A cell's price comes from finished trials of its study, or else of its backbone and adapter on the same data, or else
from a calibration (`calibrate`): seconds an epoch, times the epochs that a trial is likely to train before it stops
early or is pruned. That share is taken from finished trials of the same epochs and patience where there are any.
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
from typing import Any

from harness.record.ledger import Ledger
from harness.search.plan import Plan, Study
from harness.system.files import write_text
from harness.types import Cell, HarnessError, digest

SHARES = {"search": 0.7, "confirm": 0.9}  # of the epochs that a trial trains, while no trial has shown it
ERRORS = {"its trials": 0.1, "like trials": 0.2, "calibration": 0.35}  # relative, of a price by where it comes from
COMMON = 0.1  # relative error that all prices share: how much slots slow each other down, how busy the machine is
Z = 1.645  # a 90 % interval
START = 20.0  # seconds before the first trial: Ray, vectors
LEAST = {"trials": 4, "seeds": 3}  # no cut goes below
LONGEST = 36525 * 86400  # seconds of a deadline: a century
CALIBRATED = "calibrations"  # folder of the home


@dataclass(frozen=True)
class Pace:
    """Seconds of a calibrated cell: an epoch with its validation, and what comes after the last."""

    epoch: float
    finish: float


@dataclass(frozen=True)
class Price:
    """What one trial of a cell takes, seconds, and how that is known: a key of `ERRORS`, or "no training"."""

    search: float
    confirm: float
    source: str
    error: float


@dataclass(frozen=True)
class CellCost:
    """A cell's trials that are left, and the seconds of each kind together."""

    cell: Cell
    trials: int
    seeds: int
    price: Price

    @property
    def seconds(self) -> float:
        return self.trials * self.price.search + self.seeds * self.price.confirm


@dataclass(frozen=True)
class Forecast:
    """Costs by cell; seconds of the clock to the end, and their 90 % interval. ``unpriced``: cells left out, because no
    trial of their kind has finished and their calibration failed."""

    costs: list[CellCost]
    slots: int
    threads: int
    seconds: float
    low: float
    high: float
    unpriced: tuple[Cell, ...] = ()

    @property
    def core_hours(self) -> float:
        return sum(cost.seconds for cost in self.costs) * self.threads / 3600


@dataclass(frozen=True)
class Saving:
    """One way to be done sooner: what it changes, the seconds and core-hours it saves, and the end with it."""

    what: str
    saves: float
    saves_core_hours: float
    seconds: float
    fits: bool


def duration(text: str) -> float:
    """Seconds of a duration in words. Raises HarnessError where it is none.

    >>> duration("36h"), duration("1h30m"), duration("2d"), duration("90s")
    (129600.0, 5400.0, 172800.0, 90.0)
    """
    units = {"d": 86400, "h": 3600, "m": 60, "s": 1}
    if not re.fullmatch(r"([0-9]+(\.[0-9]+)?[dhms])+", text):
        raise HarnessError(f"--deadline '{text}' is no duration; it is written as 36h, 1h30m, 2d or 90s.")
    found = sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([dhms])", text))
    if not 0 < found <= LONGEST:
        raise HarnessError(f"--deadline '{text[:40]}' must be longer than 0s and at most {LONGEST // 86400}d.")
    return found


@dataclass(frozen=True)
class FinishedTrial:
    """A finished trial, as far as prices go."""

    id: str
    role: str
    cell: tuple[str, str]  # backbone, adapter
    inputs: tuple[str, str]  # hashes of data and embedding
    planned: tuple[int, int]  # epochs, patience
    epochs: int
    seconds: float


def known(ledger: Ledger) -> list[FinishedTrial]:
    """All finished trials of a ledger that trained something. Reads each from disk, once."""
    found = []
    for trial_id, entry in ledger.trials.items():
        if entry.status in ("done", "pruned") and (seconds := ledger.seconds(trial_id)) > 0:
            trial, result = entry.trial, entry.result
            if trial.epochs and result is not None:
                cell, inputs = (trial.cell.backbone, trial.cell.adapter), (trial.inputs.data, trial.inputs.embedding)
                planned = (trial.epochs, trial.patience)
                found.append(
                    FinishedTrial(trial_id, trial.role, cell, inputs, planned, max(len(result.curve), 1), seconds)
                )
    return found


def of(grid: Plan, past: Sequence[FinishedTrial], paces: Mapping[str, Pace], slots: int, threads: int) -> Forecast:
    """The forecast of all that a grid still runs. `past`: the `known` trials of its ledger; `paces`: calibrations by
    study id, for studies that are `unknown`."""
    costs, unpriced, shares = [], [], _shares(past)
    for study in grid.pending:
        price = _price(study, past, shares, paces)
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


def unknown(grid: Plan, past: Sequence[FinishedTrial]) -> list[Study]:
    """Pending studies that have no price without a calibration."""
    shares = _shares(past)
    return [study for study in grid.pending if _price(study, past, shares, {}) is None]


def _total(costs: list[CellCost], slots: int, threads: int) -> Forecast:
    work = sum(cost.seconds for cost in costs)
    longest = max((max(c.price.search * (c.trials > 0), c.price.confirm * (c.seeds > 0)) for c in costs), default=0.0)
    seconds = START + work / slots + longest * (1 - 1 / slots) / 2 if work else 0.0
    own = math.sqrt(sum((cost.seconds * cost.price.error) ** 2 for cost in costs)) / work if work else 0.0
    calibrated = sum(c.seconds for c in costs if c.price.source == "calibration") / work if work else 0.0
    # the share of the epochs is guessed once for all calibrated cells: such an error does not average out
    error = math.hypot(own, COMMON, ERRORS["calibration"] * calibrated)
    return Forecast(costs, slots, threads, seconds, seconds * math.exp(-Z * error), seconds * math.exp(Z * error))


def _shares(past: Iterable[FinishedTrial]) -> dict[tuple[str, int, int], float]:
    """Mean share of the epochs that finished trials trained, by (role, epochs, patience)."""
    found: dict[tuple[str, int, int], list[float]] = {}
    for one in past:
        found.setdefault((one.role, *one.planned), []).append(one.epochs / one.planned[0])
    return {key: fmean(values) for key, values in found.items()}


def _price(
    study: Study, past: Sequence[FinishedTrial], shares: Mapping[tuple[str, int, int], float], paces: Mapping[str, Pace]
) -> Price | None:
    """None where nothing is known; a baseline trains nothing."""
    if study.cell.is_baseline:
        return Price(0.0, 1.0, "no training", 1.0)
    cell, inputs = (study.cell.backbone, study.cell.adapter), (study.inputs.data, study.inputs.embedding)
    like = [one for one in past if one.cell == cell and one.inputs == inputs]
    own = {trial_id for trial_id, _ in study.history().values()}
    ours = [one for one in like if one.id in own]
    search = ours or [one for one in like if one.role == "search"] or like
    if not search:
        pace = paces.get(study.id)
        return _calibrated(study, shares, pace) if pace else None
    confirm = [one for one in like if one.role == "confirm"] or search
    seconds = [one.seconds for one in search]
    spread = pstdev(seconds) / fmean(seconds) / math.sqrt(len(seconds))
    source = "its trials" if ours else "like trials"
    length = fmean(one.epochs for one in ours) if ours else _length(study, "search", shares)
    last = _rate(confirm) * _length(study, "confirm", shares)
    return Price(_rate(search) * length, last, source, ERRORS[source] + spread)


def _rate(trials: Sequence[FinishedTrial]) -> float:
    """Seconds an epoch."""
    return sum(one.seconds for one in trials) / sum(one.epochs for one in trials)


def _length(study: Study, role: str, shares: Mapping[tuple[str, int, int], float]) -> float:
    """Epochs that a trial is likely to train."""
    patience = study.pace * study.budget.patience
    share = shares.get((role, study.epochs, patience), SHARES[role] if 0 < patience < study.epochs else 1.0)
    return share * study.epochs


def _calibrated(study: Study, shares: Mapping[tuple[str, int, int], float], pace: Pace) -> Price:
    search, confirm = (pace.epoch * _length(study, role, shares) + pace.finish for role in ("search", "confirm"))
    return Price(search, confirm + pace.finish, "calibration", ERRORS["calibration"])  # the test is ranked as well


def cuts(grid: Plan, forecast: Forecast, deadline: float) -> list[Saving]:
    """What to cut, first what costs a table least: trials, then seeds, then epochs, then data sets. Of each the mildest
    cut that meets the deadline alone, or else the utmost; empty where nothing has to be cut."""
    if forecast.high <= deadline:
        return []
    budget = grid.request.budget
    done = {study.cell: study.ledger.ended(study.id, study.trials) for study in grid.pending}

    def trials(to: int) -> list[CellCost]:
        return [replace(c, trials=min(c.trials, max(to - done[c.cell], 0))) for c in forecast.costs]

    def seeds(to: int) -> list[CellCost]:
        return [
            replace(c, seeds=max(c.seeds - (budget.seeds - to), 0) if c.seeds > 1 else c.seeds) for c in forecast.costs
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
        (f"epochs {budget.epochs} -> ", _down(budget.epochs, -(-budget.epochs // 2)), str, epochs),
        ("without ", range(1, len(by_data)), lambda to: ", ".join(by_data[:to]), dropped),
    ]
    found = [
        _mildest([(name + words(to), change(to)) for to in steps], forecast, deadline)
        for name, steps, words, change in ways
    ]
    return [cut for cut in found if cut is not None and cut.saves > 0]


def _down(planned: int, least: int) -> range:
    return range(planned - 1, min(least, planned - 1) - 1, -1) if planned > least else range(0)


def _of(costs: Iterable[CellCost], dataset: str) -> float:
    return sum(cost.seconds for cost in costs if cost.cell.dataset == dataset)


def _mildest(steps: Iterable[tuple[str, list[CellCost]]], forecast: Forecast, deadline: float) -> Saving | None:
    """The first step that meets the deadline, else the last; a step is its name and what is then left to pay."""
    cut = None
    for what, costs in steps:
        found = _total(costs, forecast.slots, forecast.threads)
        saved = forecast.core_hours - found.core_hours
        cut = Saving(what, forecast.seconds - found.seconds, saved, found.seconds, found.high <= deadline)
        if cut.fits:
            break
    return cut


def key(grid: Plan) -> str:
    """What a forecast is about: these studies with just so much left to run."""
    return digest(sorted([study.id, study.to_run()] for study in grid.pending))


def remember(grid: Plan, forecast: Forecast) -> None:
    """Keep a forecast in the home, for the bench to compare itself with."""
    value = {"of": key(grid), "seconds": forecast.seconds, "low": forecast.low, "high": forecast.high}
    write_text(grid.request.home / "forecast.json", json.dumps(value | {"time": time.time()}))


def told(home: Path, about: str, took: float) -> str | None:
    """How a bench that began with this `key` and took so many seconds compares with its forecast, if there is one."""
    from harness.workflows.progress import clock

    try:
        kept = json.loads((home / "forecast.json").read_text())
        if kept["of"] != about:
            return None
        low, high = clock(kept["low"]), clock(kept["high"])
        return (
            f"Took {clock(took)}; the plan had said {clock(kept['seconds'])} [{low}, {high}], "
            f"which is {100 * (kept['seconds'] / took - 1):+.0f} %."
        )
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError):
        return None


def to_json(forecast: Forecast, deadline: float, found: list[Saving]) -> dict[str, Any]:
    """For scripts: seconds throughout."""
    return {
        "deadline": deadline,
        "fits": forecast.high <= deadline,
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
        "cuts": [vars(cut) for cut in found],
        "unpriced": [vars(cell) for cell in forecast.unpriced],
    }


def text(forecast: Forecast, deadline: float, found: list[Saving]) -> str:
    """For a terminal."""
    from harness.workflows.progress import clock

    lines = []
    for c in forecast.costs:
        each = f"{c.trials} x {c.price.search:.1f}s + {c.seeds} x {c.price.confirm:.1f}s"
        lines.append(f"{c.seconds * forecast.threads / 3600:8.3g} core-hours  {each:28s} by {c.price.source}: {c.cell}")
    lines += [f"  no price  its calibration failed, so the forecast leaves it out: {c}" for c in forecast.unpriced]
    span = f"{clock(forecast.seconds)} [{clock(forecast.low)}, {clock(forecast.high)}]"
    verdict = "fits" if forecast.high <= deadline else "may not fit" if forecast.seconds <= deadline else "does not fit"
    lines.append(
        f"{forecast.core_hours:.3g} core-hours, done in {span} (90 % interval) on {forecast.slots} slots of "
        f"{forecast.threads} thread(s): {verdict} in {clock(deadline)}."
    )
    lines += ["What to cut, first what costs a table least:"] if found else []
    for place, cut in enumerate(found, 1):
        fits = "fits" if cut.fits else "not enough alone"
        saves = f"saves {cut.saves_core_hours:.3g} core-hours, done in {clock(cut.seconds)}, {fits}"
        lines.append(f"  {place}. {cut.what}: {saves}")
    return "\n".join(lines)

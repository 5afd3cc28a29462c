"""`harness plan`: show what a bench would run, and whether it meets a deadline."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from harness.types import HarnessError, Json
from harness.verbs import _save
from harness.verbs._options import Options, grid_options, json_option, layout_options, save_option
from harness.verbs._request import request_of
from harness.verbs._types import BoundedInt

if TYPE_CHECKING:
    from harness.search.plan import Plan
    from harness.workflows.finished_trials import FinishedTrial
    from harness.workflows.forecast import Forecast

rank = 20


@click.command()
@grid_options
@click.option("--deadline", metavar="TIME", help="Forecast whether it is done in 36h, 1h30m, 2d; calibrates new cells.")
@click.option("--slots", type=BoundedInt(1), help="With --deadline: parallel trials.  [default: as in bench]")
@layout_options
@save_option
@json_option
def command(**options: Any) -> None:
    """Show what a bench with these options would run.

    Lists the grid cell by cell. Fetches and prepares data, but trains nothing. STUDY.toml: as in bench.

    With --deadline: forecasts cost and finish time with a 90 % interval, and suggests cuts, for the machines that a
    bench with the same --address, --threads and --gpu would use. Cells without a comparable finished trial are
    calibrated there with three epochs each; the measurements are kept in the home.
    """
    if options["save"]:
        _save.save(options)
    show(options)


def show(options: Options) -> None:
    """Print the plan of the bench that the options describe, or its forecast if they have a deadline."""
    from harness.engine.slots import label_selector
    from harness.record.ledger import Ledger
    from harness.search import plan as planning
    from harness.workflows import run_bench

    if options.get("slots") and not options.get("deadline"):
        raise HarnessError("--slots needs --deadline: it sets the parallel trials of the forecast.")
    label_selector(options["labels"])
    if not options["address"] and not os.environ.get("RAY_ADDRESS"):
        run_bench.check_threads(options["threads"])
    request = request_of(options)
    grid = planning.make(request, Ledger.open(request.home))
    run_bench.describe_targets(grid, dict.fromkeys(study.cell.dataset for study in grid.pending))
    if options.get("deadline"):
        return _deadline(grid, options)
    remarks = [*run_bench.remarks(grid), *_unknown(grid)]
    if options["as_json"]:
        return click.echo(json.dumps(_to_json(grid, remarks), indent=1))
    for row in _rows(grid):
        cell = " / ".join(str(row[k]) for k in ("dataset", "encoder", "backbone", "adapter"))
        click.echo(f"{row['to_run']:4d} to run  {row['state']:8s} {cell}")
    for cell, reason in grid.skipped:
        click.echo(f"{0:4d} to run  skipped  {cell}: {reason}")
    for line in remarks:
        click.echo(line)
    return click.echo(run_bench.overview(grid))


def _rows(grid: Plan) -> list[Json]:
    return [{**vars(study.cell), "state": study.state, "to_run": study.to_run()} for study in grid.studies]


def _to_json(grid: Plan, remarks: list[str]) -> Json:
    skipped = [{**vars(cell), "reason": reason} for cell, reason in grid.skipped]
    return {"counts": grid.counts(), "cells": _rows(grid), "skipped": skipped, "remarks": remarks}


def _unknown(grid: Plan) -> list[str]:
    """Return a line about the cells that only the bench can refuse: their models have to be built."""
    if not any(study.inputs.embedding and study.cell.is_trained for study in grid.pending):
        return []
    return ["Cells that do not fit the rank of their text are found when the bench starts."]


def _deadline(grid: Plan, options: Options) -> None:
    from harness.workflows import finished_trials, forecast

    deadline = forecast.duration(options["deadline"])
    past = finished_trials.read(grid.studies[0].ledger) if grid.studies else []
    with _machines(grid, options) as resources:
        prediction = _forecast(grid, past, options, resources)
    forecast.remember(grid, prediction)
    cuts = forecast.cuts(grid, prediction, deadline)
    if options["as_json"]:
        return click.echo(json.dumps(forecast.to_json(prediction, deadline, cuts), indent=1))
    return click.echo(forecast.text(prediction, deadline, cuts))


def _machines(grid: Plan, options: Options) -> AbstractContextManager[Json]:
    """Yield the resources that Ray would give the bench. A finished grid does not start Ray."""
    if not grid.pending:
        return nullcontext({"cpus": 1, "gpus": 0.0, "node_cpus": 1})
    from harness.engine.slots import label_selector
    from harness.system import interpreter

    interpreter.check()
    from harness.engine import ray_cluster

    return ray_cluster.cluster(options["address"], label_selector(options["labels"]))


def _forecast(grid: Plan, past: list[FinishedTrial], options: Options, resources: Json) -> Forecast:
    from harness.engine.slots import layout
    from harness.workflows import calibrate, forecast, gpu_memory

    asked = (options["threads"], options["gpu"]) if grid.pending else (None, None)  # a finished grid needs no machine
    measured = gpu_memory.newest(grid.studies[0].ledger) if grid.pending and resources["gpus"] else None
    planned = layout(resources, grid.width, *asked, measured)
    slots = options["slots"] or planned.slots
    paces: dict[str, forecast.Pace] = {}
    how = (planned.threads, planned.gpu > 0)
    if uncalibrated := forecast.needing_calibration(grid, past, *how):
        cluster = resources if options["address"] or os.environ.get("RAY_ADDRESS") else None
        paces = calibrate.paces(grid, uncalibrated, replace(planned, slots=min(slots, planned.slots)), cluster)
    return forecast.of(grid, past, paces, slots, *how)

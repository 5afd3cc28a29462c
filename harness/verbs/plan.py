"""What a bench would run, and whether it is done by a deadline."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from harness.verbs._options import BoundedInt, grid_options, json_option, layout_options, request_of

if TYPE_CHECKING:
    from harness.search.plan import Plan
    from harness.workflows.forecast import FinishedTrial, Forecast

rank = 20


@click.command()
@grid_options
@click.option("--deadline", metavar="TIME", help="Will it be done in 36h, 1h30m, 2d? Calibrates cells that never ran.")
@click.option("--slots", type=BoundedInt(1), help="With --deadline: trials at a time.  [default: as bench has them]")
@layout_options
@json_option
def command(**given: Any) -> None:
    """What a bench with these options would run, cell by cell. Fetches and prepares data, trains nothing.

    With --deadline: cost, finish time with a 90 % interval, and what to cut first, on the machines that a bench with
    the same --address, --threads and --gpu would use. Cells without a finished trial of their kind are calibrated
    there: three epochs each, kept in the home.
    """
    show(given)


def show(given: dict[str, Any]) -> None:
    from harness.record.ledger import Ledger
    from harness.search import plan as planning
    from harness.workflows import run_bench

    request = request_of(given)
    grid = planning.make(request, Ledger.open(request.home))
    if given.get("deadline"):
        return _deadline(grid, given)
    rows = [{**vars(s.cell), "state": s.state, "to_run": s.to_run()} for s in grid.studies]
    if given["as_json"]:
        return click.echo(json.dumps({"counts": grid.counts(), "cells": rows}, indent=1))
    for row in rows:
        cell = " / ".join(str(row[k]) for k in ("dataset", "encoder", "backbone", "adapter"))
        click.echo(f"{row['to_run']:4d} to run  {row['state']:8s} {cell}")
    for cell, reason in grid.skipped:
        click.echo(f"{0:4d} to run  skipped  {cell}: {reason}")
    for line in run_bench.remarks(grid):
        click.echo(line)
    return click.echo(run_bench.overview(grid))


def _deadline(grid: Plan, given: dict[str, Any]) -> None:
    from harness.workflows import forecast

    deadline = forecast.duration(given["deadline"])
    past = forecast.known(grid.studies[0].ledger) if grid.studies else []
    with _machines(grid, given["address"]) as resources:
        found = _forecast(grid, past, given, resources)
    forecast.remember(grid, found)
    cuts = forecast.cuts(grid, found, deadline)
    if given["as_json"]:
        return click.echo(json.dumps(forecast.to_json(found, deadline, cuts), indent=1))
    return click.echo(forecast.text(found, deadline, cuts))


def _machines(grid: Plan, address: str | None) -> AbstractContextManager[dict[str, Any]]:
    """What the bench would run on, asked of Ray; of a grid that is done, nobody asks."""
    if not grid.pending:
        return nullcontext({"cpus": 1, "gpus": 0.0, "node_cpus": 1})
    from harness.system import interpreter

    interpreter.check()
    from harness.engine import ray_tune

    return ray_tune.cluster(address)


def _forecast(grid: Plan, past: list[FinishedTrial], given: dict[str, Any], resources: dict[str, Any]) -> Forecast:
    from harness.engine.slots import layout
    from harness.workflows import calibrate, forecast

    here = layout(resources, grid.width, given["threads"], given["gpu"] if grid.pending else None)
    slots = given["slots"] or here.slots
    paces: dict[str, forecast.Pace] = {}
    if unknown := forecast.unknown(grid, past):
        cluster = resources if given["address"] or os.environ.get("RAY_ADDRESS") else None
        paces = calibrate.paces(grid, unknown, replace(here, slots=min(slots, here.slots)), cluster)
    return forecast.of(grid, past, paces, slots, here.threads)

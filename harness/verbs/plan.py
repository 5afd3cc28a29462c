"""What a bench would run."""

from __future__ import annotations

import json
from typing import Any

import click

from harness.verbs._options import grid_options, json_option, request_of

rank = 20


@click.command()
@grid_options
@json_option
def command(**given: Any) -> None:
    """What a bench with these options would run, cell by cell. Fetches and prepares data, trains nothing."""
    show(given)


def show(given: dict[str, Any]) -> None:
    from harness import plan as planning
    from harness import walk
    from harness.ledger import Ledger

    request = request_of(given)
    grid = planning.make(request, Ledger.open(request.home))
    rows = [{**vars(s.cell), "state": s.state, "to_run": s.to_run()} for s in grid.studies]
    if given["as_json"]:
        return click.echo(json.dumps({"counts": grid.counts(), "cells": rows}, indent=1))
    for row in rows:
        cell = " / ".join(str(row[k]) for k in ("dataset", "encoder", "backbone", "adapter"))
        click.echo(f"{row['to_run']:4d} to run  {row['state']:8s} {cell}")
    click.echo(walk.overview(grid))

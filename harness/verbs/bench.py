"""`harness bench`: search every cell, confirm the winners, print the leaderboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from harness.types import INTERRUPTED
from harness.verbs import plan
from harness.verbs._options import (
    BoundedInt,
    FiniteFloat,
    Options,
    grid_options,
    json_option,
    layout_options,
    request_of,
)

if TYPE_CHECKING:
    from harness.workflows import run_bench

rank = 10


@click.command()
@grid_options
@layout_options
@click.option("--tracking", metavar="URI", help="MLflow store, or 'off'.  [default: SQLite in the home]")
@click.option(
    "--watchdog",
    type=FiniteFloat(0),
    default=1800.0,
    show_default=True,
    help="End a trial that shows no progress for this many seconds; 0 disables it.",
)
@click.option(
    "--top-k", type=BoundedInt(0), default=0, help="Store the K best items of each test user.  [default: off]"
)
@click.option(
    "--artifacts",
    metavar="PLACE",
    help="Folder or URL (s3://bucket/prefix) that all nodes reach: workers write checkpoints and weights there instead "
    "of sending them to this machine.  [default: the home]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@json_option
def command(**options: Any) -> None:
    """Search every cell of a grid and print the leaderboard.

    Every cell is searched at the same budget; each winner is retrained over seeds and tested once. Finished work is
    never repeated: the same command resumes an interrupted bench.
    """
    from harness.report import tables

    if options["dry_run"]:
        return plan.show(options)
    outcome = run(options)
    click.echo(tables.render(outcome.table, "json" if options["as_json"] else "terminal"))
    click.echo(f"Report: {outcome.report}", err=True)
    if outcome.signum:
        click.echo(INTERRUPTED, err=True)
        sys.exit(outcome.exit_code)
    click.echo(
        "Run the same command to resume; add trials, seeds, adapters or data sets to extend this grid.", err=True
    )
    sys.exit(outcome.exit_code)


def run(options: Options) -> run_bench.Outcome:
    """Run the bench that the options describe."""
    from harness.workflows import run_bench

    names = ("address", "labels", "threads", "gpu", "tracking", "watchdog", "top_k", "artifacts")
    return run_bench.run(request_of(options), run_bench.Options(**{name: options[name] for name in names}))

"""Search every cell, confirm the winners, print the leaderboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from harness.types import INTERRUPTED
from harness.verbs import plan
from harness.verbs._options import FiniteFloat, grid_options, json_option, layout_options, request_of

if TYPE_CHECKING:
    from harness.workflows import run_bench

rank = 10


@click.command()
@grid_options
@layout_options
@click.option("--tracking", metavar="URI", help="MLflow store; 'off' for none. Default: sqlite in the home.")
@click.option(
    "--watchdog",
    type=FiniteFloat(0),
    default=1800.0,
    show_default=True,
    help="Seconds without a sign of life after which a trial is ended, 0: never.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@json_option
def command(**given: Any) -> None:
    """Search every cell at one budget, retrain the winners over seeds, test once, print the leaderboard."""
    from harness.report import tables

    if given["dry_run"]:
        return plan.show(given)
    outcome = run(given)
    click.echo(tables.render(outcome.table, "json" if given["as_json"] else "terminal"))
    click.echo(f"Report: {outcome.report}", err=True)
    if outcome.signum:
        click.echo(INTERRUPTED, err=True)
        sys.exit(outcome.exit_code)
    click.echo(
        "The same command resumes or, with more trials, seeds, adapters or data sets, grows this grid.", err=True
    )
    sys.exit(outcome.exit_code)


def run(given: dict[str, Any]) -> run_bench.Outcome:
    """The bench that these options ask for."""
    from harness.workflows import run_bench

    names = ("address", "threads", "gpu", "tracking", "watchdog")
    return run_bench.run(request_of(given), run_bench.Options(**{name: given[name] for name in names}))

"""`harness status`: show the progress of the newest bench."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option
from harness.verbs._types import FiniteFloat

rank = 30


@click.command()
@home_option
@click.option(
    "--watch",
    type=FiniteFloat(0.2),
    is_flag=False,
    flag_value=5.0,
    metavar="[SECONDS]",
    help="Refresh every SECONDS (5 if omitted) until the bench is over.",
)
@json_option
def command(home: str, watch: float | None, as_json: bool) -> None:
    """Show the progress of the newest bench.

    Prints cells, best scores so far, time left and failures. Works from another terminal while the bench runs.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import status as reading

    folder = find_home(Path(home))
    while True:
        report = reading.of(folder)
        if watch is not None and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(report, indent=None if watch else 1) if as_json else reading.text(report))
        if watch is None or (report["over"] and not any(bench["running"] for bench in report["background"])):
            return
        sys.stdout.flush()
        time.sleep(watch)

"""Where the newest bench stands."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click

from harness.verbs._options import FiniteFloat, home_option, json_option

rank = 30


@click.command()
@home_option
@click.option(
    "--watch", type=FiniteFloat(0.2), is_flag=False, flag_value=5.0, metavar="[SECONDS]", help="Print it again."
)
@json_option
def command(home: str, watch: float | None, as_json: bool) -> None:
    """Where the newest bench stands: cells, best so far, time left, failures. Works from another terminal.

    --watch prints it again every 5 or so many seconds until the bench is over, over the old one on a terminal.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import status as reading

    folder = find_home(Path(home))
    while True:
        report = reading.of(folder)
        if watch is not None and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(report, indent=None if watch else 1) if as_json else reading.text(report))
        if watch is None or report["over"]:
            return
        sys.stdout.flush()
        time.sleep(watch)

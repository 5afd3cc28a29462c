"""Where the newest bench stands."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option

rank = 30


@click.command()
@home_option
@json_option
def command(home: str, as_json: bool) -> None:
    """Where the newest bench stands: cells, best so far, failures. Works from another terminal."""
    from harness import status as reading
    from harness.store import check_home

    report = reading.of(check_home(Path(home)))
    click.echo(json.dumps(report, indent=1) if as_json else reading.text(report))

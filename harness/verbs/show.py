"""One component or one data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.verbs._options import home_option, json_option, prep_of, prep_options

rank = 60


@click.command()
@click.argument("name")
@prep_options
@home_option
@json_option
def command(name: str, home: str, as_json: bool, **given: Any) -> None:
    """One component (parameters, search space, source) or one data set (card, warnings)."""
    from harness.record.artifacts import find_home
    from harness.workflows import components

    found = components.one(name, find_home(Path(home)), prep_of(given), given["text"])
    click.echo(json.dumps(found, indent=1, default=str) if as_json else components.details(found))

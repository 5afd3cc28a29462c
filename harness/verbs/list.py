"""`harness list`: list all components by name."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.verbs._components import components_option
from harness.verbs._options import home_option, json_option

rank = 50


@click.command()
@components_option
@home_option
@json_option
def command(home: str, as_json: bool) -> None:
    """List all components, and the data sets that are ready here."""
    from harness.record.artifacts import find_home
    from harness.workflows import components

    listing = components.all_of(find_home(Path(home)))
    click.echo(json.dumps(listing, indent=1) if as_json else components.text(listing))

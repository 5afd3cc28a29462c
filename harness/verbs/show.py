"""`harness show`: show one component or one data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.verbs._components import components_option
from harness.verbs._options import home_option, json_option, prep_options
from harness.verbs._request import prep_of

rank = 60


@click.command()
@click.argument("name")
@prep_options
@components_option
@home_option
@json_option
def command(name: str, home: str, as_json: bool, **options: Any) -> None:
    """Show one component or one data set.

    Prints the description (with its paper), parameters and search space of a component, or the card and warnings of a
    data set.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import components

    details = components.one(name, find_home(Path(home)), prep_of(options), options["text"])
    click.echo(json.dumps(details, indent=1, default=str) if as_json else components.details(details))

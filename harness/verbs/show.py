"""`harness show`: show one component or one data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import Options, home_option, json_option, prep_options
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

    Prints the description (with its paper), parameters and search space of a component, the card and warnings of a data
    set, the files of a published setting (--spaces) or the options of a suite.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import components

    details = components.one(name, find_home(Path(home)), prep_of(options), options["text"])
    if details["kind"] != "dataset" and (idle := _set(options)):
        raise HarnessError(f"{', '.join(idle)}: only for a data set; '{name}' is none.")
    click.echo(json.dumps(details, indent=1, default=str) if as_json else components.details(details))


def _set(options: Options) -> list[str]:
    """Return the options of the preparation that are set."""
    context, preparation = click.get_current_context(), {one.name: one.opts[0] for one in command.params}
    return [preparation[name] for name in options if context.get_parameter_source(name) != ParameterSource.DEFAULT]

"""`harness check`: look for faults in a data set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from harness.verbs._components import components_option
from harness.verbs._options import home_option, json_option, prep_options
from harness.verbs._request import prep_of

rank = 90


@click.command()
@click.argument("dataset")
@click.option(
    "--encoder", default="", help="Also check this embedding, e.g. file:E.npy.  [default: minilm, if computed]"
)
@prep_options
@components_option
@home_option
@json_option
def command(dataset: str, encoder: str, home: str, as_json: bool, **options: Any) -> None:
    """Look for faults in a data set, and name remedies.

    Exit code 1 if there is an error.
    """
    from harness.checks import linter
    from harness.record.artifacts import check_home

    report = linter.examine(dataset, check_home(Path(home)), encoder, prep_of(options), options["text"])
    click.echo(json.dumps(report.to_json(), indent=1) if as_json else linter.text(report))
    sys.exit(report.exit_code)

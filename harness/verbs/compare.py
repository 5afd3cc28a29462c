"""Two launches, homes or MLflow stores side by side."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option

rank = 44


@click.command()
@click.argument("a")
@click.argument("b")
@home_option
@json_option
def command(a: str, b: str, home: str, as_json: bool) -> None:
    """Which cells A and B both have, how their tests differ, and what was set differently.

    A and B: launches of the home (as the files of its folder ledger are called), folders of two homes, or MLflow stores
    (mlflow:URI). Exit code 0 if no cell differs, 1 if some do or could not be compared.
    """
    from harness.record.artifacts import find_home
    from harness.report import comparison

    found = comparison.compare(a, b, find_home(Path(home)))
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else comparison.text(found))
    sys.exit(found.exit_code)

"""`harness compare`: compare two launches, homes or MLflow stores."""

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
    """Compare the cells that A and B share.

    Shows the differences of their test scores and of their settings. A and B: launches of the home (names of the files
    in its folder ledger; the cells that each planned), or the newest tables of two homes (folders) or MLflow stores
    (mlflow:URI). Exit code 0 if no cell differs, 1 if some differ or cannot be compared.
    """
    from harness.record.artifacts import find_home
    from harness.report import comparison

    result = comparison.compare(a, b, find_home(Path(home)))
    click.echo(json.dumps(result.to_json(), indent=1) if as_json else comparison.text(result))
    sys.exit(result.exit_code)

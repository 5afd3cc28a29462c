"""A number of a table, made again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from harness.verbs._options import (
    BoundedInt,
    FiniteFloat,
    home_option,
    json_option,
    run_option,
    source_of,
    spaces_options,
)

rank = 45


@click.command()
@click.argument("row")
@click.option("--seeds", type=BoundedInt(1), help="Only the first so many of its seeds.  [default: all]")
@click.option("--tolerance", type=FiniteFloat(0), help="Of NDCG@10.  [default: the interval of the difference]")
@click.option("--dataset", default="", help="Name or folder of its data, where this home no longer has them.")
@click.option("--search", is_flag=True, help="Search its cell again as well, from the first trial, in a scratch home.")
@spaces_options
@run_option
@home_option
@json_option
def command(row: str, home: str, search: bool, as_json: bool, **given: Any) -> None:
    """Train a ROW's winner again with its seeds and compare the numbers; the home stays as it is.

    ROW: dataset/encoder/backbone/adapter as tables name it (parts may be left out), or the id of a trial or study. Exit
    code 0 if the numbers are equal or not distinguishable, 1 if they differ.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import reproduce

    folder = find_home(Path(home))
    asked = reproduce.ReproduceRequest(row, given["dataset"], given["run"], given["seeds"], given["tolerance"])
    if search:
        found = reproduce.search(folder, asked, source_of(given), _say)
    else:
        found = reproduce.run(folder, asked, _say)
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else reproduce.text(found))
    sys.exit(found.exit_code)


def _say(line: str) -> None:
    click.echo(line, err=True)

"""A number of a table, made again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from harness.verbs._options import home_option, json_option, run_option

rank = 45


@click.command()
@click.argument("row")
@click.option("--seeds", type=click.IntRange(1), help="Only the first so many of its seeds.  [default: all]")
@click.option("--tolerance", type=click.FloatRange(0), help="Of NDCG@10.  [default: the interval of the difference]")
@click.option("--dataset", default="", help="Name or folder of its data, where this home no longer has them.")
@run_option
@home_option
@json_option
def command(row: str, home: str, as_json: bool, **given: Any) -> None:
    """Train a ROW's winner again with its seeds and compare the numbers; the home stays as it is.

    ROW: dataset/encoder/backbone/adapter as tables name it (parts may be left out), or the id of a trial or study. Exit
    code 0 if the numbers are equal or not distinguishable, 1 if they differ.
    """
    from harness import reproduce
    from harness.store import check_home

    found = reproduce.run(
        check_home(Path(home)),
        row,
        dataset=given["dataset"],
        launch=given["run"],
        seeds=given["seeds"],
        tolerance=given["tolerance"],
        say=lambda line: click.echo(line, err=True),
    )
    click.echo(json.dumps(found.to_json(), indent=1) if as_json else reproduce.text(found))
    sys.exit(found.exit_code)

"""`harness merge`: join published results in a home."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option
from harness.verbs._types import UserPath

rank = 49


@click.command()
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=UserPath())
@home_option
@json_option
def command(folders: tuple[Path, ...], home: str, as_json: bool) -> None:
    """Join published results in a home.

    Rows with the same protocol, preparation, search settings (sampler, pruner, warm start, search seed), epochs,
    patience and tie rule then share a table (`harness leaderboard`). A trial that several publications have counts
    once. If two have different results of one trial, nothing is merged.
    """
    from harness.record.artifacts import check_home
    from harness.workflows import merge

    target = check_home(Path(home))
    result = merge.run(folders, target)
    if as_json:
        return click.echo(json.dumps(merge.to_json(result)))
    shared = f", {result.known} of them in several sources" if result.known else ""
    click.echo(
        f"Added {result.segments} segments and {result.ranks} rank files to {home}: {result.trials} trials{shared}."
    )
    return click.echo(f"Show them with: harness leaderboard --home {home}", err=True)

"""`harness paper`: compare published numbers with ours."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option, run_option

rank = 47


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@run_option
@home_option
@json_option
def command(files: tuple[str, ...], run: str | None, home: str, as_json: bool) -> None:
    """Compare published numbers with this home's table.

    Shows each gap and how the protocols differ. FILE: name of a shipped paper, or a TOML file of yours (default: all
    shipped papers).
    """
    from harness.record.artifacts import find_home
    from harness.report import published

    papers = [published.read(word) for word in files or published.names()]
    table = published.table_of(find_home(Path(home)), run)
    pairs = [(paper, published.compare(paper, table)) for paper in papers]
    click.echo(json.dumps(published.to_json(pairs), indent=1) if as_json else published.text(pairs))

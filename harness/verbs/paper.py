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

    Shows each gap, how the protocols differ, and how far papers differ on the same row. FILE: name of a shipped paper,
    or a TOML file of yours (default: all shipped papers).
    """
    from harness.record.artifacts import find_home
    from harness.report import published, published_levels, tables

    shipped = {name: published.read(name) for name in published.names()}
    papers = [published.read(word) for word in files] or list(shipped.values())
    others = [paper for paper in shipped.values() if paper not in papers]
    levels = published_levels.levels([*papers, *others])
    table = published.table_of(find_home(Path(home)), run)
    pairs = [(paper, published.compare(paper, table)) for paper in papers]
    if as_json:
        click.echo(json.dumps(tables.finite(published_levels.to_json(pairs, levels)), indent=1))
    else:
        click.echo("\n\n".join(filter(None, [published.text(pairs), published_levels.text(levels, pairs)])))

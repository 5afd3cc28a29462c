"""A folder of the user's own by name."""

from __future__ import annotations

from pathlib import Path

import click

from harness.verbs._options import home_option

rank = 80


@click.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@home_option
def command(name: str, folder: Path, home: str) -> None:
    """Give a folder of your own a name, so that --datasets NAME (and 'all') finds it."""
    from harness import raw
    from harness.store import check_home

    found = raw.register(name, folder, check_home(Path(home)))
    click.echo(f"{name} is {found.interactions.parent}.")

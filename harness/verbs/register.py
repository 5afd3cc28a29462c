"""A folder of the user's own by name."""

from __future__ import annotations

from pathlib import Path

import click

from harness.types import HarnessError
from harness.verbs._options import home_option

rank = 80


@click.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--embedding",
    "embeddings",
    multiple=True,
    metavar="WORD=FILE",
    help="A matrix of its items, in the folder or elsewhere: --encoders own:WORD reads it.",
)
@home_option
def command(name: str, folder: Path, embeddings: tuple[str, ...], home: str) -> None:
    """Give a folder of your own a name, so that --datasets NAME (and 'all') finds it."""
    from harness.data import reader
    from harness.record.artifacts import check_home

    found = reader.register(name, folder, check_home(Path(home)), dict(map(_named, embeddings)))
    click.echo(f"{name} is {found.interactions.parent}.")
    for note in found.notes:
        click.echo(f"{note}.", err=True)
    for word, file in found.matrices.items():
        click.echo(f"own:{word} of {name} is {file}.")


def _named(given: str) -> tuple[str, Path]:
    word, equals, file = given.partition("=")
    if not (word and equals and file):
        raise HarnessError(f"--embedding '{given}': write it as a word of yours, =, and a file: titles=E.npy.")
    return word, Path(file)

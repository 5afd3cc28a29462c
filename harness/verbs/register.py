"""`harness register`: register a folder as a named data set."""

from __future__ import annotations

from pathlib import Path

import click

from harness.paths import expanded
from harness.types import HarnessError
from harness.verbs._options import home_option
from harness.verbs._study import LongName
from harness.verbs._types import UserPath

rank = 80


@click.command()
@click.argument("name")
@click.argument("folder", type=UserPath())
@click.option(
    "--embedding",
    "embeddings",
    cls=LongName,
    multiple=True,
    metavar="WORD=FILE",
    help="Embedding matrix of its items, in any folder; select it with --encoders own:WORD.",
)
@home_option
def command(name: str, folder: Path, embeddings: tuple[str, ...], home: str) -> None:
    """Register a folder as data set NAME.

    `--datasets NAME` and 'all' then select it.
    """
    from harness.data import reader
    from harness.record.artifacts import check_home

    dataset = reader.register(name, folder, check_home(Path(home)), dict(map(_named, embeddings)))
    click.echo(f"Registered {name}: {dataset.interactions.parent}")
    for note in dataset.notes:
        click.echo(f"{note}.", err=True)
    for word, file in dataset.matrices.items():
        click.echo(f"Registered own:{word} of {name}: {file}")


def _named(pair: str) -> tuple[str, Path]:
    """Split WORD=FILE."""
    word, equals, file = pair.partition("=")
    if not (word and equals and file):
        raise HarnessError(f"--embedding '{pair}' is not WORD=FILE, such as titles=E.npy.")
    return word, expanded(file)

"""`harness publish`: write results to a folder that stands alone, or an index of such folders."""

from __future__ import annotations

from pathlib import Path

import click

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import home_option
from harness.verbs._types import UserPath

rank = 48


@click.command()
@components_option
@click.argument("folder", metavar="[DIR]", required=False, type=UserPath())
@click.option(
    "--index",
    type=UserPath(),
    metavar="FOLDER",
    help="Write index.html over the publications in FOLDER; needs no DIR.",
)
@home_option
def command(folder: Path | None, index: Path | None, home: str) -> None:
    """Write all results to a self-contained folder.

    DIR, which must be missing or empty, gets tables, report, ranks, ledger, study files, hashes and licence notes,
    and nothing of the data sets. Check it with `harness verify DIR`.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import publication_index, publish

    if folder is None and index is None:
        raise HarnessError(
            "Name the folder to write (harness publish DIR) or to list (harness publish --index FOLDER)."
        )
    if folder is not None:
        found = publish.write(find_home(Path(home)), folder.absolute())
        click.echo(f"Published {len(found.manifest['runs'])} runs in {folder} (manifest sha256 {found.seal}).")
        click.echo(f"Check it with: harness verify {folder}", err=True)
    if index is not None:
        page, count, left_out = publication_index.write(index)
        for line in left_out:
            click.echo(f"Left out: {line}", err=True)
        click.echo(f"Listed {count} publication{'s' if count != 1 else ''} in {page}.")

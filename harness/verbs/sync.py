"""`harness sync`: copy missing trials from the ledger to MLflow."""

from __future__ import annotations

from pathlib import Path

import click

from harness.verbs._options import home_option

rank = 100


@click.command()
@home_option
@click.option("--tracking", metavar="URI", help="MLflow store.  [default: SQLite in the home]")
def command(home: str, tracking: str | None) -> None:
    """Copy missing trials from the ledger to MLflow."""
    from harness.record import tracking as mirror
    from harness.record.artifacts import check_home
    from harness.record.ledger import Ledger

    folder = check_home(Path(home))
    count = mirror.sync(
        tracking or mirror.default_uri(folder), folder, Ledger.open(folder), lambda t: click.echo(t, err=True)
    )
    click.echo(f"{count} trials written to MLflow." if count else "MLflow has every trial of the ledger.")

"""`harness sync`: copy missing trials and the newest report to MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.types import HarnessError
from harness.verbs._options import home_option

if TYPE_CHECKING:
    from harness.record.ledger import Ledger

rank = 100


@click.command()
@home_option
@click.option("--tracking", metavar="URI", help="MLflow store.  [default: SQLite in the home]")
def command(home: str, tracking: str | None) -> None:
    """Copy missing trials and the newest report to MLflow."""
    from harness.record.artifacts import check_home, find_home

    folder = find_home(Path(home))
    folder = check_home(folder) if folder.exists() else folder  # before MLflow's module, which sets a missing HOME
    from harness.record import tracking as mirror
    from harness.record import tracking_uri
    from harness.record.ledger import Ledger

    uri, ledger = tracking or mirror.default_uri(folder), Ledger.open(folder)
    tracking_uri.check(uri)
    if not ledger.trials and not ledger.launches:
        raise HarnessError(f"{folder} holds no results yet; run: harness bench --home {folder}")
    try:
        count = mirror.sync(uri, folder, ledger, lambda t: click.echo(t, err=True))
    except mirror.RefusedTrials:
        show_report(uri, folder, ledger)
        raise
    show_report(uri, folder, ledger)
    click.echo(f"{count} trials written to MLflow." if count else "MLflow has every trial of the ledger.")


def show_report(uri: str, home: Path, ledger: Ledger) -> None:
    """Write the newest report of a home to MLflow, unless MLflow shows it."""
    from harness.report import report_files
    from harness.workflows import mlflow_page

    report = report_files.existing(home, report_files.inputs_hash(ledger))
    if report is not None and mlflow_page.show(uri, home, ledger, report):
        click.echo(f"MLflow shows the report {report.parent.name} in the newest bench.", err=True)

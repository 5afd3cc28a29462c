"""`harness leaderboard`: print the table of the results so far."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import home_option, run_option
from harness.verbs._study import LongName
from harness.verbs._types import BoundedInt, UserPath

if TYPE_CHECKING:
    from harness.report.tables import Table

rank = 40


@click.command()
@components_option
@home_option
@click.option(
    "--format",
    "form",
    cls=LongName,
    help="terminal, md, tex, csv, ... Default: by the suffix of --output, or terminal.",
)
@click.option("--output", type=UserPath(), help="Write to this file instead of stdout.")
@run_option
@click.option("--from-mlflow", metavar="URI", is_flag=False, flag_value="default", help="Build it from MLflow only.")
@click.option("--at-trials", type=BoundedInt(1), metavar="K", help="Rank as if each search had stopped after K trials.")
@click.option("--lists", is_flag=True, help="In the terminal: also show coverage, novelty and the like.")
@click.option("--notes", is_flag=True, help="In the terminal: also show all notes, statistics and provenance.")
@click.option("--wide", is_flag=True, help="In the terminal: show all columns, whatever the width.")
@click.option("--slices", is_flag=True, help="In the terminal: also show scores on parts of the test set.")
def command(
    home: str,
    form: str | None,
    output: Path | None,
    run: str | None,
    from_mlflow: str | None,
    at_trials: int | None,
    **more: bool,
) -> None:
    """Print the results so far, from the ledger or from MLflow."""
    from harness.record import artifacts
    from harness.record.ledger import Ledger
    from harness.report import ledger_frames, tables

    folder = artifacts.find_home(Path(home))
    if output is not None and not output.name:
        raise HarnessError(f"--output '{output}' is no file name; give one such as table.md.")
    form = form or tables.format_of(output)
    tables.check_format(form)
    if form != "terminal" and (idle := [f"--{name}" for name, wanted in more.items() if wanted]):
        raise HarnessError(
            f"{', '.join(idle)}: only for --format terminal; the format is '{form}', which has no such choice."
        )
    if from_mlflow is None:
        ledger, beside = Ledger.open(folder), artifacts.sources(folder)
    else:
        from harness.record import tracking

        uri = tracking.default_uri(folder) if from_mlflow == "default" else from_mlflow
        ledger, beside = tracking.read(uri, folder)
    table = tables.build(ledger_frames.build(ledger, beside, run, at_trials))
    content = rendered(table, form, **more)
    if output is None:
        if isinstance(content, bytes) and sys.stdout.isatty():
            raise HarnessError(f"--format {form} is binary; write it to a file with --output.")
        return click.echo(content, nl=not isinstance(content, bytes))
    try:
        tables.save(content if isinstance(content, bytes) else click.unstyle(content), output)
    except OSError as error:
        raise HarnessError(f"--output {output} cannot be written: {error.strerror}.") from error
    return click.echo(f"Wrote {output}", err=True)


def rendered(table: Table, form: str, *, notes: bool, wide: bool, slices: bool, lists: bool) -> str | bytes:
    """Return the table and, for the terminal, the notes, columns and tables that are asked for."""
    from harness.report import tables
    from harness.report.tables import terminal

    if form != "terminal":
        return tables.render(table, form)
    parts = [terminal.render(table, notes=notes, wide=wide)]
    parts += [more(table) for wanted, more in ((slices, terminal.slices), (lists, terminal.lists)) if wanted]
    return "\n".join(parts)

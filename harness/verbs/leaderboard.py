"""The table of what is complete so far."""

from __future__ import annotations

from pathlib import Path

import click

from harness.types import HarnessError
from harness.verbs._options import home_option

rank = 40


@click.command()
@home_option
@click.option("--format", "form", default="terminal", show_default=True, help="terminal, md, csv, json or html.")
@click.option("--output", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
@click.option("--run", help="The table as it stood at this launch.")
@click.option("--from-mlflow", metavar="URI", is_flag=False, flag_value="default", help="Build it from MLflow alone.")
def command(home: str, form: str, output: Path | None, run: str | None, from_mlflow: str | None) -> None:
    """The table of what is complete so far, out of the ledger (or of MLflow)."""
    from harness import results, store, tables
    from harness.files import write_text
    from harness.ledger import Ledger

    folder = store.check_home(Path(home))
    tables.check_format(form)
    if from_mlflow is None:
        ledger, ranks_of = Ledger.open(folder), lambda trial_id: store.load_ranks(folder, trial_id)
    else:
        from harness import tracking

        uri = tracking.default_uri(folder) if from_mlflow == "default" else from_mlflow
        ledger, ranks_of = tracking.read(uri, folder)
    text = tables.render(tables.build(results.build(ledger, ranks_of, run)), form)
    if output is None:
        return click.echo(text)
    try:
        write_text(output, text)
    except OSError as error:
        raise HarnessError(f"--output {output} cannot be written: {error.strerror}.") from error
    return click.echo(f"Wrote {output}", err=True)

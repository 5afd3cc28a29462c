"""`harness export`: write the model of a row to a folder that needs no home."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import click

from harness.verbs._options import home_option, json_option, run_option

rank = 46


@click.command()
@click.argument("row")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to create; must not exist.")
@click.option("--seed", type=int, help="Seed of the confirmed run.  [default: best in validation]")
@click.option("--dataset", default="", help="Name or folder of the data set, if this home no longer has it.")
@run_option
@click.option("--mlflow", is_flag=True, help="Also write an MLflow model, to the subfolder mlflow.")
@home_option
@json_option
def command(row: str, output: Path, seed: int | None, home: str, **options: Any) -> None:
    """Export the model of a ROW of the table.

    Writes item table, backbone, ids, map for unseen items and self-test. ROW: dataset/encoder/backbone/adapter as in
    tables (parts may be left out), or the id of a trial or study.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import export

    report = export.write(find_home(Path(home)), row, output, seed, options["dataset"], options["run"])
    if options["mlflow"]:
        from harness.record import tracking

        tracking.save_model(output / "mlflow", output)
    fields = {
        key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(report).items()
    }
    if options["as_json"]:
        return click.echo(json.dumps(fields, indent=1))
    click.echo(f"{report.row}, seed {report.seed} -> {report.folder}")
    click.echo(f"Test ranks equal to the bench's: {report.equal:,} of {report.queries:,}.")
    return click.echo(f"Unseen items: {report.unseen_items}.")

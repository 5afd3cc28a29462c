"""A row's model as a folder that needs no home."""

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
@click.option("--output", required=True, type=click.Path(path_type=Path), help="Folder to write; must not exist yet.")
@click.option("--seed", type=int, help="Which of its confirmed runs.  [default: the best in validation]")
@click.option("--dataset", default="", help="Name or folder of its data, where this home no longer has them.")
@run_option
@click.option("--mlflow", is_flag=True, help="Also write an MLflow model, in the folder mlflow.")
@home_option
@json_option
def command(row: str, output: Path, seed: int | None, home: str, **given: Any) -> None:
    """The model of a ROW: item table, backbone, ids, map for unseen items, self-test.

    ROW: dataset/encoder/backbone/adapter as tables name it (parts may be left out), or the id of a trial or study.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import export

    report = export.write(find_home(Path(home)), row, output, seed, given["dataset"], given["run"])
    if given["mlflow"]:
        from harness.record import tracking

        tracking.save_model(output / "mlflow", output)
    found = {key: str(value) if isinstance(value, Path) else value for key, value in dataclasses.asdict(report).items()}
    if given["as_json"]:
        return click.echo(json.dumps(found, indent=1))
    click.echo(f"{report.row}, seed {report.seed} -> {report.folder}")
    click.echo(f"Test ranks equal to the bench's: {report.equal:,} of {report.queries:,}.")
    return click.echo(f"Unseen items: {report.unseen_items}.")

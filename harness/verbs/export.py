"""`harness export`: write the model of a row to a folder that needs no home, or its lists to a file."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import Options, home_option, json_option, run_option
from harness.verbs._types import BoundedInt, UserPath

if TYPE_CHECKING:
    from harness.overlay import Overlay
    from harness.workflows.export import ExportReport

rank = 46


@click.command()
@click.argument("row")
@click.option(
    "--output",
    required=True,
    type=UserPath(),
    help="Folder, or file with --lists, to create; must not exist.",
)
@click.option("--seed", type=int, help="Seed of the confirmed run.  [default: best in validation]")
@click.option("--fold", type=BoundedInt(0), help="Test window of the run, with windows.  [default: the last]")
@click.option("--dataset", default="", help="Name or folder of the data set, if this home no longer has it.")
@run_option
@click.option("--lists", is_flag=True, help="Write the top lists of the test users instead of the model.")
@click.option("--top-k", type=BoundedInt(1), help="Items per list, with --lists.  [default: 10]")
@click.option("--mlflow", is_flag=True, help="Also write an MLflow model, to the subfolder mlflow.")
@click.option("--onnx", is_flag=True, help="Also write the model as an ONNX graph, backbone.onnx, and test it.")
@click.option("--tracking", metavar="URI", help="Also log that model in this MLflow store, with --mlflow.")
@components_option
@home_option
@json_option
def command(row: str, output: Path, seed: int | None, home: str, **options: Any) -> None:
    """Export the model of a ROW, or the items it recommends.

    Writes item table, backbone, ids, map for unseen items and self-test; with --lists, a Parquet file of query,
    user_id, item_id, rank and score. ROW: dataset/encoder/backbone/adapter as in
    tables (parts may be left out), or the id of a trial or study.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import export

    if options["lists"]:
        return write_lists(row, output, seed, home, options)
    if options["top_k"] is not None:
        raise HarnessError("--top-k sets the length of lists; add --lists.")
    if options["tracking"] and not options["mlflow"]:
        raise HarnessError("--tracking logs the MLflow model; add --mlflow.")
    if options["onnx"]:
        from harness.workflows import export_onnx

        export_onnx.require()
    words = (options["dataset"], options["run"], options["fold"])
    report = export.write(find_home(Path(home)), row, output, seed, *words, check=check_of(options["tracking"]))
    if options["mlflow"]:
        write_mlflow(report, export.own_components(report.folder), options["tracking"])
    graph = write_onnx(report.folder) if options["onnx"] else None
    if options["as_json"]:
        return click.echo(as_json(report, {"onnx": graph} if graph else {}))
    click.echo(f"{report.row}, seed {report.seed} -> {report.folder}")
    click.echo(f"Test ranks equal to the bench's: {report.equal:,} of {report.queries:,}.")
    if graph:
        lengths = ", ".join(map(str, graph.lengths))
        click.echo(
            f"{graph.file.name}: differs from PyTorch by at most {graph.difference:.1g} of the largest output "
            f"(lengths {lengths}; {graph.evaluator})."
        )
    return click.echo(f"Unseen items: {report.unseen_items}.")


def check_of(uri: str | None) -> Callable[[str], None]:
    """Return a check that raises HarnessError unless a trial is in the MLflow store, if there is one to log in."""
    if not uri:
        return lambda _: None
    from harness.record import mlflow_client

    return lambda trial_id: mlflow_client.mirrored_run(uri, trial_id)


def write_mlflow(report: ExportReport, own: Overlay, uri: str | None) -> None:
    """Write the MLflow model of an export to its subfolder and, if a store is given, log it there."""
    from harness.record import mlflow_client

    folder = report.folder / "mlflow"
    mlflow_client.save_model(folder, report.folder, own)
    if not uri:
        return
    name = re.sub(r"[/:.%\"'\s]+", "-", report.row)  # characters that MLflow's names do not admit
    try:
        model = mlflow_client.log_model(uri, report.trial, name, folder)
    except HarnessError as error:
        raise HarnessError(f"{error} The export in {report.folder} is complete.") from error
    click.echo(f"Logged in MLflow as model {name} ({model}).", err=True)


def write_onnx(folder: Path) -> Any:
    """Write the ONNX graph of an exported model beside it; raises HarnessError as `export_onnx.write`."""
    from harness.training import exported_model
    from harness.workflows import export_onnx

    return export_onnx.write(exported_model.load(folder), folder / export_onnx.FILE)


def write_lists(row: str, output: Path, seed: int | None, home: str, options: Options) -> None:
    """Write the lists of a row. Raises HarnessError as `export_lists.write`, or for an option that needs a model."""
    from harness.record.artifacts import find_home
    from harness.workflows import export_lists

    if options["mlflow"]:
        raise HarnessError("--mlflow and --lists exclude each other: --lists writes no model.")
    if options["onnx"]:
        raise HarnessError("--onnx and --lists exclude each other: --lists writes no model.")
    if options["tracking"]:
        raise HarnessError("--tracking and --lists exclude each other: --lists writes no model to log.")
    request = export_lists.ListsRequest(
        row, options["top_k"] or 10, seed, options["dataset"], options["run"], options["fold"]
    )
    report = export_lists.write(find_home(Path(home)), request, output)
    if options["as_json"]:
        return click.echo(as_json(report))
    click.echo(
        f"{report.row}, seed {report.seed}: top {report.top_k} of {report.queries:,} test targets, {report.source}"
    )
    click.echo(f"Test ranks equal to the bench's: {report.equal:,} of {report.queries:,}.")
    return click.echo(f"Lists: {report.file}")


def as_json(report: Any, parts: dict[str, Any] | None = None) -> str:
    """Return a report, a dataclass, as JSON, with further reports by name."""
    further = {name: dataclasses.asdict(part) for name, part in (parts or {}).items()}
    return json.dumps(dataclasses.asdict(report) | further, indent=1, default=str)

"""`harness reproduce`: retrain a row's winner and compare the numbers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import home_option, json_option, run_option, spaces_options
from harness.verbs._request import source_of
from harness.verbs._types import BoundedInt, FiniteFloat

rank = 45
interrupted = "Interrupted. The home is unchanged; the same command starts from the beginning."


@click.command()
@click.argument("row")
@click.option("--seeds", type=BoundedInt(1), help="Number of its seeds to use, from the first.  [default: all]")
@click.option(
    "--tolerance", type=FiniteFloat(0), help="Allowed difference of NDCG@10.  [default: its confidence interval]"
)
@click.option("--dataset", default="", help="Name or folder of the data set, if this home no longer has it.")
@click.option(
    "--search", is_flag=True, help="Also repeat the search of its cell from the first trial, in a temporary home."
)
@click.option("--encoder", default="", help="With --search: the row's encoder, for example file:FOLDER/E.npy.")
@spaces_options
@run_option
@components_option
@home_option
@json_option
def command(row: str, home: str, search: bool, as_json: bool, **options: Any) -> None:
    """Retrain the winner of a ROW and compare the numbers.

    Uses the recorded seeds and leaves the home unchanged. ROW: dataset/encoder/backbone/adapter as in tables (parts may
    be left out), or the id of a trial or study. Exit code 0 if the numbers are equal or indistinguishable, 1 if they
    differ. With --search: repeats the search too; give the --spaces and --set of its bench. The search of a row with a
    warm start cannot be repeated.
    """
    from harness.record.artifacts import find_home
    from harness.workflows import reproduce

    folder = find_home(Path(home))
    request = reproduce.ReproduceRequest(
        row, options["dataset"], options["run"], options["seeds"], options["tolerance"], options["encoder"]
    )
    if search:
        result = reproduce.search(folder, request, source_of(options), _log)
    elif options["spaces"] or options["set"] or options["encoder"]:
        raise HarnessError("--spaces, --set and --encoder need --search: they describe the search that is repeated.")
    else:
        result = reproduce.run(folder, request, _log)
    click.echo(json.dumps(result.to_json(), indent=1) if as_json else reproduce.text(result))
    sys.exit(result.exit_code)


def _log(line: str) -> None:
    click.echo(line, err=True)

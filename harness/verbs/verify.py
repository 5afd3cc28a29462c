"""`harness verify`: check a published folder and recompute its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.verbs._components import components_option
from harness.verbs._options import json_option
from harness.verbs._types import UserPath

rank = 49


@click.command()
@components_option
@click.argument("folder", metavar="DIR", type=UserPath())
@json_option
def command(folder: Path, as_json: bool) -> None:
    """Check a published folder and recompute its tables.

    Compares hashes, ledger, scores of the ranks and every table cell. Exit code 0 if all are equal, 1 if something
    differs (each difference is named), 2 if DIR is no publication.
    """
    from harness.workflows import verify

    verdict = verify.run(folder)
    if as_json:
        click.echo(verify.to_json(verdict))
    else:
        for line in (*verdict.skipped, *verdict.faults, verdict.line):
            click.echo(line.encode(errors="backslashreplace").decode())  # names of a foreign manifest
    sys.exit(1 if verdict.faults else 0)

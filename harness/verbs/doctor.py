"""`harness doctor`: check this machine's setup."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option

rank = 110


@click.command()
@home_option
@json_option
def command(home: str, as_json: bool) -> None:
    """Check this machine's setup.

    Covers versions, cores, memory, disk, the home folder with its config.toml, variables, components of your own, the
    cluster at RAY_ADDRESS, and the file modes of secrets. Exit code 1 if a check fails.
    """
    from harness.workflows import doctor as checks

    report = checks.examine(Path(home))
    click.echo(json.dumps(report, indent=1) if as_json else checks.text(report))
    sys.exit(0 if all(check["ok"] for check in report["checks"]) else 1)

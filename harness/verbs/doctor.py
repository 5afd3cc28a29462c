"""Is this machine fit?"""

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
    """Whether this machine is fit: versions, cores, memory, disk, the home folder, secrets' file modes."""
    from harness.workflows import doctor as checks

    found = checks.examine(Path(home))
    click.echo(json.dumps(found, indent=1) if as_json else checks.text(found))
    sys.exit(0 if all(check["ok"] for check in found["checks"]) else 1)

"""`harness cache`: show disk use of the home folder and delete what is no longer needed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from harness.verbs._options import home_option, json_option
from harness.verbs._types import FiniteFloat

rank = 105


@click.command()
@click.option(
    "--gc",
    is_flag=True,
    help="Delete checkpoints of ended trials and old partial files, damaged files, calibrations and forecasts.",
)
@click.option("--dry-run", is_flag=True, help="With --gc: only list what would be deleted.")
@click.option(
    "--days",
    type=FiniteFloat(0),
    default=30.0,
    show_default=True,
    help="Keep damaged files, calibrations and the forecast for this many days.",
)
@home_option
@json_option
def command(gc: bool, dry_run: bool, days: float, home: str, as_json: bool) -> None:
    """Show disk use of the home; --gc deletes leftovers."""
    from harness.record import housekeeping
    from harness.record.artifacts import find_home

    folder = find_home(Path(home))
    kinds, waste = housekeeping.survey(folder), housekeeping.waste(folder, days)
    freed = housekeeping.remove(waste) if gc and not dry_run else None
    if as_json:
        listed = [asdict(item) | {"path": str(item.path)} for item in waste]
        return click.echo(json.dumps({"home": str(folder), "kinds": kinds, "waste": listed, "freed": freed}, indent=1))
    for row in kinds:
        click.echo(f"{_amount(row['bytes']):>9s}  {row['files']:7,d} files  {row['kind']:17s} {row['what']}".rstrip())
    for item in waste if gc else []:
        click.echo(f"{'Would delete' if dry_run else 'Deleted'} {item.path.relative_to(folder)}: {item.why}")
    if freed is not None:
        click.echo(f"Freed {_amount(freed)}.")
    elif waste:
        total = _amount(sum(item.size for item in waste))
        click.echo(f"{len(waste)} files or folders ({total}) can be deleted: harness cache --gc")
    return None


def _amount(size: int) -> str:
    """Format a number of bytes with a unit.

    >>> _amount(999), _amount(1_500_000)
    ('999 B', '1.5 MB')
    """
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"

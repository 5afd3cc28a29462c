"""What a home folder holds, and what of it can go."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from harness.verbs._options import FiniteFloat, home_option, json_option

rank = 105


@click.command()
@click.option("--gc", is_flag=True, help="Remove checkpoints of runs that are over, half-made files, damaged ones.")
@click.option("--dry-run", is_flag=True, help="With --gc: only say what would go.")
@click.option(
    "--days",
    type=FiniteFloat(0),
    default=30.0,
    show_default=True,
    help="Keep what was set aside as damaged, calibrations and the forecast so long.",
)
@home_option
@json_option
def command(gc: bool, dry_run: bool, days: float, home: str, as_json: bool) -> None:
    """What is in the home folder, by kind and size; --gc removes what nobody needs any more."""
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
        click.echo(f"{'Would remove' if dry_run else 'Removed'} {item.path.relative_to(folder)}: {item.why}")
    total = _amount(sum(item.size for item in waste))
    if freed is not None:
        click.echo(f"{_amount(freed)} came free.")
    elif waste:
        click.echo(f"{total} in {len(waste)} files or folders can go: harness cache --gc")
    return None


def _amount(size: int) -> str:
    """Bytes for people."""
    value, unit = float(size), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"

"""`harness new`: write a working example of a component of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from harness.verbs._types import UserPath

rank = 55
KINDS = ("adapter", "backbone", "loss", "encoder", "baseline", "metric", "list-metric", "dataset", "table")


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("name")
@click.option("--output", required=True, type=UserPath(), help="Folder for --components; created if missing.")
def command(kind: str, name: str, output: Path) -> None:
    """Write a working component to begin from.

    Its file and, where it has one, its search space.

    KIND: adapter, backbone, loss, encoder, baseline, metric, list-metric, dataset or table (a table format). Existing
    files are never overwritten.
    """
    from harness.workflows import new_component

    for path in new_component.write(kind, name, output):
        click.echo(f"Wrote {path}")
    click.echo(new_component.next_steps(kind, name, output), err=True)

"""`harness prepare`: fetch and prepare data sets, compute embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.types import HarnessError
from harness.verbs._components import components_option
from harness.verbs._options import home_option, json_option, prep_options
from harness.verbs._request import prep_of
from harness.verbs._types import FiniteFloat

rank = 70


@click.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--encoders", default="minilm", show_default=True, help="Embeddings to compute; '' for none.")
@click.option(
    "--cost",
    type=FiniteFloat(0),
    metavar="PRICE",
    help="Only estimate the cost of api: encoders, at PRICE per million tokens.",
)
@prep_options
@components_option
@home_option
@json_option
def command(**options: Any) -> None:
    """Fetch and prepare data sets, compute embeddings and bases.

    Finished work is not repeated.
    """
    from harness.record.artifacts import check_home
    from harness.workflows import components

    home = check_home(Path(options["home"]))
    spec = prep_of(options)
    if options["cost"] is not None and options["as_json"]:
        raise HarnessError("--cost has no JSON output; omit --json.")
    if options["cost"] is not None:
        for word in options["datasets"]:
            click.echo(
                "\n".join(components.price(word, options["encoders"], spec, home, options["cost"], options["text"]))
            )
        return
    cards = [components.prepare(word, options["encoders"], spec, home, options["text"]) for word in options["datasets"]]
    click.echo(
        json.dumps(cards, indent=1, default=str) if options["as_json"] else "\n\n".join(map(components.details, cards))
    )

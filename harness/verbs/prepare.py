"""Fetch, prepare, embed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.verbs._options import FiniteFloat, home_option, json_option, prep_of, prep_options

rank = 70


@click.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--encoders", default="minilm", show_default=True, help="Embeddings to compute as well; '' for none.")
@click.option(
    "--cost", type=FiniteFloat(0), metavar="PRICE", help="Only say what api: encoders would cost at PRICE a 1M tokens."
)
@prep_options
@home_option
@json_option
def command(**given: Any) -> None:
    """Fetch and prepare data sets, compute embeddings and bases. Done twice, it only says that it is done."""
    from harness.record.artifacts import check_home
    from harness.workflows import components

    home = check_home(Path(given["home"]))
    spec = prep_of(given)
    if given["cost"] is not None:
        for word in given["datasets"]:
            click.echo("\n".join(components.price(word, given["encoders"], spec, home, given["cost"], given["text"])))
        return
    cards = [components.prepare(word, given["encoders"], spec, home, given["text"]) for word in given["datasets"]]
    click.echo(
        json.dumps(cards, indent=1, default=str) if given["as_json"] else "\n\n".join(map(components.details, cards))
    )

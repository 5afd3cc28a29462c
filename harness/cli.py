"""The command line: parse, one call, print. stdout is the result, stderr the progress. Imports nothing heavy."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.types import BUDGETS, Budget, Engine, HarnessError, PrepSpec, Protocol

if TYPE_CHECKING:
    from harness.plan import Request

HOME = "~/.harness"


class Verbs(click.Group):
    """Verbs in the order a newcomer meets them; faults of the input are one line and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("\nInterrupted. What ended is kept; the same command goes on from here.", err=True)
            ctx.exit(130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="harness-bench", prog_name="harness")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def main(debug: bool) -> None:
    """Which way of turning LLM text embeddings into item embeddings helps sequential recommendation?

    \b
    harness bench --datasets all --adapters all      search the grid, print the leaderboard
    harness plan  --datasets all --adapters all      what that would run
    harness list                                     adapters, backbones, encoders, data sets
    """


def options(*decorators: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Several click options as one decorator, shown in the order given."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


home_option = click.option(
    "--home", envvar="HARNESS_HOME", default=HOME, show_default=True, help="Folder of data, caches and results."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
prep_options = options(
    click.option(
        "--prep",
        default="default",
        show_default=True,
        help="Preparation: default, raw, spectran, s3rec, llm-esr, minionerec, amazon2023; single options override it.",
    ),
    click.option("--text", default="", metavar="TEMPLATE", help="Of an item's text: '{title}. {brand}. {categories}'."),
    click.option("--tie-policy", help="source, item_id or random:<seed>.  [default: source]"),
    click.option("--kcore", type=click.IntRange(0), help="Events a user and an item must have.  [default: 5]"),
    click.option("--iterate/--one-pass", default=None, help="The core to its fixed point?  [default: iterate]"),
    click.option("--require-text/--any-text", default=None, help="Drop items without text?  [default: any-text]"),
    click.option("--max-title-words", type=click.IntRange(0), help="Drop items of longer titles.  [default: 0, off]"),
    click.option("--dedup", help="Repeats that go: exact (with time), first, last (of user and item) or none."),
    click.option("--min-rating", type=float, help="Drop events rated lower."),
    click.option("--window", metavar="DAY:DAY", help="Drop events outside, such as 2016-10-01:2018-11-01 (UTC)."),
    click.option("--max-history", type=click.IntRange(0), help="Keep a user's last events alone.  [default: 0, off]"),
    click.option("--order", metavar="STEP,...", help="Order of rating, window, dedup, text, core, history."),
)
grid_options = options(
    click.option("--datasets", default="all", show_default=True, help="Names, folders, globs, 'all', '!name'."),
    click.option("--adapters", default="all", show_default=True, help="E.g. 'all,!svd' or 'mlp[hidden=256]'."),
    click.option("--backbones", default="sasrec", show_default=True, help="E.g. 'all' or 'sasrec,hstu'."),
    click.option("--encoders", default="minilm", show_default=True, help="E.g. 'minilm,shuffled:minilm,file:E.npy'."),
    click.option("--budget", type=click.Choice(list(BUDGETS)), default="quick", show_default=True),
    click.option("--trials", type=click.IntRange(1), help="Search trials a cell, instead of the budget's."),
    click.option("--epochs", type=click.IntRange(1), help="Epochs at most, instead of the budget's."),
    click.option("--seeds", type=click.IntRange(1), help="Seeds of the winner, instead of the budget's."),
    click.option("--protocol", type=click.Choice(["loo", "gts"]), default="loo", show_default=True),
    click.option("--quantile", type=float, default=0.9, show_default=True, help="Of all times, where gts cuts."),
    click.option("--validation", default="by_time", show_default=True, help="Of gts: by_time or last_train."),
    click.option("--target", default="last", show_default=True, help="Of gts, after a cut: last, first, successive."),
    click.option("--drop-tied-test", is_flag=True, help="No test on events at the very time of the one before."),
    click.option("--filter-seen/--keep-seen", default=True, show_default=True, help="Items of the history rank?"),
    prep_options,
    click.option("--sampler", default="tpe", show_default=True, help="tpe or random."),
    click.option("--pruner", default="median", show_default=True, help="median or none."),
    click.option(
        "--spaces",
        type=click.Path(path_type=Path),
        help="A folder, or a published setting.",
    ),
    click.option("--set", "pins", multiple=True, metavar="NAME=VALUE", help="Fix a shared parameter: train.d=128."),
    home_option,
)


def protocol_of(given: dict[str, Any]) -> Protocol:
    from harness import presets

    names = ("filter_seen", "quantile", "validation", "target", "drop_tied_test")
    protocol = Protocol(given["protocol"], **{name: given[name] for name in names})
    presets.check_protocol(protocol)
    return protocol


def prep_of(given: dict[str, Any]) -> PrepSpec:
    """The preset's spec with what the single options say otherwise."""
    from dataclasses import fields, replace

    from harness import presets

    own = {field.name: given[field.name] for field in fields(PrepSpec) if given[field.name] is not None}
    if "order" in own:
        own["order"] = tuple(step.strip() for step in own["order"].split(","))
    spec = replace(presets.preset(given["prep"]), **own)
    presets.check(spec)
    return spec


def request_of(given: dict[str, Any]) -> Request:
    """The request of the grid options; takes its own out of `given`."""
    from dataclasses import replace

    from harness import spaces
    from harness.plan import Request
    from harness.registry import split_overrides
    from harness.store import check_home

    budget: Budget = BUDGETS[given["budget"]]
    own = {key: given[key] for key in ("trials", "epochs", "seeds") if given[key] is not None}
    pins = split_overrides(f"set[{','.join(given['pins'])}]")[1] if given["pins"] else {}
    return Request(
        home=check_home(Path(given["home"])),
        datasets=given["datasets"],
        adapters=given["adapters"],
        backbones=given["backbones"],
        encoders=given["encoders"],
        budget=replace(budget, **own),
        protocol=protocol_of(given),
        prep=prep_of(given),
        text=given["text"],
        engine=Engine(given["sampler"], given["pruner"]),
        spaces=spaces.Source(given["spaces"], pins),
    )


@main.command()
@grid_options
@click.option("--address", help="An existing Ray cluster: 'auto' or host:port (default: $RAY_ADDRESS, else local).")
@click.option("--threads", type=click.IntRange(1), help="Torch threads a trial.  [default: so that no core idles]")
@click.option("--gpu", type=click.FloatRange(0, 1), help="Share of a GPU a trial, 0 for none.  [default: a quarter]")
@click.option("--tracking", metavar="URI", help="MLflow store; 'off' for none. Default: sqlite in the home.")
@click.option("--dry-run", is_flag=True, help="Show what would run, and stop.")
@json_option
def bench(**given: Any) -> None:
    """Search every cell at one budget, retrain the winners over seeds, test once, print the leaderboard."""
    from harness import tables, walk

    if given["dry_run"]:
        return show_plan(given)
    request = request_of(given)
    outcome = walk.run(request, walk.Options(given["address"], given["threads"], given["gpu"], given["tracking"]))
    click.echo(tables.render(outcome.table, "json" if given["as_json"] else "terminal"))
    click.echo(f"Report: {outcome.report}", err=True)
    click.echo(
        "The same command resumes or, with more trials, seeds, adapters or data sets, grows this grid.", err=True
    )
    sys.exit(outcome.exit_code)


@main.command()
@grid_options
@json_option
def plan(**given: Any) -> None:
    """What a bench with these options would run, cell by cell. Fetches and prepares data, trains nothing."""
    show_plan(given)


def show_plan(given: dict[str, Any]) -> None:
    from harness import plan as planning
    from harness import walk
    from harness.ledger import Ledger

    request = request_of(given)
    grid = planning.make(request, Ledger.open(request.home))
    rows = [{**vars(s.cell), "state": s.state, "to_run": s.to_run()} for s in grid.studies]
    if given["as_json"]:
        return click.echo(json.dumps({"counts": grid.counts(), "cells": rows}, indent=1))
    for row in rows:
        cell = " / ".join(str(row[k]) for k in ("dataset", "encoder", "backbone", "adapter"))
        click.echo(f"{row['to_run']:4d} to run  {row['state']:8s} {cell}")
    click.echo(walk.overview(grid))


@main.command()
@home_option
@json_option
def status(home: str, as_json: bool) -> None:
    """Where the newest bench stands: cells, best so far, failures. Works from another terminal."""
    from harness import status as reading
    from harness.store import check_home

    report = reading.of(check_home(Path(home)))
    click.echo(json.dumps(report, indent=1) if as_json else reading.text(report))


@main.command()
@home_option
@click.option("--format", "form", default="terminal", show_default=True, help="terminal, md, csv, json or html.")
@click.option("--output", type=click.Path(path_type=Path), help="Write to a file instead of stdout.")
@click.option("--run", help="The table as it stood at this launch.")
@click.option("--from-mlflow", metavar="URI", is_flag=False, flag_value="default", help="Build it from MLflow alone.")
def leaderboard(home: str, form: str, output: Path | None, run: str | None, from_mlflow: str | None) -> None:
    """The table of what is complete so far, out of the ledger (or of MLflow)."""
    from harness import results, store, tables
    from harness.files import write_text
    from harness.ledger import Ledger

    folder = store.check_home(Path(home))
    tables.check_format(form)
    if from_mlflow is None:
        ledger, ranks_of = Ledger.open(folder), lambda trial_id: store.load_ranks(folder, trial_id)
    else:
        from harness import tracking

        uri = tracking.default_uri(folder) if from_mlflow == "default" else from_mlflow
        ledger, ranks_of = tracking.read(uri, folder)
    text = tables.render(tables.build(results.build(ledger, ranks_of, run)), form)
    if output is None:
        return click.echo(text)
    try:
        write_text(output, text)
    except OSError as error:
        raise HarnessError(f"--output {output} cannot be written: {error.strerror}.") from error
    return click.echo(f"Wrote {output}", err=True)


@main.command("list")
@home_option
@json_option
def list_(home: str, as_json: bool) -> None:
    """All components by name, with a line each, and the data sets that are ready here."""
    from harness import components

    found = components.all_of(Path(home).expanduser())
    click.echo(json.dumps(found, indent=1) if as_json else components.text(found))


@main.command()
@click.argument("name")
@home_option
@json_option
def show(name: str, home: str, as_json: bool) -> None:
    """One component (parameters, search space, source) or one data set (card, warnings)."""
    from harness import components

    found = components.one(name, Path(home).expanduser())
    click.echo(json.dumps(found, indent=1, default=str) if as_json else components.details(found))


@main.command()
@click.argument("datasets", nargs=-1, required=True)
@click.option("--encoders", default="minilm", show_default=True, help="Embeddings to compute as well; '' for none.")
@click.option(
    "--cost", type=float, metavar="PRICE", help="Only say what api: encoders would cost at PRICE a 1M tokens."
)
@prep_options
@home_option
@json_option
def prepare(**given: Any) -> None:
    """Fetch and prepare data sets, compute embeddings and bases. Done twice, it only says that it is done."""
    from harness import components
    from harness.store import check_home

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


@main.command()
@click.argument("name")
@click.argument("folder", type=click.Path(path_type=Path))
@home_option
def register(name: str, folder: Path, home: str) -> None:
    """Give a folder of your own a name, so that --datasets NAME (and 'all') finds it."""
    from harness import raw
    from harness.store import check_home

    found = raw.register(name, folder, check_home(Path(home)))
    click.echo(f"{name} is {found.interactions.parent}.")


@main.command()
@click.argument("dataset")
@click.option("--encoder", default="", help="Check its embedding too, e.g. file:E.npy.  [default: minilm's, if there]")
@prep_options
@home_option
@json_option
def check(dataset: str, encoder: str, home: str, as_json: bool, **given: Any) -> None:
    """What is wrong with a data set or folder, with numbers and remedies. Exit code 1 if there is an error."""
    from harness import check as linter
    from harness.store import check_home

    report = linter.examine(dataset, check_home(Path(home)), encoder, prep_of(given), given["text"])
    click.echo(json.dumps(report.to_json(), indent=1) if as_json else linter.text(report))
    sys.exit(report.exit_code)


@main.command()
@home_option
@click.option("--tracking", metavar="URI", help="MLflow store (default: sqlite in the home).")
def sync(home: str, tracking: str | None) -> None:
    """Write to MLflow what it lacks of the ledger. Done twice, it writes nothing."""
    from harness import tracking as mirror
    from harness.ledger import Ledger
    from harness.store import check_home

    folder = check_home(Path(home))
    count = mirror.sync(
        tracking or mirror.default_uri(folder), folder, Ledger.open(folder), lambda t: click.echo(t, err=True)
    )
    click.echo(f"{count} trials written to MLflow." if count else "MLflow has every trial of the ledger.")


@main.command()
@home_option
@json_option
def doctor(home: str, as_json: bool) -> None:
    """Whether this machine is fit: versions, cores, memory, disk, the home folder, secrets' file modes."""
    from harness import doctor as checks

    found = checks.examine(Path(home))
    click.echo(json.dumps(found, indent=1) if as_json else checks.text(found))
    sys.exit(0 if all(check["ok"] for check in found["checks"]) else 1)


if __name__ == "__main__":
    main()

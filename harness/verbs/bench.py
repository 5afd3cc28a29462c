"""`harness bench`: search every cell, confirm the winners, print the leaderboard."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from harness.types import INTERRUPTED
from harness.verbs import _save, plan
from harness.verbs._options import Options, grid_options, json_option, layout_options, save_option
from harness.verbs._request import request_of
from harness.verbs._types import BoundedInt, FiniteFloat

if TYPE_CHECKING:
    from harness.search.plan import Request
    from harness.workflows import run_bench

rank = 10


class _Detachable(click.Command):
    """Remembers its words, with which `--detach` starts another process."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[WORDS] = [word for word in args if word != "--detach"]
        return super().parse_args(ctx, args)


WORDS = f"{__name__}.words"


@click.command(cls=_Detachable)
@grid_options
@layout_options
@click.option("--tracking", metavar="URI", help="MLflow store, or 'off'.  [default: SQLite in the home]")
@click.option(
    "--watchdog",
    type=FiniteFloat(0),
    default=1800.0,
    show_default=True,
    help="End a trial without progress for this many seconds, or for ten times its longest epoch if that is longer. "
    "0: never.",
)
@click.option(
    "--top-k", type=BoundedInt(0), default=0, help="Store the K best items of each test user.  [default: off]"
)
@click.option(
    "--artifacts",
    type=click.Path(),
    metavar="PLACE",
    help="Folder or URL (s3://bucket/prefix) that all nodes reach: workers write checkpoints and weights there instead "
    "of sending them to this machine.  [default: the home]",
)
@save_option
@click.option("--dry-run", is_flag=True, help="Only show what would run.")
@click.option(
    "--detach",
    is_flag=True,
    allow_from_autoenv=False,
    help="Run in the background, with a log file in the home; `harness status` shows it.",
)
@json_option
def command(**options: Any) -> None:
    """Train a grid at one budget and print the leaderboard.

    With --budget standard or paper, or --trials N, every cell is searched first; its winner, or without a search its
    default configuration, is trained over seeds and tested once. Finished work is never repeated: the same command
    resumes an interrupted bench.

    STUDY.toml: a study file, which sets options by their long names. The command line and the environment
    (HARNESS_BENCH_TRIALS=32) override it.
    """
    from harness.report import tables

    if options["detach"] and options["dry_run"]:
        raise click.UsageError("--dry-run runs nothing, so there is nothing to --detach.")
    if options["save"]:
        _save.save(options)
    if options["dry_run"]:
        return dry_run(options)
    if options["detach"]:
        return detach(options)
    outcome = run(options)
    click.echo(tables.render(outcome.table, "json" if options["as_json"] else "terminal"))
    click.echo(f"Report: {outcome.report}", err=True)
    if outcome.signum:
        click.echo(INTERRUPTED, err=True)
        sys.exit(outcome.exit_code)
    click.echo(
        "To extend this grid, add trials, seeds, adapters or data sets to the command; finished work is not repeated.",
        err=True,
    )
    sys.exit(outcome.exit_code)


def run(options: Options) -> run_bench.Outcome:
    """Run the bench that the options describe."""
    from harness.workflows import run_bench

    return run_bench.run(*_bench_of(options))


def dry_run(options: Options) -> None:
    """Print the plan of the bench that the options describe. Raises HarnessError where the bench would before it
    trains."""
    from harness.workflows import run_bench

    run_bench.check(*_bench_of(options))
    plan.show(options)


def detach(options: Options) -> None:
    """Start the bench that the options describe as a process of its own, and print where its log is.

    Raises HarnessError for bad input that shows before data is fetched.
    """
    from harness.workflows import detached, run_bench

    request, settings = _bench_of(options)
    run_bench.check(request, settings)
    bench = detached.start(request.home, ["bench", *click.get_current_context().meta[WORDS]])
    click.echo(
        f"The bench runs in the background (pid {bench.pid}). Log: {bench.log}\n"
        f"Show its progress: harness status --home {request.home}\nStop it: kill {bench.pid}"
    )


def _bench_of(options: Options) -> tuple[Request, run_bench.Options]:
    from harness.workflows import run_bench

    names = ("address", "labels", "threads", "gpu", "tracking", "watchdog", "top_k", "artifacts")
    request = replace(request_of(options), study=_save.text(options, with_home=False))
    return request, run_bench.Options(**{name: options[name] for name in names})

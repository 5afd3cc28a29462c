"""Options that commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from harness.paths import expanded
from harness.registry import ADAPTERS, BACKBONES, ENCODERS, names
from harness.types import BUDGETS, HarnessError
from harness.verbs._components import COMPONENTS
from harness.verbs._study import LongName, Names, long_name, merged, only_these, use_study, use_suite
from harness.verbs._types import BoundedInt, FiniteFloat, UserPath

HOME = "~/.harness"


def combined(*decorators: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Combine click options into one decorator; help shows them in this order."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def named_home(context: click.Context, option: click.Parameter, value: str) -> str:
    """Raise HarnessError for an empty name, as of an unset variable: it would be the working folder."""
    if not value:
        raise HarnessError("--home is empty; name a folder.")
    return value


home_option = click.option(
    "--home",
    type=click.Path(),
    callback=named_home,
    envvar="HARNESS_HOME",
    default=HOME,
    show_default=True,
    help="Folder for data, caches and results.",
)
json_option = click.option("--json", "as_json", cls=LongName, is_flag=True, help="Print JSON.")
save_option = click.option(
    "--save",
    type=UserPath(),
    metavar="STUDY.toml",
    allow_from_autoenv=False,
    help="Write these options to a study file.",
)
run_option = click.option(
    "--run",
    metavar="LAUNCH",
    help="Use the table as of this launch: the name of a file in HOME/ledger, or a prefix of it.",
)
prep_options = combined(
    click.option(
        "--prep",
        default="default",
        show_default=True,
        help="Preparation preset: default, raw, spectran, s3rec, llm-esr, minionerec, amazon2023, alphafuse. "
        "The options below override it.",
    ),
    click.option("--text", default="", metavar="TEMPLATE", help="Item text, e.g. '{title}. {brand}. {categories}'."),
    click.option(
        "--tie-policy", help="Order of events with equal time: source, item_id or random:<seed>.  [default: source]"
    ),
    click.option("--kcore", type=BoundedInt(0), help="Min events per user and per item.  [default: 5]"),
    click.option(
        "--iterate/--one-pass",
        default=None,
        help="Repeat the k-core filter until nothing changes, or apply it once.  [default: iterate]",
    ),
    click.option("--require-text/--any-text", default=None, help="Drop items without text.  [default: any-text]"),
    click.option(
        "--max-title-words",
        type=BoundedInt(0),
        help="Drop items whose title is longer or has page markup.  [default: 0, off]",
    ),
    click.option(
        "--dedup",
        help="Repeated events: drop exact copies (exact), keep the first or last of a user and item, or keep all "
        "(none).  [default: exact]",
    ),
    click.option("--min-rating", type=FiniteFloat(), help="Drop events with a lower rating."),
    click.option(
        "--window", metavar="DAY:DAY", help="Drop events outside these days (UTC), e.g. 2016-10-01:2018-11-01."
    ),
    click.option(
        "--max-history", type=BoundedInt(0), help="Keep only this many most recent events per user.  [default: 0, off]"
    ),
    click.option(
        "--order",
        type=Names(),
        metavar="STEP,...",
        help="Order of the steps.  [default: rating, window, dedup, text, core, history]",
    ),
)

Options = dict[str, Any]  # option -> value, as click parsed them
spaces_options = combined(
    click.option("--spaces", type=UserPath(), help="Folder of search spaces, or name of a published setting."),
    click.option(
        "--set", multiple=True, metavar="NAME=VALUE", callback=merged, help="Fix a shared parameter: train.d=128."
    ),
)
layout_options = combined(
    click.option("--address", help="Ray cluster to join: 'auto' or host:port.  [default: $RAY_ADDRESS, else local]"),
    click.option(
        "--labels",
        type=Names(),
        metavar="KEY=VALUE,...",
        help="Use only nodes with these Ray labels: spot=false, zone!=b.",
    ),
    click.option("--threads", type=BoundedInt(1), help="Torch threads per trial.  [default: as many as use all cores]"),
    click.option(
        "--gpu",
        type=FiniteFloat(0, 1),
        help="Share of a GPU per trial; 0 uses none.  [default: 1 if there are enough GPUs, else by measured memory]",
    ),
)


def _of_suites() -> dict[str, click.Option]:
    """Key of a suite -> option."""
    options = [option for option in GRID.params if isinstance(option, click.Option)]
    return {long_name(option): option for option in options if option.name not in NOT_IN_SUITES}


def _known(package: str) -> Callable[[click.Context], list[str]]:
    return lambda _: names(package)


def _data_sets(context: click.Context) -> list[str]:
    """The names of data sets in the home, for a shell to complete; [] if the home's config is malformed."""
    from harness.data import library

    try:
        return library.names(expanded(str(context.params.get("home") or os.environ.get("HARNESS_HOME") or HOME)))
    except HarnessError:
        return []


NOT_IN_SUITES = ("suite", "home", "more_datasets")
grid_options = combined(
    click.option(
        "--suite",
        metavar="NAME",
        is_eager=True,
        callback=use_suite(_of_suites),
        help="Bench with fixed options: spectran, smoke. Options on the command line override it.",
    ),
    # a shell expands --datasets ml-100k,amazon2014-{beauty,toys} to two words; the second one arrives here
    click.argument(
        "more_datasets",
        nargs=-1,
        metavar="[STUDY.toml] [DATASETS]...",
        is_eager=True,
        callback=use_study,
        shell_complete=lambda context, argument, word: [CompletionItem(word, type="file")],
    ),
    click.option(
        "--datasets",
        type=Names(_data_sets, selects=True),
        callback=only_these,
        help="Names, folders, globs, 'all' or '!name'.  [default: all]",
    ),
    click.option(
        "--adapters",
        type=Names(_known(ADAPTERS), selects=True),
        default="all",
        show_default=True,
        help="E.g. 'all,!svd', 'mlp[hidden=256]' or 'id+text'.",
    ),
    click.option(
        "--backbones",
        type=Names(_known(BACKBONES), selects=True),
        default="sasrec",
        show_default=True,
        help="E.g. 'all' or 'sasrec,hstu'.",
    ),
    click.option(
        "--encoders",
        type=Names(_known(ENCODERS)),
        default="minilm",
        show_default=True,
        help="E.g. 'minilm,shuffled:minilm,file:E.npy'.",
    ),
    click.option(
        "--budget",
        type=click.Choice(list(BUDGETS)),
        default="quick",
        show_default=True,
        help="Preset of trials, epochs, patience and seeds per cell.",
    ),
    click.option(
        "--trials",
        type=BoundedInt(0),
        help="Search trials per cell; 0 trains only the default configuration, or the winner of --warm-start. "
        "Overrides the budget.",
    ),
    click.option("--epochs", type=BoundedInt(1), help="Max epochs per trial. Overrides the budget."),
    click.option(
        "--patience",
        type=BoundedInt(0),
        help="Epochs without a better validation after which a trial ends; 0 never ends it. Overrides the budget.",
    ),
    click.option(
        "--cell-seconds",
        type=FiniteFloat(0, min_open=True),
        help="Time budget per cell: stop sampling trials after this many seconds.",
    ),
    click.option("--seeds", type=BoundedInt(1), help="Seeds to retrain each winner with. Overrides the budget."),
    click.option(
        "--protocol",
        type=click.Choice(["loo", "gts", "windows", "users"]),
        default="loo",
        show_default=True,
        help="Split: loo (leave one out), gts (global temporal split), windows (sliding windows: several such splits) "
        "or users (test users are never trained on).",
    ),
    click.option(
        "--quantile",
        type=FiniteFloat(),
        default=0.9,
        show_default=True,
        help="Time quantile at which gts, or the first fold of windows, splits training from test.",
    ),
    click.option(
        "--folds",
        type=BoundedInt(0),
        default=0,
        help="Number of test windows with --protocol windows, at least 2; the search runs once, confirmations on each.",
    ),
    click.option(
        "--validation",
        default="by_time",
        show_default=True,
        help="Validation split for gts and windows: by_time or last_train.",
    ),
    click.option(
        "--target",
        default="last",
        show_default=True,
        help="Events to predict after a cut in time or of a test user: last, first or successive (each in turn).",
    ),
    click.option(
        "--train-users",
        type=FiniteFloat(),
        default=0.8,
        show_default=True,
        help="With --protocol users: share of users to train on. Half of the others are for validation, half for test.",
    ),
    click.option(
        "--cold-items",
        type=FiniteFloat(),
        default=0.0,
        show_default=True,
        help="Share of items held out of training and validation; they are ranked and tested.",
    ),
    click.option(
        "--split-seed",
        type=BoundedInt(0),
        default=0,
        show_default=True,
        help="Seed of the choice of held-out items and of test users.",
    ),
    click.option(
        "--drop-tied-test/--keep-tied-test",
        default=False,
        help="Drop test events that share a timestamp with the previous event.  [default: keep]",
    ),
    click.option(
        "--filter-seen/--keep-seen",
        default=True,
        show_default=True,
        help="Exclude items the user has already seen from the ranking.",
    ),
    prep_options,
    click.option("--sampler", default="gp", show_default=True, help="Search sampler: gp, tpe, random, grid or cmaes."),
    click.option(
        "--pruner",
        default="median",
        show_default=True,
        help="Search pruner: median, halving, hyperband, wilcoxon or none.",
    ),
    click.option(
        "--warm-start",
        default="",
        metavar="DATASET",
        help="Start each search with the best configurations that it found on DATASET; with --trials 0, train its "
        "winner on DATASET without a search. 'shared': start with the row's own best configuration and the shared "
        "parameters of the three best other rows.",
    ),
    click.option(
        "--search-seed",
        type=BoundedInt(0),
        default=0,
        show_default=True,
        help="Seed of the sampler. Another one repeats every search with other draws, in a separate table.",
    ),
    spaces_options,
    click.option("--components", **COMPONENTS),  # used by `request_of`
    home_option,
)


@click.command()
@grid_options
def GRID(**options: Any) -> None:
    """Hold the grid options, to ask which values they have by default."""

"""Options that commands share, and what is built from them: a request, a preparation, a protocol."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from harness import registry
from harness.paths import expanded
from harness.registry import ADAPTERS, BACKBONES, ENCODERS, names
from harness.types import BUDGETS, Budget, Engine, HarnessError, PrepSpec, Protocol
from harness.verbs._components import COMPONENTS
from harness.verbs._numbers import BoundedInt, FiniteFloat
from harness.verbs._study import LongName, Names, long_name, merged, only_these, use_study, use_suite

if TYPE_CHECKING:
    from harness.search import spaces
    from harness.search.plan import Request
    from harness.search.suites import Suite

HOME = "~/.harness"


def combined(*decorators: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Combine click options into one decorator; help shows them in this order."""

    def apply(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


home_option = click.option(
    "--home",
    type=click.Path(),
    envvar="HARNESS_HOME",
    default=HOME,
    show_default=True,
    help="Folder for data, caches and results.",
)
json_option = click.option("--json", "as_json", cls=LongName, is_flag=True, help="Print JSON.")
save_option = click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="STUDY.toml",
    allow_from_autoenv=False,
    help="Write these options to a study file.",
)
run_option = click.option(
    "--run", metavar="LAUNCH", help="Use the table as of this launch; a prefix of its name is enough."
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
    click.option(
        "--spaces", type=click.Path(path_type=Path), help="Folder of search spaces, or name of a published setting."
    ),
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
        type=Names(_data_sets),
        callback=only_these,
        help="Names, folders, globs, 'all' or '!name'.  [default: all]",
    ),
    click.option(
        "--adapters",
        type=Names(_known(ADAPTERS)),
        default="all",
        show_default=True,
        help="E.g. 'all,!svd', 'mlp[hidden=256]' or 'id+text'.",
    ),
    click.option(
        "--backbones",
        type=Names(_known(BACKBONES)),
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
        help="Share of users that users trains on; the others are halved between validation and test.",
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
        help="Start each search with the best trials found on DATASET; with --trials 0, train its winner there. "
        "'shared': start with this row's best one and the shared parameters of the best other rows.",
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


def suite_of(options: Options) -> Suite | None:
    """Return the suite that the options name, with the options that differ from it."""
    from harness.search import suites

    if options["suite"] is None:
        return None
    with GRID.make_context("suite", ["--suite", options["suite"]]) as context:
        planned = context.params
    same = ("suite", "home", "components")
    changed = [name for name in planned if name not in same and options[name] != planned[name]]
    words = {str(one.name): one.opts[0].lstrip("-") for one in GRID.params}
    return suites.suite(options["suite"]).with_changes([words[name] for name in changed])


def protocol_of(options: Options) -> Protocol:
    """Return the protocol that the options describe. Raises HarnessError if it is invalid."""
    from harness.data import presets

    parts = ("filter_seen", "quantile", "validation", "target", "drop_tied_test")
    parts += ("train_users", "cold_items", "split_seed", "folds")
    protocol = Protocol(options["protocol"], **{name: options[name] for name in parts})
    presets.check_protocol(protocol)
    if protocol.quantile != Protocol().quantile and protocol.split not in ("gts", "windows"):
        # here, since homes hold results of such benches from before it was refused
        raise HarnessError(f"--quantile needs the protocol 'gts' or 'windows'; the protocol is '{protocol.split}'.")
    return protocol


def prep_of(options: Options) -> PrepSpec:
    """Return the preset's spec, overridden by the single options. Raises HarnessError if it is invalid."""
    from dataclasses import fields, replace

    from harness.data import presets

    overrides = {field.name: options[field.name] for field in fields(PrepSpec) if options[field.name] is not None}
    if "order" in overrides:
        overrides["order"] = tuple(step.strip() for step in overrides["order"].split(","))
    spec = replace(presets.preset(options["prep"]), **overrides)
    presets.check(spec)
    return spec


def source_of(options: Options) -> spaces.SpaceSource:
    """Return the source of search spaces that `--spaces` and `--set` name."""
    from harness.registry import split_overrides
    from harness.search import spaces

    pins = split_overrides(f"set[{','.join(options['set'])}]")[1] if options["set"] else {}
    return spaces.SpaceSource(options["spaces"], pins)


def _datasets(options: Options) -> str:
    """The selection of data sets: `all` if none is given, but not if an empty one is, as by an unset variable."""
    given = [] if options["datasets"] is None else [options["datasets"]]
    return ",".join([*given, *options["more_datasets"]]) if given or options["more_datasets"] else "all"


def request_of(options: Options) -> Request:
    """Return the request that the grid options describe; other options are ignored."""
    from dataclasses import replace

    from harness.record.artifacts import check_home
    from harness.search.plan import Request

    registry.use_folders(options["components"])
    budget: Budget = BUDGETS[options["budget"]]
    limited = ("trials", "epochs", "seeds", "cell_seconds")
    limits = {name: options[name] for name in limited if options[name] is not None}
    return Request(
        home=check_home(Path(options["home"])),
        datasets=_datasets(options),
        adapters=options["adapters"],
        backbones=options["backbones"],
        encoders=options["encoders"],
        budget=replace(budget, **limits),
        protocol=protocol_of(options),
        prep=prep_of(options),
        text=options["text"],
        engine=Engine(options["sampler"], options["pruner"], options["warm_start"], options["search_seed"]),
        spaces=source_of(options).under(budget.name),
        suite=suite_of(options),
    )

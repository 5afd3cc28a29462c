"""Options that verbs share, and what they come to: a request, a preparation, a protocol."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.types import BUDGETS, Budget, Engine, PrepSpec, Protocol

if TYPE_CHECKING:
    from harness.search import spaces
    from harness.search.plan import Request

HOME = "~/.harness"
LARGEST = 1_000_000  # of a count


class BoundedInt(click.IntRange):
    """A count of at least so many. None is above `LARGEST`: a typing error there would run for years."""

    def __init__(self, least: int) -> None:
        super().__init__(least, LARGEST)


class FiniteFloat(click.FloatRange):
    """A finite number in a range: click's own range takes NaN, and infinity where the range is open upwards."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return found


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
run_option = click.option("--run", metavar="LAUNCH", help="A row of the table as it stood at this launch.")
prep_options = options(
    click.option(
        "--prep",
        default="default",
        show_default=True,
        help="Preparation: default, raw, spectran, s3rec, llm-esr, minionerec, amazon2023; single options override it.",
    ),
    click.option("--text", default="", metavar="TEMPLATE", help="Of an item's text: '{title}. {brand}. {categories}'."),
    click.option("--tie-policy", help="source, item_id or random:<seed>.  [default: source]"),
    click.option("--kcore", type=BoundedInt(0), help="Events a user and an item must have.  [default: 5]"),
    click.option("--iterate/--one-pass", default=None, help="The core to its fixed point?  [default: iterate]"),
    click.option("--require-text/--any-text", default=None, help="Drop items without text?  [default: any-text]"),
    click.option("--max-title-words", type=BoundedInt(0), help="Drop items of longer titles.  [default: 0, off]"),
    click.option("--dedup", help="Repeats that go: exact (with time), first, last (of user and item) or none."),
    click.option("--min-rating", type=FiniteFloat(), help="Drop events rated lower."),
    click.option("--window", metavar="DAY:DAY", help="Drop events outside, such as 2016-10-01:2018-11-01 (UTC)."),
    click.option("--max-history", type=BoundedInt(0), help="Keep a user's last events alone.  [default: 0, off]"),
    click.option("--order", metavar="STEP,...", help="Order of rating, window, dedup, text, core, history."),
)
spaces_options = options(
    click.option("--spaces", type=click.Path(path_type=Path), help="A folder, or a published setting."),
    click.option("--set", "pins", multiple=True, metavar="NAME=VALUE", help="Fix a shared parameter: train.d=128."),
)
layout_options = options(
    click.option(
        "--address", help="An existing Ray cluster: 'auto' or host:port.  [default: $RAY_ADDRESS, else local]"
    ),
    click.option("--threads", type=BoundedInt(1), help="Torch threads a trial.  [default: so that no core idles]"),
    click.option(
        "--gpu",
        type=FiniteFloat(0, 1),
        help="Share of a GPU a trial, 0 for none.  [default: a whole one while there are enough, a quarter at least]",
    ),
)
grid_options = options(
    # what a shell makes of --datasets ml-100k,amazon2014-{beauty,toys}: a second word
    click.argument("more_datasets", nargs=-1, metavar="[DATASETS]..."),
    click.option("--datasets", help="Names, folders, globs, 'all', '!name'.  [default: all]"),
    click.option("--adapters", default="all", show_default=True, help="E.g. 'all,!svd' or 'mlp[hidden=256]'."),
    click.option("--backbones", default="sasrec", show_default=True, help="E.g. 'all' or 'sasrec,hstu'."),
    click.option("--encoders", default="minilm", show_default=True, help="E.g. 'minilm,shuffled:minilm,file:E.npy'."),
    click.option("--budget", type=click.Choice(list(BUDGETS)), default="quick", show_default=True),
    click.option(
        "--trials", type=BoundedInt(0), help="Search trials per cell (0: defaults only); overrides the budget."
    ),
    click.option("--epochs", type=BoundedInt(1), help="Max epochs per trial; overrides the budget."),
    click.option(
        "--cell-seconds", type=FiniteFloat(0, min_open=True), help="Draw no more once a cell's trials spent these."
    ),
    click.option("--seeds", type=BoundedInt(1), help="Seeds of the winner, instead of the budget's."),
    click.option("--protocol", type=click.Choice(["loo", "gts"]), default="loo", show_default=True),
    click.option(
        "--quantile", type=FiniteFloat(), default=0.9, show_default=True, help="Of all times, where gts cuts."
    ),
    click.option("--validation", default="by_time", show_default=True, help="Of gts: by_time or last_train."),
    click.option("--target", default="last", show_default=True, help="Of gts, after a cut: last, first, successive."),
    click.option("--drop-tied-test", is_flag=True, help="No test on events at the very time of the one before."),
    click.option("--filter-seen/--keep-seen", default=True, show_default=True, help="Items of the history rank?"),
    prep_options,
    click.option("--sampler", default="tpe", show_default=True, help="tpe, random, grid, gp or cmaes."),
    click.option("--pruner", default="median", show_default=True, help="median, halving, hyperband, wilcoxon or none."),
    click.option(
        "--warm-start", default="", metavar="DATASET", help="Try first what its search of the same cell found."
    ),
    spaces_options,
    home_option,
)


def protocol_of(given: dict[str, Any]) -> Protocol:
    from harness.data import presets

    names = ("filter_seen", "quantile", "validation", "target", "drop_tied_test")
    protocol = Protocol(given["protocol"], **{name: given[name] for name in names})
    presets.check_protocol(protocol)
    return protocol


def prep_of(given: dict[str, Any]) -> PrepSpec:
    """The preset's spec with what the single options say otherwise."""
    from dataclasses import fields, replace

    from harness.data import presets

    own = {field.name: given[field.name] for field in fields(PrepSpec) if given[field.name] is not None}
    if "order" in own:
        own["order"] = tuple(step.strip() for step in own["order"].split(","))
    spec = replace(presets.preset(given["prep"]), **own)
    presets.check(spec)
    return spec


def source_of(given: dict[str, Any]) -> spaces.SpaceSource:
    """Where search spaces come from, of the options `--spaces` and `--set`."""
    from harness.registry import split_overrides
    from harness.search import spaces

    pins = split_overrides(f"set[{','.join(given['pins'])}]")[1] if given["pins"] else {}
    return spaces.SpaceSource(given["spaces"], pins)


def request_of(given: dict[str, Any]) -> Request:
    """The request of the grid options; takes its own out of `given`."""
    from dataclasses import replace

    from harness.record.artifacts import check_home
    from harness.search.plan import Request

    budget: Budget = BUDGETS[given["budget"]]
    own = {key: given[key] for key in ("trials", "epochs", "seeds", "cell_seconds") if given[key] is not None}
    return Request(
        home=check_home(Path(given["home"])),
        datasets=",".join([given["datasets"] or "", *given["more_datasets"]]).strip(",") or "all",
        adapters=given["adapters"],
        backbones=given["backbones"],
        encoders=given["encoders"],
        budget=replace(budget, **own),
        protocol=protocol_of(given),
        prep=prep_of(given),
        text=given["text"],
        engine=Engine(given["sampler"], given["pruner"], given["warm_start"]),
        spaces=source_of(given),
    )

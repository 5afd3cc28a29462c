"""What is built from the options that commands share: a request, a preparation, a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness import registry
from harness.types import BUDGETS, Budget, Engine, HarnessError, PrepSpec, Protocol
from harness.verbs._options import GRID, Options

if TYPE_CHECKING:
    from harness.search import spaces
    from harness.search.plan import Request
    from harness.search.suites import Suite


def suite_of(options: Options) -> Suite | None:
    """Return the suite that the options name, with the options that differ from it."""
    from harness.search import suites

    if options["suite"] is None:
        return None
    with GRID.make_context("suite", ["--suite", options["suite"]]) as context:
        planned = context.params
    same = ("suite", "home", "components", "datasets", "more_datasets")
    changed = [name for name in planned if name not in same and options[name] != planned[name]]
    changed += ["datasets"] if _datasets(options) != _datasets(planned) else []
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
        raise HarnessError(f"--quantile needs --protocol gts or windows; the protocol is '{protocol.split}'.")
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
    from harness.search import spaces
    from harness.words import pairs

    pins = dict(pairs(",".join(options["set"]), "--set"))
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
    limited = ("trials", "epochs", "patience", "seeds", "cell_seconds")
    budget = replace(budget, **{name: options[name] for name in limited if options[name] is not None})
    if options["search_seed"] and budget.trials < 2:
        tried = "only the default configuration is" if budget.trials else "nothing is"
        raise HarnessError(
            f"--search-seed {options['search_seed']} repeats a search with other draws, but with --trials "
            f"{budget.trials} {tried} tried. Add --trials 16, or --budget standard."
        )
    if budget.cell_seconds is not None and budget.trials < 2:
        raise HarnessError(
            f"--cell-seconds {budget.cell_seconds:g} limits the search of each cell, but --trials {budget.trials} "
            "searches nothing. Add --trials 16, or --budget standard."
        )
    return Request(
        home=check_home(Path(options["home"])),
        datasets=_datasets(options),
        adapters=options["adapters"],
        backbones=options["backbones"],
        encoders=options["encoders"],
        budget=budget,
        protocol=protocol_of(options),
        prep=prep_of(options),
        text=options["text"],
        engine=Engine(options["sampler"], options["pruner"], options["warm_start"], options["search_seed"]),
        spaces=source_of(options).under(budget.name),
        suite=suite_of(options),
    )

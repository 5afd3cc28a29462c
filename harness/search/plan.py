"""Plan a grid: select cells, build their studies, and read their state from the ledger.

Imports no torch, ray, optuna or mlflow, so that `harness plan` and `status` start fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import registry
from harness.data import library, preparation, reader, splits
from harness.record.ledger import Ledger
from harness.search import axes, ensembles, selection, spaces, spelling, suites, warm_start
from harness.search.study import Study
from harness.text import embeddings
from harness.text.encoders import _base
from harness.types import (
    BUDGETS,
    EXPECTED,
    NO_TEXT,
    PRUNERS,
    SAMPLERS,
    Budget,
    Cell,
    Engine,
    HarnessError,
    Inputs,
    Json,
    PrepSpec,
    Protocol,
    digest,
)

CORE_VERSION = 3  # raise it when a change of losses, batch sampling, optimiser or metrics changes results


@dataclass(frozen=True)
class Request:
    """A bench as requested: selections as on the command line, and settings for every cell."""

    home: Path
    datasets: str = "all"
    adapters: str = "all"
    backbones: str = "sasrec"
    encoders: str = "minilm"
    budget: Budget = BUDGETS["quick"]
    protocol: Protocol = field(default_factory=Protocol)
    prep: PrepSpec = field(default_factory=PrepSpec)
    text: str = ""  # template of an item's text, replaces that of each data set
    engine: Engine = field(default_factory=Engine)
    spaces: spaces.SpaceSource = field(default_factory=spaces.SpaceSource)
    suite: suites.Suite | None = None  # whose options these are; recorded, without effect on any result
    study: str = ""  # the study file that sets these options, as text; recorded, without effect on any result
    winners: str = ""  # key of the table whose winners are trained without a search; set by `make`

    @property
    def table_key(self) -> str:
        """Key of the table: benches with equal keys share one."""
        winners = ["winners", self.winners] if self.transfers else []
        same = [self.protocol.identity(), self.prep.identity(), self.budget.epochs, self.budget.patience]
        return digest([*same, self.engine.identity(), EXPECTED, *winners])

    @property
    def transfers(self) -> bool:
        """Whether it trains the winners of its warm start, without a search."""
        return bool(self.engine.warm_start) and not self.budget.trials

    def searched_by(self, sampler: str) -> Request:
        """Return the same bench with another sampler."""
        return replace(self, engine=replace(self.engine, sampler=sampler))


@dataclass(frozen=True)
class EncodedDataset:
    """A prepared data set with its texts, its encoders and the hashes of their embeddings, both by label."""

    prepared: splits.Prepared
    texts: _base.Texts
    encoders: dict[str, _base.Encoder]
    embedding_hashes: dict[str, str]

    def can_encode(self, label: str) -> bool:
        return embeddings.can_encode(self.encoders[label], self.texts)


@dataclass
class Plan:
    """The whole grid."""

    request: Request
    encoded_datasets: dict[str, EncodedDataset]
    studies: list[Study]
    skipped: list[tuple[Cell, str]] = field(default_factory=list)

    @property
    def distinct(self) -> list[Study]:
        """The studies, each once: cells of the same content under two names share one."""
        return list({study.id: study for study in self.studies}.values())

    @property
    def pending(self) -> list[Study]:
        """The distinct studies that lack trials."""
        return [study for study in self.distinct if study.state == "pending"]

    @property
    def width(self) -> int:
        """Maximum number of parallel trials, finished ones included: all trials of a search can run at once.

        It does not count what `--cell-seconds` saved so far, since `slots.layout` must not change on resume."""
        return sum(max(study.max_trials, study.runs) for study in self.studies if study.cell.is_trained)

    def drawn_at_random(self) -> tuple[str, ...]:
        """Parameters of this bench's searches that the sampler does not model."""
        sampler, searched = self.request.engine.sampler, [study for study in self.studies if study.max_trials > 1]
        return tuple(sorted({name for study in searched for name in at_random(study.space, sampler)}))

    def warm_cells(self) -> str:
        """Number of cells that take configurations of the warm start ("3 of 8"); "" without one."""
        searched = [study for study in self.studies if study.max_trials > 1 or study.transferred]
        count = sum(bool(study.starts) for study in searched)
        return f"{count} of {len(searched)}" if searched and self.request.engine.warm_start else ""

    def counts(self) -> dict[str, int]:
        """`cells`, `done`, `failed`, `skipped`, `trials` planned and `to_run`."""
        states = [study.state for study in self.studies]
        return {
            "cells": len(self.studies) + len(self.skipped),
            "done": states.count("done"),
            "failed": states.count("failed"),
            "skipped": len(self.skipped),
            "trials": sum(study.trials + study.runs for study in self.distinct),
            "to_run": sum(study.to_run() for study in self.distinct),
        }


def check_engine(engine: Engine) -> None:
    """Raise HarnessError for an unknown sampler or pruner."""
    for kind, name, names in (("sampler", engine.sampler, SAMPLERS), ("pruner", engine.pruner, PRUNERS)):
        if name not in names:
            raise HarnessError(f"There is no {kind} '{name}'. {registry.suggest(name, list(names))}")


def at_random(space: spaces.Space, sampler: str) -> list[str]:
    """Return the searched parameters that a sampler cannot model and draws at random: conditional ones for `gp` and
    `cmaes`, choices for `cmaes`."""
    return [
        name
        for name, axis in space.searched.items()
        if (sampler in ("gp", "cmaes") and axis.when is not None)
        or (sampler == "cmaes" and isinstance(axis, axes.Choices))
    ]


def encoded_dataset(word: str, request: Request, encoders: dict[str, _base.Encoder]) -> EncodedDataset:
    """Open (fetch if necessary) and prepare one data set; compute the hashes of its embeddings."""
    prepared = preparation.prepare(reader.open_dataset(word, request.home, request.text), request.prep, request.home)
    texts = embeddings.texts_of(prepared)
    hashes = {name: embeddings.embedding_hash(encoder, texts) for name, encoder in encoders.items()}
    return EncodedDataset(prepared, texts, encoders, hashes)


def check(request: Request, ledger: Ledger) -> None:
    """Raise HarnessError for an invalid name or value. Fetches and prepares no data set."""
    request.spaces.check()
    check_engine(request.engine)
    warm_start.check(ledger, request.engine.warm_start, request.budget.trials)
    backbones, chosen = _models(request, ledger)
    _conflicts(request.spaces, backbones, chosen.adapters)
    selection.encoders(request.encoders, request.home)
    known = library.names(request.home)
    for folder in [word for word in selection.datasets(request.datasets, request.home) if word not in known]:
        reader.open_dataset(folder, request.home, request.text)


def make(request: Request, ledger: Ledger) -> Plan:
    """Build the plan of a request. Fetches and prepares data sets; computes no embedding."""
    request.spaces.check()
    check_engine(request.engine)
    warm_start.check(ledger, request.engine.warm_start, request.budget.trials)
    backbones, chosen = _models(request, ledger)
    # invalid names and values are reported before any download
    conflicts = _conflicts(request.spaces, backbones, chosen.adapters)
    encoders = selection.encoders(request.encoders, request.home)
    words = selection.datasets(request.datasets, request.home)
    opened = [encoded_dataset(word, request, encoders) for word in words]
    encoded_datasets = {encoded.prepared.name: encoded for encoded in opened}
    if len(encoded_datasets) < len(words):
        raise HarnessError(f"--datasets '{request.datasets}': two data sets have the same name; rename one.")
    selected = [cell for name in encoded_datasets for cell in selection.cells(name, backbones, chosen, list(encoders))]
    blank = {(m.prepared.name, e) for m in opened for e in encoders if not m.can_encode(e)}
    reasons = {cell: "the data set has no text" for cell in selected if (cell.dataset, cell.encoder) in blank}
    reasons |= {c: conflicts[c.backbone, c.adapter] for c in selected if (c.backbone, c.adapter) in conflicts}
    reasons |= {cell: reason for cell in selected if cell not in reasons and (reason := _unwon(cell, request, ledger))}
    reasons |= {c: reason for c in selected if c not in reasons and (reason := ensembles.lacks(c, reasons))}
    studies: dict[Cell, Study] = {}
    for cell in (cell for cell in selected if cell not in reasons):  # the parts of an ensemble come before it
        dataset = encoded_datasets[cell.dataset]
        studies[cell] = ensembles.study(cell, studies) if cell.is_ensemble else study(cell, request, dataset, ledger)
    request = replace(request, winners=_source_table(request, ledger))
    return Plan(request, encoded_datasets, list(studies.values()), [(c, reasons[c]) for c in selected if c in reasons])


def _models(request: Request, ledger: Ledger) -> tuple[list[str], ensembles.Selection]:
    """Return the selected backbones and adapters, spelled as their rows."""
    backbones = spelling.backbones(registry.select(registry.BACKBONES, request.backbones), ledger)
    return backbones, spelling.adapters(ensembles.select(request.adapters, request.budget.seeds), ledger)


def _source_table(request: Request, ledger: Ledger) -> str:
    """Return the key of the table whose winners the request trains without a search; "" if it searches."""
    run = warm_start.source(ledger, request.engine.warm_start, request.protocol) if request.transfers else ""
    return ledger.launches[run].table if run else ""


def _conflicts(source: spaces.SpaceSource, backbones: list[str], adapters: list[str]) -> dict[tuple[str, str], str]:
    """Return why pairs of backbone and adapter cannot be built with their parameters, by pair.

    Raises HarnessError for an invalid value of a parameter, or if no pair can be built.
    """
    pairs = [(backbone, adapter) for backbone in backbones for adapter in adapters]
    reasons = {pair: spaces.conflict(Cell("", NO_TEXT, *pair), source) for pair in pairs}
    if all(reasons.values()):
        raise HarnessError(f"No cell of this grid can be built; {next(iter(reasons.values()))}.")
    return {pair: reason for pair, reason in reasons.items() if reason}


def study(cell: Cell, request: Request, encoded: EncodedDataset, ledger: Ledger) -> Study:
    """Build the study of a cell."""
    space = spaces.Space({}, {}, {}) if cell.is_baseline else spaces.of_cell(cell, request.spaces)
    inputs = Inputs(
        data=encoded.prepared.hash,
        embedding=encoded.embedding_hashes.get(cell.encoder, ""),
        basis=embeddings.BASIS_VERSION if cell.encoder != NO_TEXT else 0,
        versions=versions(cell, request.spaces.loss()),
    )
    won = _won(cell, space, request, ledger) if space.searched else None
    starts = _starts(cell, space, request, ledger, inputs.data) if space.searched and not request.transfers else ()
    settings, setting = (request.budget, request.protocol, request.engine), spaces.setting(cell, request.spaces)
    if won is not None:
        return Study(cell, space, *settings, inputs, ledger, (won.params,), setting, won.trials)
    return Study(cell, space, *settings, inputs, ledger, starts, setting)


def _starts(cell: Cell, space: spaces.Space, request: Request, ledger: Ledger, data: str) -> tuple[Json, ...]:
    source = request.engine.warm_start
    if source == warm_start.SHARED:
        return warm_start.shared_starts(ledger, cell, space, request.protocol, request.prep, data)
    return warm_start.starts(ledger, cell, space, source)


def _won(cell: Cell, space: spaces.Space, request: Request, ledger: Ledger) -> warm_start.Winner | None:
    if not request.transfers:
        return None
    return warm_start.winner(ledger, cell, space, request.engine.warm_start, request.protocol)


def _unwon(cell: Cell, request: Request, ledger: Ledger) -> str:
    """Return why a bench of transferred winners has none for a cell; "" if it has, or needs none."""
    if not request.transfers or not cell.is_trained or cell.is_ensemble:
        return ""
    space = spaces.of_cell(cell, request.spaces)
    if not space.searched or _won(cell, space, request, ledger):
        return ""
    return (
        f"in the newest table of {request.engine.warm_start} under this protocol, no finished search of this row has a "
        "winner inside its search space"
    )


# The names under which versions enter a trial's identity. They are data, not import paths: a package may move, but a
# name changed here would leave every recorded trial undone.
VERSION_NAMES = {registry.ADAPTERS: "adapters", registry.BACKBONES: "backbones", registry.LOSSES: "harness.losses"}


def versions(cell: Cell, loss: str) -> dict[str, int | str]:
    """Versions of the training core and of the components that compute a cell's results, by recorded name."""
    if cell.is_baseline:
        return {"core": CORE_VERSION, cell.adapter: registry.schema(registry.BASELINES, cell.adapter).revision}
    parts = {registry.ADAPTERS: cell.adapter, registry.BACKBONES: cell.backbone, registry.LOSSES: loss}
    return {"core": CORE_VERSION} | {
        VERSION_NAMES[package]: registry.schema(package, registry.split_overrides(name)[0]).revision
        for package, name in parts.items()
    }

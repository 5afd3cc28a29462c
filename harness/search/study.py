"""The study of one cell: its search space, its identity, and its state according to the ledger.

Imports no torch, ray, optuna or mlflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from harness import registry
from harness.record.launches import StudyRecord
from harness.record.ledger import Ledger
from harness.search import grids, spaces
from harness.types import SHARED, Budget, Cell, Engine, Inputs, Json, Params, Protocol, Role, Trial, TrialResult, digest


@dataclass
class Study:
    """The study of a cell: search space, identity, and state according to the ledger."""

    cell: Cell
    space: spaces.Space
    budget: Budget
    protocol: Protocol
    engine: Engine
    inputs: Inputs
    ledger: Ledger = field(repr=False)
    # configurations of the warm start: tried after the default point or, without a search, the one that is confirmed
    starts: tuple[Json, ...] = ()
    setting: str = ""  # name of the published setting of its space
    transferred: int = 0  # without a search: trials of the search whose winner it trains; 0 for the default
    _confirmed: tuple[Trial, list[Trial]] | None = field(
        default=None, repr=False
    )  # the last winner and its confirmations

    @cached_property
    def id(self) -> str:
        epochs, patience = (max(self.pace, 1) * n for n in (self.budget.epochs, self.budget.patience))
        same = [self.cell.backbone, self.cell.adapter, self.space.to_json(), epochs, patience]
        engine = {key: value for key, value in self.engine.identity().items() if key != "warm_start"}
        starts = [self.starts] if self.starts else []
        return digest([*same, self.protocol.identity(), engine, self.inputs.to_json(), *starts])

    @cached_property
    def max_trials(self) -> int:
        """Upper bound on search trials: 0 for baselines and budgets without a search, 1 for a fixed space, at most the
        size of a grid."""
        if not self.cell.is_trained or not self.budget.trials:
            return 0
        if not self.space.searched:
            return 1
        if self.engine.sampler != "grid":
            return self.budget.trials
        return min(self.budget.trials, 1 + len(self.starts) + len(grids.GridPoints(self.space)))

    @property
    def trials(self) -> int:
        """Search trials planned: fewer than `max_trials` once the time budget of the cell is spent."""
        return self.ledger.affordable(self.id, self.max_trials, self.budget.cell_seconds)

    @cached_property
    def _points(self) -> Iterator[Json]:
        return grids.GridPoints(self.space).points(int(self.id[:7], 16))

    def preset_params(self, number: int) -> Json | None:
        """Parameters of a search number that is not drawn: the default point, then the configurations of the warm
        start, then the points of a grid. None if they are drawn."""
        while len(self._presets) <= number and (self.engine.sampler == "grid" and self.space.searched):
            self._presets.append(next(self._points, self.space.default))
        return self._presets[number] if number < len(self._presets) else None

    @cached_property
    def _presets(self) -> list[Json]:
        return [self.space.default, *self.starts]

    @property
    def seeds(self) -> int:
        """Confirmations planned; 1 for a baseline, which is deterministic."""
        return 1 if self.cell.is_baseline else self.budget.seeds

    @property
    def runs(self) -> int:
        """Trials that confirm the winner: one a seed and fold."""
        return self.seeds * len(self.protocol.parts)

    @property
    def pace(self) -> int:
        """Factor of the backbone on the epochs of the budget; 0 if nothing is trained."""
        return pace_of(self.cell.backbone) if self.cell.is_trained else 0

    @property
    def epochs(self) -> int:
        """Maximum epochs of a trial."""
        return self.pace * self.budget.epochs

    def trial(self, role: Role, seed: int, params: Params) -> Trial:
        return Trial(
            self.cell, role, seed, self.epochs, self.pace * self.budget.patience, params, self.protocol, self.inputs
        )

    def history(self) -> dict[int, tuple[str, TrialResult | None]]:
        """Search number -> (trial id, its result or None), for the planned numbers that were started."""
        return self.ledger.history(self.id, self.trials)

    def ended(self) -> list[TrialResult]:
        return [result for _, result in self.history().values() if result is not None]

    def finished(self) -> list[tuple[str, float, Path]]:
        """Trial id, best value and ledger segment of each finished search trial, by number."""
        if self.ledger.home is None:  # a calibration has no home
            return []
        folder, done = self.ledger.home / "ledger", self.ledger.searched(self.id, self.trials)
        return [(i, e.best, folder / f"{e.run}.jsonl") for _, i, e in done if e.status == "done"]

    def winner(self) -> Trial | None:
        """Return the best finished trial of a complete search (first of equals), None if it is incomplete or all
        trials failed. Without a search the winner is the configuration of the warm start, else the default one; a
        baseline is always the winner."""
        return self.ledger.winner(self.id, self.trials) if self.max_trials else self._only

    @cached_property
    def _only(self) -> Trial:
        """The only trial of a cell without a search."""
        if self.cell.is_baseline:
            return self.trial("confirm", 0, {})
        return self.trial("search", 0, self.starts[0] if self.transferred else self.space.default)

    def confirmations(self, winner: Trial) -> list[Trial]:
        """Return the winner with every seed of the budget, from 1, on every fold.

        Seed 0 is the search, which never sees the test."""
        if self._confirmed is None or self._confirmed[0] is not winner:
            own = replace(winner, cell=self.cell)  # the same data or texts may have had another name
            folds = [own.on(part) for part in self.protocol.parts]
            self._confirmed = winner, folds if self.cell.is_baseline else own.confirmations(self.seeds)
        return self._confirmed[1]

    def to_run(self) -> int:
        """Number of trials that this study still needs."""
        searching = self.trials - self.ledger.ended(self.id, self.trials)
        winner = self.winner()
        if winner is None:
            return searching + (self.runs if searching else 0)
        return sum(self.ledger.result(trial.id) is None for trial in self.confirmations(winner))

    @property
    def begun(self) -> bool:
        """Whether a trial of this study was started."""
        if self.max_trials:
            return bool(self.ledger.studies.get(self.id))
        return any(trial.id in self.ledger.trials for trial in self.confirmations(self._only))

    @property
    def state(self) -> str:
        """`done`, `failed` (every search trial failed, or a confirmation did), or `pending`."""
        if self.to_run():
            return "pending"
        winner = self.winner()
        if winner is None:
            return "failed"
        results = [self.ledger.result(trial.id) for trial in self.confirmations(winner)]
        return "done" if all(r is not None and r.status == "done" for r in results) else "failed"

    def record(self) -> StudyRecord:
        """Return the record of this study in a launch."""
        return StudyRecord(
            id=self.id,
            cell=self.cell,
            trials=self.max_trials,
            seeds=self.seeds,
            searched=tuple(sorted(self.space.searched)),
            ranges={name: str(axis) for name, axis in sorted(self.space.searched.items()) if name.startswith(SHARED)},
            confirm=None if self.max_trials else tuple(trial.id for trial in self.confirmations(self._only)),
            cell_seconds=self.budget.cell_seconds,
            allowed=self.budget.trials if 1 < self.max_trials < self.budget.trials else None,
            warm=len(self.starts) if self.engine.warm_start else None,
            transferred=self.transferred,
            setting=self.setting,
            warm_start=self.engine.warm_start,
            folds=self.protocol.folds,
        )


def pace_of(backbone: str) -> int:
    """Factor of a backbone on the epochs of the budget (`backbones._base.Backbone.pace`)."""
    return registry.schema(registry.BACKBONES, registry.split_overrides(backbone)[0]).attributes.get("pace", 1)

"""A whole bench written into a ledger by arithmetic alone: what a real one leaves, without training anything."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from harness.metrics._ties import Ranks
from harness.record import artifacts, events
from harness.record.ledger import SCHEMA
from harness.record.segments import Segment
from harness.types import BASELINE, BUDGETS, EXPECTED, NO_TEXT, Cell, Inputs, Protocol, Trial, TrialResult, digest

USERS = 120
PROTOCOL = Protocol()
PROVENANCE = {"git": "0123abc", "dirty": [], "date": "2026-11-01", "python": "3.11", "harness": "0.1.0"}
PROVENANCE |= {"versions": {}, "machine": {}}
EMBEDDINGS: dict[str, str] = {}  # encoder -> hash of its embedding, which is part of a trial's identity


@dataclass(frozen=True)
class MadeStudy:
    """A study of a cell: its trials draw a learning rate each, and the better the rate, the better the value."""

    cell: Cell
    trials: int
    seeds: int

    @property
    def id(self) -> str:
        return digest(str(self.cell))

    def trial(self, role, seed: int, lr: float) -> Trial:
        inputs = Inputs(data=self.cell.dataset, embedding=EMBEDDINGS.get(self.cell.encoder, ""))
        return Trial(self.cell, role, seed, 4, 2, {"train.lr": lr}, PROTOCOL, inputs)

    def searched(self) -> list[Trial]:
        rng = np.random.default_rng(int(self.id[:6], 16))
        return [self.trial("search", 0, round(float(lr), 6)) for lr in rng.uniform(1e-4, 1e-2, self.trials)]

    def winner(self) -> Trial:
        if self.cell.is_baseline:
            return self.trial("search", 0, 0.0)
        return max(self.searched(), key=lambda trial: result_of(trial).best)

    def confirmations(self) -> list[Trial]:
        return [self.winner().confirmation(1 + k) for k in range(self.seeds)]

    def describe(self) -> dict:
        known = {"confirm": [self.confirmations()[0].id]} if self.cell.is_baseline else {}
        return {"study": self.id, "cell": asdict(self.cell), "trials": self.trials, "seeds": self.seeds} | known


def result_of(trial: Trial) -> TrialResult:
    """Two epochs; a rate near .005 is good; every fifth search trial of a text adapter fails."""
    lr = trial.params["train.lr"]
    if trial.role == "search" and trial.cell.encoder != NO_TEXT and int(trial.id[:4], 16) % 5 == 0:
        return TrialResult("failed", reason="loss is not finite at epoch 0, step 3", curve=[0.01])
    best = round(0.05 + 0.02 * (trial.cell.encoder != NO_TEXT) - 4 * abs(lr - 0.005), 8)
    info = {"seconds": 2.0 + trial.seed, "parameters": 1000.0, "epochs": 2.0, "effective_rank": 7.5}
    return TrialResult("done", best=best, best_epoch=1, curve=[best - 0.01, best], valid={"NDCG@10": best}, info=info)


def ranks_of(trial: Trial) -> Ranks:
    """Test ranks (USERS,), better where the validation was."""
    rng = np.random.default_rng(int(trial.id[:6], 16))
    return Ranks.untied(1 + np.floor(rng.uniform(0, 40, USERS) * (1 - 5 * result_of(trial).best)))


def studies(datasets: int = 2, trials: int = 4, seeds: int = 2) -> list[MadeStudy]:
    """`id` and two text adapters on each data set, and popularity."""
    found = []
    for number in range(datasets):
        name = f"set{number}"
        found.append(MadeStudy(Cell(name, NO_TEXT, BASELINE, "popularity"), 0, 1))
        found += [
            MadeStudy(Cell(name, encoder, "sasrec", adapter), trials, seeds)
            for encoder, adapter in ((NO_TEXT, "id"), ("minilm", "svd"), ("minilm", "mlp"))
        ]
    return found


def launch(planned: list[MadeStudy], trials: int, seeds: int) -> dict:
    budget = asdict(BUDGETS["quick"]) | {"trials": trials, "seeds": seeds, "epochs": 4, "patience": 2}
    return {
        "schema": SCHEMA,
        "table": "made",
        "protocol": PROTOCOL.identity(),
        "ties": EXPECTED,
        "prep": {"kcore": 5},
        "budget": budget,
        "engine": {"sampler": "random", "pruner": "none"},
        "studies": [study.describe() for study in planned],
        "skipped": [],
        "data": {study.cell.dataset: {"users": USERS, "hash": study.cell.dataset} for study in planned},
        "provenance": dict(PROVENANCE),
    }


def write(home: Path, datasets: int = 2, trials: int = 4, seeds: int = 2) -> Path:
    """The ledger and the artifacts of a bench that ran to its end. Returns the ledger's file."""
    planned = studies(datasets, trials, seeds)
    segment = Segment(home)
    segment.append("launched", **launch(planned, trials, seeds))
    for study in planned:
        for number, trial in enumerate(study.searched()):
            events.started(segment, trial, study.id, number)
            events.ended(segment, trial.id, result_of(trial))
        if not study.cell.is_baseline:
            segment.append("decided", study=study.id, trials=study.trials, winner=study.winner().id)
        for place, trial in enumerate(study.confirmations()):
            events.started(segment, trial, study.id, place)
            events.opened(segment, trial)
            users = np.arange(USERS)
            spectra = {"start": np.array([1.0, 0.5]), "end": np.array([1.0, 0.25])}
            artifacts.save_artifacts(home, trial.id, users=users, ranks=ranks_of(trial), spectra=spectra, weights=b"")
            events.ended(segment, trial.id, result_of(trial))
    segment.append("finished", ran=1)
    segment.close()
    return segment.path

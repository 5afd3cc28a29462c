"""Read the finished trials of a ledger: their duration and what it depends on, from which `forecast` prices others."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.record.ledger import Ledger
from harness.types import Params

SIZES = ("train.d", "train.max_len", "train.batch_size", "train.loss", "train.precision")  # an epoch's cost
Layout = tuple[int, bool]  # threads of a trial, and whether it has a GPU


@dataclass(frozen=True)
class FinishedTrial:
    """The facts of a finished trial that prices depend on."""

    id: str
    role: str
    cell: tuple[str, str]  # backbone, adapter
    inputs: tuple[str, str]  # hashes of data and embedding
    planned: tuple[int, int]  # epochs, patience
    epochs: int
    seconds: float
    shape: Params = field(default_factory=dict)  # parameters that an epoch's cost depends on, see `shape`
    layout: Layout | None = None  # None: not recorded


def read(ledger: Ledger) -> list[FinishedTrial]:
    """Return all finished trials of a ledger that trained. Reads each from disk once."""
    trials = []
    for trial_id, entry in ledger.trials.items():
        if entry.status in ("done", "pruned") and (seconds := ledger.seconds(trial_id)) > 0:
            trial, result = entry.trial, entry.result
            if trial.epochs and result is not None:
                cell, inputs = (trial.cell.backbone, trial.cell.adapter), (trial.inputs.data, trial.inputs.embedding)
                planned = (trial.epochs, trial.patience)
                epochs, sizes = max(len(result.curve), 1), shape(trial.params)
                layout = _layout(ledger, entry.run)
                trials.append(
                    FinishedTrial(trial_id, trial.role, cell, inputs, planned, epochs, seconds, sizes, layout)
                )
    return trials


def _layout(ledger: Ledger, run: str) -> Layout | None:
    """Return how a launch ran its trials, None if it did not record it."""
    facts = ledger.launches[run].provenance if run in ledger.launches else {}
    return (facts["threads"], facts.get("gpu", 0) > 0) if "threads" in facts else None


def shape(params: Params) -> Params:
    """Return the parameters that decide the cost of an epoch: `SIZES` and whole numbers of the backbone."""
    whole = {name for name, value in params.items() if name.startswith("backbone.") and type(value) is int}
    return {name: value for name, value in params.items() if name in SIZES or name in whole}

"""The nouns of the bench. Standard library only, so that every room may import them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

NO_TEXT = "none"  # the encoder of a cell whose adapter reads no text
BASELINE = "none"  # the backbone of a cell that trains nothing (popularity, kNN)

Role = Literal["search", "confirm"]
Status = Literal["done", "pruned", "failed"]


class HarnessError(Exception):
    """A fault of the input or of the machine that one line explains.

    The command line prints it as ``Error: <text>`` and exits with 2; nothing on disk is lost by it.
    """


def digest(value: Any) -> str:
    """Identity of a JSON value: sha256 over its canonical form, 24 hex digits.

    >>> digest({"b": 1, "a": 2.0}) == digest({"a": 2.0, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True, order=True)
class Cell:
    """One square of the grid: what is searched at one budget and becomes one row of a table."""

    dataset: str
    encoder: str
    backbone: str
    adapter: str

    @property
    def is_baseline(self) -> bool:
        return self.backbone == BASELINE

    def __str__(self) -> str:
        return " / ".join((self.dataset, self.encoder, self.backbone, self.adapter))


@dataclass(frozen=True)
class PrepSpec:
    """How raw interactions become sequences; part of the data set's identity.

    ``kcore`` users and items have at least that many events, iterated to the fixed point (0: off).
    ``tie_policy`` orders events of equal time: ``source`` (file order), ``item_id``, ``random:<seed>``.
    ``require_text`` drops items without text before the k-core.
    """

    kcore: int = 5
    tie_policy: str = "source"
    require_text: bool = False


@dataclass(frozen=True)
class Protocol:
    """How sequences are split and ranked. A table never mixes two protocols.

    ``split``: ``loo`` (last event tests, second last validates) or ``gts`` (global temporal split at the
    ``quantile`` of the timestamps). ``filter_seen``: items of the user's own history are no candidates.
    Ranks are over the full catalogue: 1 + number better + half the number of ties.
    """

    split: Literal["loo", "gts"] = "loo"
    filter_seen: bool = True
    quantile: float = 0.9


@dataclass(frozen=True)
class Budget:
    """What every cell may spend: the same for all cells of a bench."""

    name: str
    trials: int
    epochs: int
    patience: int
    seeds: int


@dataclass(frozen=True)
class Engine:
    """How a cell is searched: names of the Optuna sampler and pruner. Part of a study's identity."""

    sampler: str = "tpe"
    pruner: str = "median"


BUDGETS = {
    "quick": Budget("quick", trials=3, epochs=4, patience=2, seeds=2),
    "standard": Budget("standard", trials=16, epochs=40, patience=5, seeds=5),
    "paper": Budget("paper", trials=32, epochs=300, patience=20, seeds=5),
}


@dataclass(frozen=True)
class Trial:
    """One training run to make: everything the training core is told, and nothing of where it runs.

    ``params`` are flat and dotted: ``train.lr``, ``text.fusion``, ``adapter.hidden``, ``backbone.n_blocks``.
    ``inputs`` holds the hashes and versions that the result depends on: prepared data, embedding,
    component versions.
    """

    cell: Cell
    role: Role
    seed: int
    epochs: int
    patience: int
    params: dict[str, Any]
    protocol: Protocol
    inputs: dict[str, Any]

    @property
    def id(self) -> str:
        """Identity: equal exactly when the result must be equal.

        Holds no path, name of a data set or encoder (their hashes are in `inputs`), device or worker count.
        """
        value = asdict(self)
        value["cell"] = [self.cell.backbone, self.cell.adapter]
        return digest(value)

    def confirmation(self, seed: int) -> Trial:
        """This configuration retrained with another seed, its test to be opened."""
        return replace(self, role="confirm", seed=seed)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Trial:
        return cls(**{**value, "cell": Cell(**value["cell"]), "protocol": Protocol(**value["protocol"])})


@dataclass
class TrialResult:
    """What a trial came to.

    ``curve``: validation NDCG@10 by epoch. ``valid``: validation metrics at the best epoch. ``test``: test
    metrics, only for confirmed trials. ``info``: seconds, parameters, effective rank and the like.
    """

    status: Status
    reason: str = ""
    best: float = 0.0
    best_epoch: int = -1
    curve: list[float] = field(default_factory=list)
    valid: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    info: dict[str, float] = field(default_factory=dict)

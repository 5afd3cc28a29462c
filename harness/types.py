"""The nouns of the bench. Standard library only, so that every room may import them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

NO_TEXT = "none"  # the encoder of a cell whose adapter reads no text
BASELINE = "none"  # the backbone of a cell that trains nothing (popularity, kNN)

Role = Literal["search", "confirm"]
Status = Literal["done", "pruned", "failed"]


class HarnessError(Exception):
    """A fault of the input or of the machine that one line explains.

    The command line prints it as ``Error: <text>`` and exits with 2; nothing on disk is lost by it.
    """


INTERRUPTED = "Interrupted. What ended is kept; the same command goes on from here."


class Interrupted(KeyboardInterrupt):
    """Asked to stop by a signal. `code`: the exit code that says so, 130 after SIGINT, 143 after SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum


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


STEPS = ("rating", "window", "dedup", "text", "core", "history")


@dataclass(frozen=True)
class PrepSpec:
    """How raw interactions become sequences; part of the data set's identity.

    ``tie_policy`` orders a user's events of equal time: ``source`` (file order), ``item_id``, ``random:<seed>``. The
    steps then run in ``order``, each of `STEPS` once, on what the one before has left:

    ``rating``: events rated below ``min_rating`` go (None: off). ``window``: events outside of two UTC days, both
    within, such as ``2016-10-01:2018-11-01`` (None: off). ``dedup``: of repeats of (user, item, time) the first stays
    (``exact``), or of repeats of (user, item) the ``first`` or the ``last`` in the order of events; ``none``: all.
    ``text``: items without text go (``require_text``), and items whose title, the first field of the text template, has
    more than ``max_title_words`` words or holds page markup (0: off). ``core``: users and items have at least ``kcore``
    events, iterated to the fixed point; not iterated (``iterate``), those with fewer go at once by the counts before,
    and then users who are left with fewer (0: off). ``history``: a user's last ``max_history`` events stay (0: off).
    """

    kcore: int = 5
    tie_policy: str = "source"
    require_text: bool = False
    min_rating: float | None = None
    window: str | None = None
    dedup: str = "exact"
    max_title_words: int = 0
    iterate: bool = True
    max_history: int = 0
    order: tuple[str, ...] = STEPS

    def __post_init__(self) -> None:
        """4 and 4.0 are one rating, a list and a tuple one order: they must have one identity."""
        if type(self.min_rating) is int:
            object.__setattr__(self, "min_rating", float(self.min_rating))
        if isinstance(self.order, list):
            object.__setattr__(self, "order", tuple(self.order))

    def identity(self) -> dict[str, Any]:
        """What stands for the spec in hashes: equal for equal specs of this and of earlier versions."""
        return _identity(self, ("kcore", "tie_policy", "require_text"))


@dataclass(frozen=True)
class Protocol:
    """How sequences are split and ranked. A table never mixes two protocols.

    ``split``: ``loo`` (last event tests, second last validates) or ``gts`` (global temporal split at the
    ``quantile`` of the timestamps). ``filter_seen``: items of the user's own history are no candidates.
    Ranks are over the full catalogue; a metric of a tied target is its expectation over the order of the tie.

    Of ``gts`` alone: ``validation`` is ``by_time`` (the same quantile again, of what is not for the test) or
    ``last_train`` (the last event before the cut of each user); ``target``: of a user's events after a cut the
    ``last``, the ``first``, or each after the other (``successive``). ``drop_tied_test``: an event at the very time of
    the one before does not test, since nobody knows which came first.
    """

    split: Literal["loo", "gts"] = "loo"
    filter_seen: bool = True
    quantile: float = 0.9
    validation: Literal["by_time", "last_train"] = "by_time"
    target: Literal["last", "first", "successive"] = "last"
    drop_tied_test: bool = False

    def identity(self) -> dict[str, Any]:
        """What stands for the protocol in hashes: equal for equal protocols of this and of earlier versions."""
        return _identity(self, ("split", "filter_seen", "quantile"))


def _identity(options: PrepSpec | Protocol | Engine, always: tuple[str, ...]) -> dict[str, Any]:
    """The first options and, of those that came later, what is not as it was before there was a choice."""
    defaults = {field.name: field.default for field in fields(options)}
    return {name: value for name, value in vars(options).items() if name in always or value != defaults[name]}


@dataclass(frozen=True)
class Budget:
    """What every cell may spend: the same for all cells of a bench.

    ``trials``: of the search; 0 confirms each cell's default configuration without a search.

    ``cell_seconds``: a search draws no more once its trials have trained and validated so many seconds together, as
    each trial measures itself, so that waiting for a slot costs nothing (None: trials alone count).
    """

    name: str
    trials: int
    epochs: int
    patience: int
    seeds: int
    cell_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What a launch event says of it: without the bounds that are off."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# How tied targets are measured: by the expectation over their order, or, in earlier versions, by their mid-rank.
EXPECTED, MIDDLE = "expected", "mid-rank"

# Names of the ways to search, as `samplers` sets them up.
SAMPLERS = ("tpe", "random", "grid", "gp", "cmaes")
PRUNERS = ("median", "halving", "hyperband", "wilcoxon", "none")


@dataclass(frozen=True)
class Engine:
    """How a cell is searched: names of the Optuna sampler and pruner, and the data set whose best configurations of the
    same cell are tried first (`warm_start`, "" for none). Part of a study's identity, the last by what it gives."""

    sampler: str = "tpe"
    pruner: str = "median"
    warm_start: str = ""

    def identity(self) -> dict[str, Any]:
        """What stands for the engine in hashes: equal for equal engines of this and of earlier versions."""
        return _identity(self, ("sampler", "pruner"))


BUDGETS = {
    "quick": Budget("quick", trials=0, epochs=10, patience=3, seeds=2),  # see benchmarks/results/quick.md
    "standard": Budget("standard", trials=16, epochs=40, patience=5, seeds=5),
    "paper": Budget("paper", trials=32, epochs=300, patience=20, seeds=5),
}


@dataclass(frozen=True)
class Inputs:
    """Hashes and versions that a trial's result depends on; part of its identity."""

    data: str = ""  # hash of the prepared data set
    embedding: str = ""  # hash of the text embedding; "" for a cell without text
    basis: int = 0  # version of the spectral basis; 0 for a cell without text
    versions: dict[str, int] = field(default_factory=dict)  # recorded name of a component -> its version


@dataclass(frozen=True)
class Trial:
    """One training run to make: everything the training core is told, and nothing of where it runs.

    ``params`` are flat and dotted: ``train.lr``, ``text.fusion``, ``adapter.hidden``, ``backbone.n_blocks``.
    """

    cell: Cell
    role: Role
    seed: int
    epochs: int
    patience: int
    params: dict[str, Any]
    protocol: Protocol
    inputs: Inputs

    @cached_property
    def id(self) -> str:
        """Identity: equal exactly when the result must be equal.

        Holds no path, name of a data set or encoder (their hashes are in `inputs`), device or worker count.
        """
        value = {field.name: getattr(self, field.name) for field in fields(self)}
        value["cell"] = [self.cell.backbone, self.cell.adapter]
        value["protocol"] = self.protocol.identity()
        value["inputs"] = asdict(self.inputs)
        return digest(value)

    def confirmation(self, seed: int) -> Trial:
        """This configuration retrained with another seed, its test to be opened."""
        return replace(self, role="confirm", seed=seed)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Trial:
        nested = {"cell": Cell, "protocol": Protocol, "inputs": Inputs}
        return cls(**{**value, **{name: kind(**value[name]) for name, kind in nested.items()}})


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

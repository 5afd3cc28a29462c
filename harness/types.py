"""Core data types. Standard library only, so any module can import them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal

NO_TEXT = "none"  # the encoder of a cell whose adapter reads no text
BASELINE = "none"  # the backbone of a cell that trains nothing (popularity, kNN)

Json = dict[str, Any]  # a JSON object
Params = dict[str, Any]  # hyper-parameters, flat and dotted: {"train.lr": 0.001}
Role = Literal["search", "confirm"]
Status = Literal["done", "pruned", "failed"]


class HarnessError(Exception):
    """An error of the input or of the machine that one line explains.

    The command line prints it as ``Error: <text>`` and exits with code 2; nothing on disk is lost.
    """


INTERRUPTED = "Interrupted. Finished trials are kept; run the same command to resume."


class Interrupted(KeyboardInterrupt):
    """Stopped by a signal. `code`: the exit code, 130 after SIGINT and 143 after SIGTERM."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.code = 128 + signum


def digest(value: Any) -> str:
    """Hash a JSON value: sha256 of its canonical form, 24 hex digits.

    >>> digest({"b": 1, "a": 2.0}) == digest({"a": 2.0, "b": 1})
    True
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def part(params: Params, prefix: str) -> Json:
    """The parameters under `prefix`, with the prefix removed.

    >>> part({"train.lr": 0.1, "adapter.power": 1.0}, "train")
    {'lr': 0.1}
    """
    return {name[len(prefix) + 1 :]: value for name, value in params.items() if name.startswith(prefix + ".")}


def parts_of(adapter: str) -> tuple[str, ...]:
    """Return the adapters that the name of an ensemble lists, with repetitions; () for the name of one adapter.

    >>> parts_of("id+linear[fusion=none]"), parts_of("id x3"), parts_of("mlp")
    (('id', 'linear[fusion=none]'), ('id', 'id', 'id'), ())
    """
    if repeated := re.fullmatch(r"(.+) x(\d+)", adapter):
        return (repeated[1],) * int(repeated[2])
    parts = re.split(r"\+(?![^\[]*\])", adapter)  # a `+` outside brackets
    named = all(re.match(r"[\w-]+(\[|$)", part.strip()) for part in parts)
    return tuple(parts) if len(parts) > 1 and named else ()


@dataclass(frozen=True, order=True)
class Cell:
    """One combination of the grid: searched at one budget, one row of a table."""

    dataset: str
    encoder: str
    backbone: str
    adapter: str

    @property
    def is_baseline(self) -> bool:
        return self.backbone == BASELINE

    @property
    def parts(self) -> tuple[str, ...]:
        """Adapters of the rows that an ensemble combines, with repetitions; () for any other row."""
        return () if self.is_baseline else parts_of(self.adapter)

    @property
    def is_ensemble(self) -> bool:
        return bool(self.parts)

    @property
    def is_trained(self) -> bool:
        """Whether trials of this cell train a model."""
        return not self.is_baseline and not self.is_ensemble

    @property
    def has_variants(self) -> bool:
        """Whether its encoder gives an item several texts."""
        return "variants:" in self.encoder

    @property
    def is_control(self) -> bool:
        """Whether it has noise, or the texts of other items, in place of its text."""
        return self.encoder == "noise" or self.encoder.startswith("shuffled:")

    def __str__(self) -> str:
        return " / ".join((self.dataset, self.encoder, self.backbone, self.adapter))


STEPS = ("rating", "window", "dedup", "text", "core", "history")


@dataclass(frozen=True)
class PrepSpec:
    """How raw interactions become sequences; part of the data set's identity.

    ``tie_policy`` orders a user's events of equal time: ``source`` (file order), ``item_id``, ``random:<seed>``. Then
    the steps run in ``order``, each of `STEPS` once, each on the result of the previous one:

    - ``rating``: drop events rated below ``min_rating`` (None: off).
    - ``window``: drop events outside two UTC days, both inclusive, such as ``2016-10-01:2018-11-01`` (None: off).
    - ``dedup``: keep the first of equal (user, item, time) (``exact``); keep the ``first`` or ``last`` event of each
      (user, item); or keep all (``none``).
    - ``text``: drop items without text (``require_text``), and items whose title (the first field of the text template)
      has more than ``max_title_words`` words or page markup (0: off).
    - ``core``: drop users and items with fewer than ``kcore`` events (0: off). With ``iterate``, repeat until nothing
      changes. Without, drop users and items once, by their counts before the step, then users left with too few.
    - ``history``: keep each user's last ``max_history`` events (0: off).
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
        """Normalise types: the ratings 4 and 4.0, or an order as list or tuple, must have one identity."""
        if type(self.min_rating) is int:
            object.__setattr__(self, "min_rating", float(self.min_rating))
        if isinstance(self.order, list):
            object.__setattr__(self, "order", tuple(self.order))

    def identity(self) -> Json:
        """Return the fields to hash: equal for equal specs, also across versions of harness."""
        return _identity(self, ("kcore", "tie_policy", "require_text"))


@dataclass(frozen=True)
class Protocol:
    """How sequences are split and ranked. A table never mixes two protocols.

    ``split``: ``loo`` (last event for test, second last for validation), ``gts`` (global temporal split at the
    ``quantile`` of the timestamps), ``windows`` (sliding windows: ``folds`` such splits, one after the other) or
    ``users`` (the share ``train_users`` of the users is only trained on, half of the others are for validation, half
    for test). ``filter_seen``: exclude items of the user's history from the ranking.
    Ranks are over the full catalogue; a metric of a tied target is its expectation over the order of the tie.

    Only for ``gts`` and ``windows``: ``validation`` is ``by_time`` (the same quantile of the events before the test
    cut) or ``last_train`` (each user's last event before the cut). For all splits but ``loo``: ``target`` is a user's
    ``last`` event after a cut, the ``first``, or each in turn (``successive``); for ``users``, the cut is after the
    first event.
    ``drop_tied_test``: drop test events that share a timestamp with the previous event, since their order is unknown.

    ``cold_items``: share of the items with text that is held out: their events are neither trained, validated nor part
    of a history, and they are no candidates of the loss, but they are ranked and are test targets (0: off).
    ``split_seed``: seed of the choice of held-out items and of the users of ``users``.

    ``folds``: number of test windows of ``windows``; 0 for other splits. ``fold``: the window of a trial, from 0, the
    earliest. Searches see only the earliest, so the protocol of a study or table has the fold 0.
    """

    split: Literal["loo", "gts", "windows", "users"] = "loo"
    filter_seen: bool = True
    quantile: float = 0.9
    validation: Literal["by_time", "last_train"] = "by_time"
    target: Literal["last", "first", "successive"] = "last"
    drop_tied_test: bool = False
    cold_items: float = 0.0
    train_users: float = 0.8
    split_seed: int = 0
    folds: int = 0
    fold: int = 0

    @property
    def parts(self) -> list[Protocol]:
        """The protocol of each fold, earliest first; only itself for a split without folds."""
        return [replace(self, fold=fold) for fold in range(self.folds)] if self.folds else [self]

    def identity(self) -> Json:
        """Return the fields to hash: equal for equal protocols, also across versions of harness."""
        return _identity(self, ("split", "filter_seen", "quantile"))


def _identity(options: PrepSpec | Protocol | Engine, always: tuple[str, ...]) -> Json:
    """Return the fields in `always`, and each later field whose value is not its default."""
    defaults = {field.name: field.default for field in fields(options)}
    return {name: value for name, value in vars(options).items() if name in always or value != defaults[name]}


@dataclass(frozen=True)
class Budget:
    """Limits of the work per cell, equal for all cells of a bench.

    ``trials``: search trials; 0 skips the search and confirms each cell's default configuration, or the winner
    of the warm start.

    ``cell_seconds``: stop sampling once the trials of the cell have trained and validated for this many seconds in
    total. Each trial measures its own time, so waiting for a slot costs nothing (None: no time limit).
    """

    name: str
    trials: int
    epochs: int
    patience: int
    seeds: int
    cell_seconds: float | None = None

    def to_json(self) -> Json:
        """Return the fields for a launch event, without limits that are off."""
        return {name: value for name, value in asdict(self).items() if value is not None}


# How metrics count tied targets: by the expectation over their order or, in earlier versions, by their mid-rank.
EXPECTED, MIDDLE = "expected", "mid-rank"

# Names of samplers and pruners; `search.samplers` builds them.
SAMPLERS = ("gp", "tpe", "random", "grid", "cmaes")
PRUNERS = ("median", "halving", "hyperband", "wilcoxon", "none")


@dataclass(frozen=True)
class Engine:
    """How a cell is searched: names of the Optuna sampler and pruner, `warm_start` and `search_seed`.

    `warm_start`: data set whose best configurations of the same cell are tried first ("" for none; "shared": see
    `harness.search.warm_start.shared_starts`). `search_seed`: another one draws other configurations. Part of a study's
    identity; `warm_start` counts by the configurations it yields, not by its name.
    """

    sampler: str = "gp"
    pruner: str = "median"
    warm_start: str = ""
    search_seed: int = 0

    def identity(self) -> Json:
        """Return the fields to hash: equal for equal engines, also across versions of harness."""
        return _identity(self, ("sampler", "pruner"))


BUDGETS = {
    "quick": Budget("quick", trials=0, epochs=5, patience=2, seeds=2),  # see benchmarks/results/quick.md
    "standard": Budget("standard", trials=16, epochs=40, patience=5, seeds=5),
    "paper": Budget("paper", trials=32, epochs=300, patience=20, seeds=5),
}

SHARED = ("train.", "loss.")  # beginnings of the names of parameters that every trained row has

# Shared parameters that a budget sets for all cells, unless `--set` does or `--spaces` names other search spaces.
BUDGET_PARAMS: dict[str, Params] = {"quick": {"train.batch_size": 512, "train.ema": 0.97}}  # half the epochs to a level


@dataclass(frozen=True)
class Inputs:
    """Hashes and versions that a trial's result depends on; part of its identity."""

    data: str = ""  # hash of the prepared data set
    embedding: str = ""  # hash of the text embedding; "" for a cell without text
    basis: int = 0  # version of the spectral basis; 0 for a cell without text
    versions: dict[str, int | str] = field(default_factory=dict)  # recorded name of a component -> `Schema.revision`
    parts: tuple[str, ...] = ()  # ids of the trials whose scores an ensemble combines

    def to_json(self) -> Json:
        """Return the fields to hash and to record, without `parts` if there are none."""
        value = asdict(self)
        return value if self.parts else {name: part for name, part in value.items() if name != "parts"}

    @classmethod
    def from_json(cls, value: Json) -> Inputs:
        return cls(**{**value, "parts": tuple(value.get("parts", ()))})


@dataclass(frozen=True)
class Trial:
    """One training run to do: the whole input of the training core, independent of where it runs.

    ``params`` are flat and dotted: ``train.lr``, ``text.fusion``, ``adapter.hidden``, ``backbone.n_blocks``.
    ``study``: the one search whose trial it is, if the pruner of another one has stopped this configuration; else ''.
    """

    cell: Cell
    role: Role
    seed: int
    epochs: int
    patience: int
    params: Params
    protocol: Protocol
    inputs: Inputs
    study: str = ""

    @cached_property
    def id(self) -> str:
        """Identity: equal exactly if the result must be equal.

        Excludes paths, names of data sets and encoders (`inputs` has their hashes), devices and worker counts.
        """
        value = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "study" or self.study}
        value["cell"] = [self.cell.backbone, self.cell.adapter]
        value["protocol"] = self.protocol.identity()
        value["inputs"] = self.inputs.to_json()
        return digest(value)

    def confirmation(self, seed: int) -> Trial:
        """Return the trial that retrains this configuration with another seed and then runs the test."""
        return replace(self, role="confirm", seed=seed, study="")

    def confirmations(self, seeds: int) -> list[Trial]:
        """Return the confirmations with the seeds 1, 2, ... (0 is the search), each on every fold."""
        return [self.confirmation(1 + k).on(part) for k in range(seeds) for part in self.protocol.parts]

    def on(self, protocol: Protocol) -> Trial:
        """Return this trial under a protocol; itself if it is the trial's."""
        return self if protocol == self.protocol else replace(self, protocol=protocol)

    def to_json(self) -> Json:
        value = asdict(self) | {"inputs": self.inputs.to_json()}
        return value if self.study else {key: value[key] for key in value if key != "study"}

    @classmethod
    def from_json(cls, value: Json) -> Trial:
        nested = {"cell": Cell(**value["cell"]), "protocol": Protocol(**value["protocol"])}
        return cls(**{**value, **nested, "inputs": Inputs.from_json(value["inputs"])})


@dataclass
class TrialResult:
    """The result of a trial.

    ``curve``: validation NDCG@10 per epoch. ``valid``: validation metrics at the best epoch. ``test``: test metrics,
    only for confirmations. ``info``: seconds, parameters, effective rank and the like.
    """

    status: Status
    reason: str = ""
    best: float = 0.0
    best_epoch: int = -1
    curve: list[float] = field(default_factory=list)
    valid: dict[str, float] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    info: dict[str, float] = field(default_factory=dict)

"""A model out of its bench: what `harness export` wrote, read back and asked. Torch and the model code only.

>>> import harness                                                          # doctest: +SKIP
>>> model = harness.load_export("exported")                                 # doctest: +SKIP
>>> model.recommend([["B00004Z5M1", "B00006RVPW"]], k=3)[0].items           # doctest: +SKIP
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from adapters._base import Adapter, ItemTable, Spectrum
from harness import registry
from harness.system import files
from harness.training.model import SequenceModel
from harness.types import HarnessError

SCHEMA = 1
CONFIG, ITEMS, TABLE, BACKBONE, LINEAR, SELFTEST = (
    *("config.json", "items.json", "items.safetensors", "backbone.safetensors"),
    *("linear_map.safetensors", "selftest.json"),
)
TOLERANCE = 1e-3  # of a score, relative to the largest: other machines sum in another order
BLOCK = 512  # histories encoded at a time

Histories = Sequence[Sequence[Any]]
Times = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Recommendation:
    """What a history is answered with: `items` (ids) and their `scores`, best first.

    `unknown`: how many of its events were passed over, because the catalogue has no such item. `popular`: nothing was
    left to read, so that these are the items of most training events, and the scores their number.
    """

    items: list[str]
    scores: list[float]
    unknown: int
    popular: bool


class FixedTable(Adapter):
    """An item table that is given, (N, k d), with what mixes its k views."""

    uses_text = False
    table: Tensor

    def __init__(self, table: Tensor, views: int, mixer: nn.Module | None) -> None:
        super().__init__(Spectrum.blank(len(table)), table.shape[1] // views)
        self.views, self.mixer = views, mixer
        self.frozen("table", table)

    def forward(self) -> Tensor:
        return self.table


class Recommender:
    """An exported model.

    ``ids``: the catalogue's item ids; row i of ``table`` (N, k d) is the vector of ids[i]. ``popularity``: (N,) int64
    training events. ``linear``: (W, b), the vector e W + b of an unseen item from its text embedding e, or None.
    """

    def __init__(
        self,
        config: dict[str, Any],
        ids: list[str],
        table: Tensor,
        popularity: Tensor,
        backbone: dict[str, Tensor],
        linear: tuple[Tensor, Tensor] | None,
    ) -> None:
        self.config, self.ids, self.popularity, self.linear = config, ids, popularity, linear
        self.place = {name: number for number, name in enumerate(ids, 1)}
        self._weights = backbone
        self.model = _model(config, table, backbone).eval()
        with torch.no_grad():
            self._table = self.model.table()
            self._keys = self.model.project(self._table[1:])

    @property
    def table(self) -> Tensor:
        return self._table[1:]

    @property
    def needs_times(self) -> bool:
        return self.model.backbone.uses_time

    def recommend(self, histories: Histories, k: int = 10, times: Times | None = None) -> list[Recommendation]:
        """The k best items after each history of item ids, oldest first.

        Items of the history are left out where the bench left them out. Ids that the catalogue lacks are passed over
        and counted. `times`: for backbones that read the times of events, a list a history with the seconds of each of
        its events and, behind them, of the moment asked for. Raises HarnessError for other shapes, or without times
        where the backbone reads them.
        """
        _check(histories, k)
        if self.needs_times:
            _check_times(self.config["components"]["backbone"]["name"], histories, times)
        found: list[Recommendation] = []
        for start in range(0, len(histories), BLOCK):
            stop = min(start + BLOCK, len(histories))
            block = None if times is None or not self.needs_times else times[start:stop]
            found += self._recommend(histories[start:stop], k, block)
        return found

    def _recommend(self, histories: Histories, k: int, times: Times | None) -> list[Recommendation]:
        known = [[number for word in history if (number := self.place.get(str(word)))] for history in histories]
        asked = [row for row, numbers in enumerate(known) if numbers]
        scores = self.popularity.double().repeat(len(histories), 1)
        if asked:
            kept = None if times is None else [self._known_times(histories[row], times[row]) for row in asked]
            scores[asked] = self.scores([known[row] for row in asked], kept).double()
        if self.config["filter_seen"]:
            for row, numbers in enumerate(known):
                scores[row, torch.tensor(numbers, dtype=torch.int64) - 1] = -torch.inf
        values, places = scores.topk(min(k, len(self.ids)), dim=1)
        answers = []
        for row, numbers in enumerate(known):
            kept = [(self.ids[i], v) for i, v in zip(places[row].tolist(), values[row].tolist(), strict=True)]
            kept = [(name, value) for name, value in kept if value != -torch.inf]
            unknown = len(histories[row]) - len(numbers)
            answers.append(Recommendation([n for n, _ in kept], [v for _, v in kept], unknown, not numbers))
        return answers

    def _known_times(self, history: Sequence[Any], times: Sequence[float]) -> list[int]:
        """Times of the events whose items are known, and of the moment asked for."""
        own = [int(t) for word, t in zip(history, times, strict=False) if str(word) in self.place]
        return [*own, int(times[-1])]

    @torch.no_grad()
    def scores(self, histories: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Scores (B, N) of all items after histories of item numbers, 1 to N, none of them empty."""
        return self.states(histories, times) @ self._keys.T

    @torch.no_grad()
    def states(self, histories: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> Tensor:
        """States (B, k d) after histories of item numbers, of which the last max_len events are read; the scores are
        their dot products with `keys`."""
        longest = self.config["max_len"]
        items = _padded([history[-longest:] for history in histories])
        at = None if times is None else _padded([own[-longest - 1 :] for own in times])
        return self.model.project(self.model.last_states(items, self._table, at))

    @property
    def keys(self) -> Tensor:
        """Item vectors (N, k d) whose dot products with `states` are the scores."""
        return self._keys

    def extended(self, ids: Sequence[str], embeddings: Any) -> Recommender:
        """This model with unseen items: their vectors are made of their text embeddings (m, D), of the encoder and text
        template that the config names. Raises HarnessError where the method has no such map or an id is known."""
        if self.linear is None:
            raise HarnessError(f"This export cannot make vectors of unseen items: {self.config['unseen_items']}")
        E, (W, b) = torch.as_tensor(embeddings, dtype=torch.float32), self.linear
        if E.ndim != 2 or E.shape != (len(ids), len(W)):
            raise HarnessError(f"embeddings are {tuple(E.shape)}; {len(ids)} items take ({len(ids)}, {len(W)}).")
        known = [name for name in ids if name in self.place]
        if known or len(set(ids)) < len(ids):
            raise HarnessError(f"'{(known or list(ids))[0]}' is in the catalogue already, or given twice.")
        table = torch.cat([self.table, E @ W + b])
        popularity = torch.cat([self.popularity, torch.zeros(len(ids), dtype=torch.int64)])
        return Recommender(self.config, [*self.ids, *ids], table, popularity, self._weights, self.linear)


def load(folder: str | os.PathLike[str], *, check: bool = True) -> Recommender:
    """The model of an export folder. `check`: compare hashes and answer the self-test's histories first.

    Raises HarnessError, one line, if a file is missing, damaged or of another version, or the self-test fails.
    """
    folder = Path(folder).expanduser()
    config = _config(folder)
    if check:
        _check_files(folder, config)
    tables, weights = _tensors(folder / TABLE), _tensors(folder / BACKBONE)
    ids = _json(folder / ITEMS)
    linear = _tensors(folder / LINEAR) if (folder / LINEAR).is_file() else None
    try:
        given = None if linear is None else (linear["W"], linear["b"])
        model = Recommender(config, ids, tables["item_table"], tables["popularity"], weights, given)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(f"{folder} cannot be read as a model: {str(error).splitlines()[0]}") from error
    if check:
        self_test(model, folder)
    return model


def self_test(model: Recommender, folder: Path) -> None:
    """Raises HarnessError if the model does not give the scores that were written with it."""
    for number, case in enumerate(_json(folder / SELFTEST)):
        times = None if case["times"] is None else [case["times"]]
        [answer] = model.recommend([case["history"]], len(case["items"]), times)
        width = max(1e-6, max(map(abs, case["scores"])))
        off = max((abs(a - b) for a, b in zip(answer.scores, case["scores"], strict=False)), default=0.0)
        if len(answer.scores) != len(case["scores"]) or off > TOLERANCE * width:
            raise HarnessError(
                f"{folder}: self-test {number} fails; scores are off by {off:.2g}, of {width:.2g}. The model does not "
                f"compute here what it did where it was exported (torch {model.config['provenance']['torch']})."
            )


def _model(config: dict[str, Any], table: Tensor, weights: dict[str, Tensor]) -> SequenceModel:
    parts, d = config["components"], config["d"]
    backbone = registry.load(registry.BACKBONES, parts["backbone"]["name"])(
        d, config["max_len"], **parts["backbone"]["params"]
    )
    backbone.load_state_dict(_under(weights, "backbone"))
    adapter = registry.load(registry.ADAPTERS, parts["adapter"]["name"])
    mixer = adapter.mixer_of(d, parts["adapter"]["params"])
    if mixer is not None:
        mixer.load_state_dict(_under(weights, "mixer"))
    criterion = registry.load(registry.LOSSES, parts["loss"]["name"])(len(table), **parts["loss"]["params"])
    fixed = FixedTable(table, adapter.views, mixer)
    return SequenceModel(ItemTable(fixed, d, fusion="none", out_std=1.0, id_std=0.0), backbone, criterion)


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(f"{prefix}.")}


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Right-padded int64 (rows, longest)."""
    return nn.utils.rnn.pad_sequence([torch.as_tensor(row, dtype=torch.int64) for row in rows], batch_first=True)


def _check(histories: Histories, k: int) -> None:
    if not isinstance(k, int) or k < 1:
        raise HarnessError(f"k is {k!r}; it is a whole number from 1.")
    if isinstance(histories, str) or any(isinstance(history, str) for history in histories):
        raise HarnessError("histories are a list of lists of item ids, one list a history.")


def _check_times(backbone: str, histories: Histories, times: Times | None) -> None:
    if times is None:
        raise HarnessError(
            f"{backbone} reads the times of events: give times, for each history the seconds of its events and, behind "
            "them, of the moment asked for."
        )
    wanted, given = [len(history) + 1 for history in histories], [len(own) for own in times]
    if given != wanted:
        raise HarnessError(f"times have lengths {given[:5]}, histories ask for {wanted[:5]}: one more than events.")


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise HarnessError(f"{folder} is no exported model: it has no {CONFIG}. Make one with: harness export ROW")
    config = _json(folder / CONFIG)
    if config.get("schema", 0) > SCHEMA:
        raise HarnessError(f"{folder} was exported by a newer harness ({config.get('harness')}); update harness.")
    kinds = {"adapter": registry.ADAPTERS, "backbone": registry.BACKBONES, "loss": registry.LOSSES}
    for kind, package in kinds.items():
        part = config["components"][kind]
        here = registry.schema(package, part["name"]).version
        if here != part["version"]:
            raise HarnessError(
                f"{folder} holds version {part['version']} of {kind} {part['name']}, this harness has version {here}; "
                f"install harness {config['harness']} to read it."
            )
    return config


def _check_files(folder: Path, config: dict[str, Any]) -> None:
    for name, wanted in config["files"].items():
        if not (folder / name).is_file():
            raise HarnessError(f"{folder} lacks {name}; export the row again.")
        if files.sha256(folder / name) != wanted:
            raise HarnessError(f"{folder / name} is damaged: it is not what was exported; export the row again.")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarnessError(f"{path} cannot be read: {error}.") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise HarnessError(f"{path} cannot be read: {error}.") from error

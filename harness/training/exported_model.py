"""Load a model written by `harness export` and recommend items with it. Torch and the model code only.

>>> import harness                                                          # doctest: +SKIP
>>> model = harness.load_export("exported")                                 # doctest: +SKIP
>>> model.recommend([["B00004Z5M1", "B00006RVPW"]], k=3)[0].items           # doctest: +SKIP
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from adapters._base import Adapter, ItemTable, Spectrum
from harness import registry
from harness.paths import expanded
from harness.system import files
from harness.training.model import SequenceModel
from harness.types import HarnessError, Json, digest

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
    """The recommendations for a history: `items` (ids) and their `scores`, best first.

    `unknown`: number of its events that were skipped because the catalogue lacks the item. `popular`: no event was
    left, so these are the items with the most training events, and the scores are those counts.
    """

    items: list[str]
    scores: list[float]
    unknown: int
    popular: bool


class FixedTable(Adapter):
    """A precomputed item table, (N, k d), and the module that mixes its k views, or ``folds`` them into one."""

    uses_text = False
    table: Tensor

    def __init__(self, table: Tensor, views: int, folds: bool, mixer: nn.Module | None) -> None:
        super().__init__(Spectrum.blank(len(table)), table.shape[1] // views)
        self.views, self.folds, self.mixer = views, folds, mixer
        self.frozen("table", table)

    def forward(self) -> Tensor:
        return self.table


class Recommender:
    """An exported model.

    ``ids``: the catalogue's item ids; row i of ``table`` (N, k d) is the vector of ids[i]. ``popularity``: (N,) int64
    training events. ``linear``: (W, b) to map the text embedding e of an unseen item to its vector e W + b, or None.
    """

    def __init__(
        self,
        config: Json,
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
            self._keys = self.model.project(self.model.scored(self._table[1:]))

    @property
    def table(self) -> Tensor:
        return self._table[1:]

    @property
    def needs_times(self) -> bool:
        return self.model.backbone.uses_time

    def recommend(self, histories: Histories, k: int = 10, times: Times | None = None) -> list[Recommendation]:
        """Recommend the k best next items for each history of item ids, oldest first.

        Items of the history are excluded if the bench excluded them. Ids that the catalogue lacks are skipped and
        counted. `times`, for backbones that read timestamps: for each history, the seconds of its events followed by
        the time of the recommendation. Raises HarnessError for invalid shapes, or if the backbone needs times and gets
        none.
        """
        k = _check(histories, k)
        histories = [list(history) for history in histories]  # by place: the index of a frame's column is another
        times = None if times is None else [list(row) for row in times]
        if self.needs_times:
            _check_times(self.config["components"]["backbone"]["name"], histories, times)
        recommendations: list[Recommendation] = []
        for start in range(0, len(histories), BLOCK):
            stop = min(start + BLOCK, len(histories))
            block = None if times is None or not self.needs_times else times[start:stop]
            recommendations += self._recommend(histories[start:stop], k, block)
        return recommendations

    def _recommend(self, histories: Histories, k: int, times: Times | None) -> list[Recommendation]:
        numbered = [[number for word in history if (number := self.place.get(str(word)))] for history in histories]
        scored = [row for row, numbers in enumerate(numbered) if numbers]
        scores = self.popularity.double().repeat(len(histories), 1)
        if scored:
            kept_times = None if times is None else [self._times_in(histories[row], times[row]) for row in scored]
            scores[scored] = self.scores([numbered[row] for row in scored], kept_times).double()
        if self.config["filter_seen"]:
            for row, numbers in enumerate(numbered):
                scores[row, torch.tensor(numbers, dtype=torch.int64) - 1] = -torch.inf
        values, places = scores.topk(min(k, len(self.ids)), dim=1)
        recommendations = []
        for row, numbers in enumerate(numbered):
            best = [(self.ids[i], v) for i, v in zip(places[row].tolist(), values[row].tolist(), strict=True)]
            best = [(name, value) for name, value in best if value != -torch.inf]
            unknown = len(histories[row]) - len(numbers)
            recommendations.append(Recommendation([n for n, _ in best], [v for _, v in best], unknown, not numbers))
        return recommendations

    def _times_in(self, history: Sequence[Any], times: Sequence[float]) -> list[int]:
        """Times of the events whose items are in the catalogue, then the time of the recommendation."""
        kept = [int(t) for word, t in zip(history, times, strict=False) if str(word) in self.place]
        return [*kept, int(times[-1])]

    @torch.no_grad()
    def scores(self, histories: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> Tensor:
        """Scores (B, N) of all items after non-empty histories of item numbers, 1 to N."""
        return self.states(histories, times) @ self._keys.T

    @torch.no_grad()
    def states(self, histories: Sequence[Sequence[int]], times: Sequence[Sequence[int]] | None = None) -> Tensor:
        """States (B, k d), or (B, d) if the adapter folds its views, after histories of item numbers; only the last
        max_len events are read. Scores are their dot products with `keys`."""
        longest = self.config["max_len"]
        items = _padded([history[-longest:] for history in histories])
        at = None if times is None else _padded([row[-longest - 1 :] for row in times])
        return self.model.project(self.model.last_states(items, self._table, at))

    @property
    def keys(self) -> Tensor:
        """Item vectors, as wide as `states`, whose dot products with them are the scores."""
        return self._keys

    def extended(self, ids: Sequence[str], embeddings: Any) -> Recommender:
        """Return this model with unseen items added, whose vectors are mapped from text embeddings (m, D) made with the
        config's encoder and text template. Raises HarnessError if the method has no such map, an id is not new, or the
        embeddings are not finite numbers of that shape or one is zero, as of an item without text."""
        if self.linear is None:
            raise HarnessError(f"This export cannot map unseen items to vectors: {self.config['unseen_items']}")
        W, b = self.linear
        try:
            ids, E = [str(name) for name in ids], torch.as_tensor(embeddings, dtype=torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise HarnessError(f"ids and embeddings must be a list and a matrix of numbers: {error}") from error
        if E.ndim != 2 or E.shape != (len(ids), len(W)):
            raise HarnessError(f"embeddings have shape {tuple(E.shape)}; {len(ids)} items need ({len(ids)}, {len(W)}).")
        if len(broken := (~E.isfinite().all(1)).nonzero()):
            raise HarnessError(f"The embedding of '{ids[int(broken[0])]}' has NaN or infinite values.")
        if len(empty := (~E.any(1)).nonzero()):
            raise HarnessError(
                f"The embedding of '{ids[int(empty[0])]}' is zero, as of an item without text: the map has no vector "
                "for it. Leave it out."
            )
        present = [name for name in ids if name in self.place]
        if present or len(set(ids)) < len(ids):
            raise HarnessError(f"'{(present or list(ids))[0]}' is already in the catalogue, or repeated in ids.")
        table = torch.cat([self.table, E @ W + b])
        popularity = torch.cat([self.popularity, torch.zeros(len(ids), dtype=torch.int64)])
        return Recommender(self.config, [*self.ids, *ids], table, popularity, self._weights, self.linear)


def load(folder: str | os.PathLike[str], *, check: bool = True) -> Recommender:
    """Load the model of an export folder. `check`: first compare hashes and run the self-test.

    Raises HarnessError, one line, if a file is missing, damaged or of another version, or the self-test fails.
    """
    folder = expanded(folder)
    config = _config(folder)
    if check:
        _check_files(folder, config)
    tables, weights = _tensors(folder / TABLE), _tensors(folder / BACKBONE)
    ids = _json(folder / ITEMS)
    linear = _tensors(folder / LINEAR) if (folder / LINEAR).is_file() else None
    try:
        text_map = None if linear is None else (linear["W"], linear["b"])
        model = Recommender(config, ids, tables["item_table"], tables["popularity"], weights, text_map)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise HarnessError(f"{folder} cannot be read as a model: {str(error).splitlines()[0]}") from error
    if check:
        self_test(model, folder)
    return model


def self_test(model: Recommender, folder: Path) -> None:
    """Raise HarnessError unless the model reproduces the scores that were exported with it."""
    for number, case in enumerate(_json(folder / SELFTEST)):
        times = None if case["times"] is None else [case["times"]]
        wanted = max(len(case["items"]), 1)  # none were left if the history has all items
        [answer] = model.recommend([case["history"]], wanted, times)
        width = max([1e-6, *map(abs, case["scores"])])
        off = max((abs(a - b) for a, b in zip(answer.scores, case["scores"], strict=False)), default=0.0)
        if len(answer.scores) != len(case["scores"]) or off > TOLERANCE * width:
            raise HarnessError(
                f"{folder}: self-test {number} fails: scores up to {width:.2g} differ by {off:.2g}. The model computes "
                f"other scores here than where it was exported (torch {model.config['provenance']['torch']})."
            )


def _model(config: Json, table: Tensor, weights: dict[str, Tensor]) -> SequenceModel:
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
    fixed = FixedTable(table, adapter.views, adapter.folds, mixer)
    return SequenceModel(ItemTable(fixed, d, fusion="none", out_std=1.0, id_std=0.0), backbone, criterion)


def _under(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{prefix}."): v for k, v in weights.items() if k.startswith(f"{prefix}.")}


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """Right-padded int64 (rows, longest)."""
    return nn.utils.rnn.pad_sequence([torch.as_tensor(row, dtype=torch.int64) for row in rows], batch_first=True)


def _check(histories: Histories, k: int) -> int:
    """Return k as an int. Raises HarnessError for another k, or histories that are no lists of ids."""
    try:
        number = 0 if isinstance(k, bool) else operator.index(k)
    except TypeError:
        number = 0
    if number < 1:
        raise HarnessError(f"k is {k!r}; it must be a whole number of at least 1.")
    if not _is_list(histories) or not all(map(_is_list, histories)):
        raise HarnessError("histories must be a list of lists of item ids, one list per history.")
    wrong = [word for history in histories for word in history if not isinstance(word, (str, Integral))]
    if wrong:
        more = " 101.0 is not the id 101." if isinstance(wrong[0], Real) else ""
        raise HarnessError(f"A history contains {wrong[0]!r}; item ids are text or whole numbers.{more}")
    return number


def _is_list(value: Any) -> bool:
    """Whether a value is a list, a tuple, an array or a column of a frame."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))


def _check_times(backbone: str, histories: Histories, times: Times | None) -> None:
    if times is None:
        raise HarnessError(
            f"{backbone} needs timestamps: pass times, for each history the seconds of its events followed by the time "
            "of the recommendation."
        )
    if not _is_list(times) or not all(map(_is_list, times)):
        raise HarnessError("times must be a list of lists of seconds, one list per history.")
    wanted, lengths = [len(history) + 1 for history in histories], [len(row) for row in times]
    if lengths != wanted:
        raise HarnessError(f"times have lengths {lengths[:5]}; they must be {wanted[:5]}: one more than the events.")
    try:
        [int(time) for row in times for time in row]
    except (TypeError, ValueError, OverflowError) as error:
        raise HarnessError(f"times must be numbers of seconds: {error}.") from error


def _config(folder: Path) -> Json:
    if not (folder / CONFIG).is_file():
        raise HarnessError(f"{folder} is not an exported model: no {CONFIG}. Create one with: harness export ROW")
    config = _json(folder / CONFIG)
    other = HarnessError(f"{folder} is not an exported model: its {CONFIG} is that of another program.")
    if not isinstance(config, dict) or not isinstance(config.get("schema", 0), int):
        raise other
    if config.get("schema", 0) > SCHEMA:
        raise HarnessError(f"{folder} was exported by a newer harness ({config.get('harness')}); update harness.")
    own = config.pop("digest", None)
    if own is not None and own != digest(config):
        raise HarnessError(f"{folder / CONFIG} is damaged: its digest differs. Export the row again.")
    if not all(isinstance(config.get(name), dict) for name in ("components", "files")):
        raise other
    kinds = {"adapter": registry.ADAPTERS, "backbone": registry.BACKBONES, "loss": registry.LOSSES}
    for kind, package in kinds.items():
        part = config["components"][kind]
        if part["name"] not in registry.names(package):
            raise HarnessError(
                f"{folder} needs the {kind} {part['name']}, which is not here: set HARNESS_COMPONENTS to its folder."
            )
        here = registry.schema(package, part["name"]).revision
        if here != part["version"]:
            own = registry.own(package, part["name"])
            remedy = f"Restore {registry.place_of(own)}" if own else f"Install harness {config['harness']}"
            raise HarnessError(
                f"{folder} needs version {part['version']} of {kind} {part['name']}; this harness has version {here}. "
                f"{remedy} to load it."
            )
    return config


def _check_files(folder: Path, config: Json) -> None:
    for name, wanted in config["files"].items():
        if not (folder / name).is_file():
            raise HarnessError(f"{folder} has no {name}; export the row again.")
        if files.sha256(folder / name) != wanted:
            raise HarnessError(f"{folder / name} is damaged: its checksum differs. Export the row again.")


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

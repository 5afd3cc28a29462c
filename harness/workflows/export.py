"""A row's model as a folder that needs no home: item table, backbone, ids, a map for unseen items, a self-test.

Nothing of a user leaves the bench: the histories of the self-test are drawn from the catalogue.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.torch
import torch
from torch import Tensor

from adapters._base import Adapter
from harness import registry
from harness.data import splits
from harness.data.splits import Queries, Split
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import row_lookup
from harness.report.row_lookup import LedgerRow
from harness.system import files
from harness.training import exported_model, ranking, trial
from harness.types import HarnessError, Trial
from harness.workflows.provenance import provenance

SELFTESTS, LENGTHS, ANSWERS = 5, (1, 2, 5, 12, 40), 10
WORST = 1e-4  # difference of test NDCG@10 from the stored ranks beyond which an export is refused


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written: `folder`, `files`, the `seed` of the run, how many of the test ranks are those of the bench
    (`equal` of `queries`), and what the export can do with unseen items."""

    folder: Path
    row: str
    trial: str
    seed: int
    queries: int
    equal: int
    unseen_items: str
    files: list[str]


def write(
    home: Path, word: str, folder: Path, seed: int | None = None, dataset: str = "", run: str | None = None
) -> ExportReport:
    """Export the row that `word` names: the run of that seed, or else the one that is best in validation.

    `dataset`: where its data are, if the cache has them no more; `run`: of the table as it stood at that launch.
    Raises HarnessError if the folder is there already, the row has no weights, what it was made of is not here, or the
    model does not give the test ranks of the bench.
    """
    folder = folder.expanduser()
    if folder.exists():
        raise HarnessError(f"--output {folder} is there already; name a folder that is not.")
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger, run), word)
    if row.cell.is_baseline:
        raise HarnessError(f"{row.words} trains nothing, so there are no weights to export.")
    chosen = _run(ledger, row, seed)
    source = row_lookup.weights_file(home, chosen)
    prepared = row_lookup.sequences(home, row, chosen.inputs.data, dataset)
    split = splits.split(prepared, chosen.protocol)
    made = _Made(home, row, chosen, prepared, split, safetensors.torch.load_file(source))
    checked: dict[str, int] = {}

    def build(new: Path) -> None:
        made.write(new)
        checked.update(_verified(exported_model.load(new), split, chosen, row_lookup.ranks(home, chosen)))

    try:
        files.build_folder(folder, build)
    except OSError as error:
        raise HarnessError(f"--output {folder} cannot be written: {error.strerror}.") from error
    return ExportReport(
        folder,
        row.words,
        chosen.id,
        chosen.seed,
        checked["queries"],
        checked["equal"],
        made.unseen,
        sorted(path.name for path in folder.iterdir()),
    )


def _run(ledger: Ledger, row: LedgerRow, seed: int | None) -> Trial:
    done = row_lookup.confirmed(ledger, row)
    if seed is None:
        return max(done, key=lambda own: (ledger.trials[own.id].result.best, -own.seed))  # pyright: ignore[reportOptionalMemberAccess]
    found = [own for own in done if own.seed == seed]
    if not found:
        raise HarnessError(f"{row.words} has no seed {seed}; it has {', '.join(str(own.seed) for own in done)}.")
    return found[0]


class _Made:
    """What goes into the folder, out of one run's weights."""

    def __init__(
        self,
        home: Path,
        row: LedgerRow,
        chosen: Trial,
        prepared: splits.Prepared,
        split: Split,
        weights: dict[str, Tensor],
    ) -> None:
        self.row, self.trial, self.prepared, self.split = row, chosen, prepared, split
        self.table = weights.pop("item_table")[1:].contiguous()
        self.weights = weights
        self.linear, self.unseen = self._linear_map(home)

    def _linear_map(self, home: Path) -> tuple[tuple[Tensor, Tensor] | None, str]:
        """The map of unseen items' texts, and a sentence on what it gives or why there is none."""
        name = registry.split_overrides(self.row.cell.adapter)[0]
        adapter = registry.load(registry.ADAPTERS, name)
        if not adapter.uses_text or adapter.linear_map is Adapter.linear_map:
            return None, f"none, since {name} is no linear map of an item's text"
        try:
            arrays = row_lookup.text(home, self.row, self.trial.inputs.embedding, self.prepared)
        except HarnessError as error:
            return None, f"none, since the text is not here: {error}"
        spectrum = trial.spectrum(arrays, self.split.n_items)
        model = trial.build(self.trial, self.split, spectrum).eval()
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise HarnessError(
                f"The weights of {self.row.words} do not fit {name} and {self.row.cell.backbone} as they are now: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        found, fusion = model.table.linear_map(), model.table.fusion
        if found is None:
            return None, f"none, since {name} with fusion '{fusion}' and these parameters is no linear map of the text"
        self._check_map(found, arrays["E"], model.table.id if fusion != "none" else None)
        if fusion == "none":
            return found, "vector = text embedding @ W + b, as for the items of the catalogue"
        return found, f"vector = text embedding @ W + b; its ID part (fusion '{fusion}') is zero"

    def _check_map(self, found: tuple[Tensor, Tensor], E: np.ndarray, id: Tensor | None) -> None:
        """Raises HarnessError if the map does not give the table's own rows, but for what the ID embedding adds."""
        W, b = found
        texts = torch.from_numpy(np.array(E))
        made = texts @ W + b
        if id is not None:
            made[:, made.shape[1] - id.shape[1] :] += id.detach()
        described = (texts != 0).any(1)
        off = (made - self.table)[described].abs().max().item()
        if off > 1e-3 * self.table.abs().max().item():
            raise HarnessError(f"The linear map of {self.row.words} misses its own table by {off:.2g}.")

    def write(self, folder: Path) -> None:
        """All files of an export; its hashes stand in config.json, which is written last."""
        trained = np.zeros(self.split.n_items, np.int64)
        events = _training_events(self.split)
        np.add.at(trained, events - 1, 1)
        tables = {"item_table": self.table, "popularity": torch.from_numpy(trained)}
        safetensors.torch.save_file(tables, folder / exported_model.TABLE)
        own = {name: value for name, value in self.weights.items() if name.startswith("backbone.")}
        prefix = "table.adapter.mixer."
        own |= {f"mixer.{k.removeprefix(prefix)}": v for k, v in self.weights.items() if k.startswith(prefix)}
        safetensors.torch.save_file(own, folder / exported_model.BACKBONE)
        if self.linear is not None:
            W, b = self.linear
            safetensors.torch.save_file({"W": W.contiguous(), "b": b.contiguous()}, folder / exported_model.LINEAR)
        ids = self.prepared.catalogue["item_id"].to_list()
        files.write_text(folder / exported_model.ITEMS, json.dumps(ids, ensure_ascii=False) + "\n")
        self._write_config(folder, [])
        cases = _cases(exported_model.load(folder, check=False))
        files.write_json(folder / exported_model.SELFTEST, cases)
        files.write_text(folder / "README.md", _readme(self.row, self._config(), self.unseen))
        names = [exported_model.TABLE, exported_model.BACKBONE, exported_model.ITEMS, exported_model.SELFTEST]
        self._write_config(folder, names + ([exported_model.LINEAR] if self.linear is not None else []))

    def _write_config(self, folder: Path, names: list[str]) -> None:
        config = self._config() | {"files": {name: files.sha256(folder / name) for name in names}}
        files.write_json(folder / exported_model.CONFIG, config)

    def _config(self) -> dict[str, Any]:
        own, params = self.trial, self.trial.params
        found = provenance()
        return {
            "schema": exported_model.SCHEMA,
            "harness": found["harness"],
            "row": self.row.words,
            "trial": own.id,
            "seed": own.seed,
            "d": params["train.d"],
            "max_len": params["train.max_len"],
            "views": self.table.shape[1] // params["train.d"],
            "filter_seen": own.protocol.filter_seen,
            "protocol": own.protocol.identity(),
            "components": {
                "adapter": _component(registry.ADAPTERS, own.cell.adapter, trial.part(params, "adapter")),
                "backbone": _component(registry.BACKBONES, own.cell.backbone, trial.part(params, "backbone")),
                "loss": _component(registry.LOSSES, params["train.loss"], trial.part(params, "loss")),
            },
            "params": params,
            "encoder": {"label": own.cell.encoder, "hash": own.inputs.embedding, "text": self.row.card.text},
            "data": {key: getattr(self.row.card, key) for key in ("users", "items", "events", "licence", "citation")}
            | {"name": own.cell.dataset, "hash": own.inputs.data},
            "unseen_items": self.unseen,
            "provenance": {"git": found["git"], "python": found["python"], **found["versions"]},
        }


def _component(package: str, word: str, params: dict[str, Any]) -> dict[str, Any]:
    schema = registry.schema(package, registry.split_overrides(word)[0])
    return {"name": schema.name, "version": schema.version, "params": schema.params | params}


def _training_events(split: Split) -> np.ndarray:
    """Item numbers of all training events."""
    within = np.arange(len(split.items)) - np.repeat(split.offsets[:-1], np.diff(split.offsets))
    return split.items[within < np.repeat(split.train_ends, np.diff(split.offsets))]


def _cases(model: exported_model.Recommender) -> list[dict[str, Any]]:
    """Histories of known items drawn from the catalogue, and what the model answers."""
    rng = np.random.default_rng(0)
    cases = []
    for length in LENGTHS[:SELFTESTS]:
        history = [model.ids[i] for i in rng.integers(len(model.ids), size=length)]
        times = [1_000_000_000 + 86_400 * step for step in range(length + 1)] if model.needs_times else None
        [answer] = model.recommend([history], ANSWERS, None if times is None else [times])
        cases.append({"history": history, "times": times, "items": answer.items, "scores": answer.scores})
    return cases


def _verified(model: exported_model.Recommender, split: Split, chosen: Trial, stored: pl.DataFrame) -> dict[str, int]:
    """How many test ranks of the exported model are those of the bench. Raises HarnessError if their NDCG@10 is not."""
    test = split.test
    assert test is not None

    def states(block: Queries) -> Tensor:
        own = [split.history(user, end).tolist() for user, end in zip(block.users, block.ends, strict=True)]
        times = None
        if model.needs_times:
            assert split.times is not None
            starts = split.offsets[block.users]
            times = [split.times[s : s + end + 1].tolist() for s, end in zip(starts, block.ends, strict=True)]
        return model.states(own, times)

    ranks = ranking.ranks(states, split, test, filter_seen=chosen.protocol.filter_seen, table=model.keys)
    ranks = Ranks.untied(ranks.middle) if artifacts.mid_ranked(chosen) else ranks
    if len(ranks) != stored.height or (stored["user"].to_numpy() != test.users).any():
        raise HarnessError(f"The stored test ranks of {chosen.cell} are of other users than its split.")
    was = artifacts.bounds(stored)
    gap = abs(means(ranks, test.users)[HEADLINE] - means(was, test.users)[HEADLINE])
    if gap > WORST:
        raise HarnessError(
            f"The weights of {chosen.cell}, seed {chosen.seed}, do not give its test ranks: {HEADLINE} is off by "
            f"{gap:.2g}. They are damaged, or the code of its components has changed without a new version."
        )
    return {"queries": len(ranks), "equal": int(ranks.equal(was).sum())}


def _readme(row: LedgerRow, config: dict[str, Any], unseen: str) -> str:
    backbone, encoder, own = config["components"]["backbone"]["name"], config["encoder"], config["data"]
    reads_times = registry.schema(registry.BACKBONES, backbone).attributes.get("uses_time")
    times = ", times=[[seconds of each, of the moment asked for]]" if reads_times else ""
    seen = "left out of" if config["filter_seen"] else "part of"
    width = config["views"] * config["d"]
    return f"""# {row.words}

An item table and a sequence model.
Trained by harness {config["harness"]}, trial `{config["trial"]}`, seed {config["seed"]}.

```python
import harness

model = harness.load_export("this folder")
[answer] = model.recommend([["an item id", "the next one"]], k=10{times})
answer.items, answer.scores, answer.unknown
```

| file | holds |
|---|---|
| `{exported_model.TABLE}` | `item_table`, {width} float32 an item; `popularity`, training events of each |
| `{exported_model.BACKBONE}` | weights of `{backbone}`, and of what mixes the views of an item that has several |
| `{exported_model.ITEMS}` | item ids; id i is row i of the table |
| `{exported_model.LINEAR}` | W and b for unseen items, where there is such a map |
| `{exported_model.CONFIG}` | components, parameters, hashes, protocol, versions |
| `{exported_model.SELFTEST}` | drawn histories and their answers, compared whenever the folder is loaded |

Unseen items: {unseen}.
Text embeddings: `{encoder["label"]}` over the template `{encoder["text"]}`.
Items of a history are {seen} the answer; ids that the catalogue lacks are passed over and counted.
A history without a known item is answered with the items of most training events.

Data: {own["name"]}, {own["items"]} items; licence: {own["licence"] or "not stated"}.
Citation: {own["citation"] or "none given"}.
Whether the table may be passed on is a question of that licence.
"""

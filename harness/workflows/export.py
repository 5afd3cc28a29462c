"""Export a row's model as a self-contained folder: item table, backbone, ids, map for unseen items, self-test.

Exports contain no user data: the histories of the self-test are drawn from the catalogue.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import safetensors.torch
import torch
from torch import Tensor

from adapters._base import Adapter
from harness import overlay, registry
from harness.data import splits
from harness.data.splits import Queries, Split
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks
from harness.overlay import Overlay
from harness.paths import expanded
from harness.record import artifacts
from harness.record.ledger import Ledger
from harness.report import ledger_frames, row_lookup
from harness.report.row_lookup import LedgerRow
from harness.system import checksums, files
from harness.training import exported_model, ranking, trial
from harness.types import HarnessError, Json, Params, Trial, digest, part
from harness.workflows.provenance import provenance

SELFTESTS, LENGTHS, ANSWERS = 5, (1, 2, 5, 12, 40), 10
TRAINED = ("harness", "git", "code", "dirty", "python", "versions", "machine", "date")  # keys of a launch's provenance
WORST = 1e-4  # largest accepted difference between the test NDCG@10 of the export and of the stored ranks


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Report on an export: `folder`, `files`, `seed` of the run, how many of the `queries` test ranks are `equal` to
    those of the bench, and how the export maps unseen items."""

    folder: Path
    row: str
    trial: str
    seed: int
    queries: int
    equal: int
    unseen_items: str
    files: list[str]


def write(
    home: Path,
    word: str,
    folder: Path,
    seed: int | None = None,
    dataset: str = "",
    run: str | None = None,
    fold: int | None = None,
    check: Callable[[str], None] = lambda _: None,
) -> ExportReport:
    """Export the row that `word` names: its run with `seed`, by default the run with the best validation score.

    `fold`: of sliding windows, by default the last, whose model has seen the most events. `dataset`: name or folder of
    its data, needed if they are no longer cached; `run`: use the table as of this launch; `check`: called with the id
    of the run's trial before anything is written, may raise. Raises HarnessError if the folder exists, the row has no
    weights, its data are missing, or the model does not reproduce the test ranks of the bench.
    """
    folder = expanded(folder)
    if folder.exists():
        raise HarnessError(f"--output {folder} already exists; choose a new folder.")
    ledger = Ledger.open(home)
    row = row_lookup.find(row_lookup.of(ledger, run), word)
    if row.cell.is_baseline:
        raise HarnessError(f"{row.words} is not trained, so it has no weights to export.")
    if row.cell.is_ensemble:
        raise HarnessError(f"{row.words} is an ensemble of models; export its parts: {', '.join(row.parts)}.")
    chosen = run_of(ledger, row, seed, fold)
    row_lookup.check_components(row, chosen)
    check(chosen.id)
    source = row_lookup.weights_file(home, chosen)
    prepared = row_lookup.sequences(home, row, chosen.inputs.data, dataset)
    split = splits.split(prepared, chosen.protocol)
    trained = ledger_frames.provenance(ledger, [chosen.id], row.launch)
    export = _Export(home, row, chosen, prepared, split, safetensors.torch.load_file(source), trained)
    checked: dict[str, int] = {}

    def build(new: Path) -> None:
        export.write(new)
        checked.update(_verified(exported_model.load(new), split, chosen, row_lookup.ranks(home, chosen)))

    try:
        files.build_folder(folder, build)
    except OSError as error:
        raise HarnessError(f"--output {folder} is not writable: {error.strerror}.") from error
    return ExportReport(
        folder,
        row.words,
        chosen.id,
        chosen.seed,
        checked["queries"],
        checked["equal"],
        export.unseen,
        sorted(path.name for path in folder.iterdir()),
    )


def own_components(folder: Path) -> Overlay:
    """Return the components of an export folder that come from outside harness."""
    parts = json.loads((folder / exported_model.CONFIG).read_text(encoding="utf-8"))["components"]
    packages = {"adapter": registry.ADAPTERS, "backbone": registry.BACKBONES, "loss": registry.LOSSES}
    found = [registry.own(packages[kind], part["name"]) for kind, part in parts.items()]
    return overlay.current().part(filter(None, found))


def run_of(ledger: Ledger, row: LedgerRow, seed: int | None, fold: int | None = None) -> Trial:
    """Return the row's confirmed run with `seed`, by default the one with the best validation score.

    `fold`: of sliding windows, by default the last. Raises HarnessError if there is no such run.
    """
    done, folds = row_lookup.confirmed(ledger, row), row.study.folds
    if fold is not None and not folds:
        raise HarnessError(f"{row.words} has no folds; leave out --fold.")
    wanted = folds - 1 if folds and fold is None else fold or 0
    of_fold = [run for run in done if run.protocol.fold == wanted]
    if not of_fold:
        known = ", ".join(map(str, sorted({run.protocol.fold for run in done})))
        raise HarnessError(f"{row.words} has no finished run of fold {wanted}; there are runs of fold {known}.")
    done = of_fold
    if seed is None:
        return max(done, key=lambda run: (ledger.trials[run.id].result.best, -run.seed))  # pyright: ignore[reportOptionalMemberAccess]
    chosen = next((run for run in done if run.seed == seed), None)
    if chosen is None:
        raise HarnessError(f"{row.words} has no seed {seed}; it has {', '.join(str(run.seed) for run in done)}.")
    return chosen


class _Export:
    """The contents of the folder, from the weights of one run."""

    def __init__(
        self,
        home: Path,
        row: LedgerRow,
        chosen: Trial,
        prepared: splits.Prepared,
        split: Split,
        weights: dict[str, Tensor],
        trained: Json,
    ) -> None:
        self.row, self.trial, self.prepared, self.split, self.trained = row, chosen, prepared, split, trained
        self.table = weights.pop("item_table")[1:].contiguous()
        self.weights = weights
        self.linear, self.unseen = self._linear_map(home)

    def _linear_map(self, home: Path) -> tuple[tuple[Tensor, Tensor] | None, str]:
        """Return the map from texts to vectors of unseen items, and a sentence about it or why there is none."""
        name = registry.split_overrides(self.row.cell.adapter)[0]
        adapter = registry.load(registry.ADAPTERS, name)
        if not adapter.uses_text or adapter.linear_map is Adapter.linear_map:
            return None, f"none, since {name} is not a linear map of an item's text"
        try:
            arrays = row_lookup.text(home, self.row, self.trial.inputs.embedding, self.prepared)
        except checksums.Damaged:
            raise
        except HarnessError as error:
            return None, f"none, since the text is missing: {error}"
        spectrum = trial.spectrum(arrays, self.split.n_items)
        model = trial.build(self.trial, self.split, spectrum).eval()
        try:
            model.load_state_dict(self.weights)
        except RuntimeError as error:
            raise HarnessError(
                f"The weights of {self.row.words} do not fit the installed {name} and {self.row.cell.backbone}: "
                f"{' '.join(str(error).split())[:200]}"
            ) from error
        linear, fusion = model.table.linear_map(), model.table.fusion
        if linear is None:
            reason = f"{name} with fusion '{fusion}' and these parameters is not a linear map of the text"
            return None, f"none, since {reason}"
        self._check_map(linear, arrays["E"], model.table.id if fusion != "none" else None)
        if fusion == "none":
            return linear, "vector = text embedding @ W + b, as for the items of the catalogue"
        return linear, f"vector = text embedding @ W + b; its ID part (fusion '{fusion}') is zero"

    def _check_map(self, linear: tuple[Tensor, Tensor], E: np.ndarray, id: Tensor | None) -> None:
        """Raise HarnessError unless the map, plus the ID embedding, reproduces the rows of the table."""
        W, b = linear
        texts = torch.from_numpy(np.array(E))
        mapped = texts @ W + b
        if id is not None:
            mapped[:, mapped.shape[1] - id.shape[1] :] += id.detach()
        described = (texts != 0).any(1)
        off = (mapped - self.table)[described].abs().max().item()
        if off > 1e-3 * self.table.abs().max().item():
            raise HarnessError(f"The linear map of {self.row.words} differs from its item table by {off:.2g}.")

    def write(self, folder: Path) -> None:
        """Write all files of an export. config.json contains their hashes and is written last."""
        trained = np.zeros(self.split.n_items, np.int64)
        events = _training_events(self.split)
        np.add.at(trained, events - 1, 1)
        tables = {"item_table": self.table, "popularity": torch.from_numpy(trained)}
        safetensors.torch.save_file(tables, folder / exported_model.TABLE)
        weights = {name: value for name, value in self.weights.items() if name.startswith("backbone.")}
        prefix = "table.adapter.mixer."
        weights |= {f"mixer.{k.removeprefix(prefix)}": v for k, v in self.weights.items() if k.startswith(prefix)}
        safetensors.torch.save_file(weights, folder / exported_model.BACKBONE)
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
        files.write_json(folder / exported_model.CONFIG, config | {"digest": digest(config)})

    def _config(self) -> Json:
        run, params = self.trial, self.trial.params
        origin = provenance()
        return {
            "schema": exported_model.SCHEMA,
            "harness": origin["harness"],
            "row": self.row.words,
            "trial": run.id,
            "seed": run.seed,
            "d": params["train.d"],
            "max_len": params["train.max_len"],
            "views": self.table.shape[1] // params["train.d"],
            "filter_seen": run.protocol.filter_seen,
            "protocol": run.protocol.identity(),
            "components": {
                "adapter": _component(registry.ADAPTERS, run.cell.adapter, part(params, "adapter")),
                "backbone": _component(registry.BACKBONES, run.cell.backbone, part(params, "backbone")),
                "loss": _component(registry.LOSSES, params["train.loss"], part(params, "loss")),
            },
            "params": params,
            "encoder": {"label": run.cell.encoder, "hash": run.inputs.embedding, "text": self.row.card.text},
            "data": {key: getattr(self.row.card, key) for key in ("users", "items", "events", "licence", "citation")}
            | {"name": run.cell.dataset, "hash": run.inputs.data},
            "unseen_items": self.unseen,
            "trained": {key: self.trained[key] for key in TRAINED if key in self.trained},
            "provenance": {"git": origin["git"], "python": origin["python"], **origin["versions"]},
        }


def _component(package: str, word: str, params: Params) -> Json:
    schema = registry.schema(package, registry.split_overrides(word)[0])
    return {"name": schema.name, "version": schema.revision, "params": schema.params | params}


def _training_events(split: Split) -> np.ndarray:
    """Return the item numbers of all training events."""
    return split.items[splits.heads(split.offsets, split.train_ends)]


def _cases(model: exported_model.Recommender) -> list[Json]:
    """Return histories drawn from the catalogue, with the model's answers."""
    rng = np.random.default_rng(0)
    cases = []
    for length in LENGTHS[:SELFTESTS]:
        history = [model.ids[i] for i in rng.integers(len(model.ids), size=length)]
        times = [1_000_000_000 + 86_400 * step for step in range(length + 1)] if model.needs_times else None
        [answer] = model.recommend([history], ANSWERS, None if times is None else [times])
        cases.append({"history": history, "times": times, "items": answer.items, "scores": answer.scores})
    return cases


def _verified(model: exported_model.Recommender, split: Split, chosen: Trial, stored: pl.DataFrame) -> dict[str, int]:
    """Count the test ranks of an export that equal those of the bench. Raises HarnessError if the NDCG@10 differs."""
    test = split.test
    assert test is not None

    def states(block: Queries) -> Tensor:
        histories = [split.history(user, end).tolist() for user, end in zip(block.users, block.ends, strict=True)]
        times = None
        if model.needs_times:
            seconds = split.seconds
            assert seconds is not None
            starts = split.offsets[block.users]
            times = [seconds[s : s + end + 1].tolist() for s, end in zip(starts, block.ends, strict=True)]
        return model.states(histories, times)

    ranks = ranking.ranks(states, split, test, filter_seen=chosen.protocol.filter_seen, table=model.keys)
    return check_ranks(ranks, test.users, chosen, stored)


def check_ranks(ranks: Ranks, users: np.ndarray, chosen: Trial, stored: pl.DataFrame) -> dict[str, int]:
    """Count the recomputed test ranks that equal the stored ones of the bench; returns `queries` and `equal`.

    users: (queries,). Raises HarnessError if the users or the NDCG@10 differ.
    """
    ranks = Ranks.untied(ranks.middle) if artifacts.mid_ranked(chosen) else ranks
    if len(ranks) != stored.height or (stored["user"].to_numpy() != users).any():
        raise HarnessError(f"The users of the stored test ranks of {chosen.cell} are not those of its split.")
    was = artifacts.bounds(stored)
    gap = abs(means(ranks, users)[HEADLINE] - means(was, users)[HEADLINE])
    if gap > WORST:
        raise HarnessError(
            f"The weights of {chosen.cell}, seed {chosen.seed}, do not reproduce its test ranks: {HEADLINE} is off by "
            f"{gap:.2g}. They are damaged, or a component's code has changed without a new version."
        )
    return {"queries": len(ranks), "equal": int(ranks.equal(was).sum())}


def _readme(row: LedgerRow, config: Json, unseen: str) -> str:
    backbone, encoder, data = config["components"]["backbone"]["name"], config["encoder"], config["data"]
    reads_times = registry.schema(registry.BACKBONES, backbone).attributes.get("uses_time")
    times = ", times=[[the time of each item in seconds, then of the request]]" if reads_times else ""
    seen = "excluded from" if config["filter_seen"] else "allowed in"
    width = config["views"] * config["d"]
    by, date = config["trained"].get("harness"), config["trained"].get("date")
    trained = (f", trained by harness {by}" if by else "") + (f" on {date}" if date else "")
    return f"""# {row.words}

An item table and a sequence model.
Trial `{config["trial"]}`, seed {config["seed"]}{trained}; exported by harness {config["harness"]}.

```python
import harness

model = harness.load_export("this folder")
[answer] = model.recommend([["an item id", "the next one"]], k=10{times})
answer.items, answer.scores, answer.unknown
```

| file | content |
|---|---|
| `{exported_model.TABLE}` | `item_table`, {width} float32 per item; `popularity`, training events per item |
| `{exported_model.BACKBONE}` | weights of `{backbone}`, and of the mixer if items have several views |
| `{exported_model.ITEMS}` | item ids; id i is row i of the table |
| `{exported_model.LINEAR}` | W and b for unseen items, if there is such a map |
| `{exported_model.CONFIG}` | components, parameters, hashes, protocol, versions of training and export |
| `{exported_model.SELFTEST}` | random histories and their answers, checked whenever the folder is loaded |

Unseen items: {unseen}.
Text embeddings: `{encoder["label"]}` of the template `{encoder["text"]}`.
Items of the history are {seen} the answer; ids that are not in the catalogue are ignored and counted.
For a history without any catalogue item, the answer is the most popular items by training events.

Data: {data["name"]}, {data["items"]} items; licence: {data["licence"] or "not stated"}.
Citation: {data["citation"] or "not stated"}.
Check this licence before you share the table.
"""

"""Train, validate and rank one trial. Torch only: no scheduler, no disk.

Random generators are reseeded at every epoch from (seed, epoch), so a trial that resumes from a checkpoint gives the
same numbers as one that was never interrupted.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

# oneDNN caches a compiled product for each of the last 1,024 shapes, and batches cut by length have many shapes: on
# Amazon Beauty the cache took 350 MB. The variable is read at the first product; a smaller cache costs no time.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")

import numpy as np
import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional as F

from adapters._base import Adapter, ItemTable, Spectrum, widths
from backbones._base import Backbone
from harness import registry
from harness.data.splits import Queries, Split
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks
from harness.metrics.lists._base import TopLists
from harness.training import diagnostics, list_scores, optimisation, schedules, user_scores
from harness.training.batches import Windows, gather, interactions, pieces, target_places, to_device
from harness.training.losses._base import Loss
from harness.training.model import Batch, SequenceModel
from harness.training.precision import exact
from harness.training.ranking import ranks, ranks_and_lists, warm_and_cold
from harness.types import Trial, TrialResult, part

CHECKED = {"cpu": 1}  # steps between checks of the loss; on a GPU a check waits for the device, so 64
POSITIONS = {"cpu": 2**12}  # encoded at a time for ranking: as many as fit a core's cache; on a GPU 2^17
PRECISIONS = ("float32", "bfloat16")  # of matrix products; weights, sums and ranks are always float32


class TrialFailed(Exception):
    """The trial itself went wrong (NaN loss, non-finite scores); the search continues without it."""


@dataclass
class TrialArtifacts:
    """Arrays and weights of a finished trial.

    `ranks`: of the test queries. `users`: int32 (test queries,), ascending. `spectra`: `start` and `end`, float64 (d,),
    normalised singular values of the item table before and after training. `weights`: safetensors bytes of item table
    and modules. `lists`: of the test queries, if they were requested.
    """

    ranks: Ranks = field(default_factory=lambda: Ranks.untied(np.zeros(0)))
    users: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    spectra: dict[str, np.ndarray] = field(default_factory=dict)
    weights: bytes = b""
    lists: TopLists | None = None


class Training:
    """One trial in progress: call `epoch` until `over`, then `finish`.

    split: sequences and their queries; spectrum: the catalogue's text; device: holds model and sequences throughout;
    beat: called regularly to show that the trial is alive; keep_user_scores: append those of each epoch to `users`;
    parts: pieces of each batch that are computed one after another, which needs less memory; resuming keeps a
    checkpoint's larger number. Initial weights are the same on every device. Raises ValueError if the components cannot
    be built with these parameters, TrialFailed if training goes wrong or has nothing to train on.
    """

    def __init__(
        self,
        trial: Trial,
        split: Split,
        spectrum: Spectrum,
        device: str = "cpu",
        beat: Callable[[], None] = lambda: None,
        keep_user_scores: bool = False,
        parts: int = 1,
    ) -> None:
        torch.set_flush_denormal(True)  # an unscaled softmax tail is denormal: three times slower steps otherwise
        torch.manual_seed(trial.seed)
        self.trial, self.split, self.device, self.beat = trial, split, torch.device(device), beat
        self.train = schedules.DEFAULTS | part(trial.params, "train")
        self.model = build(trial, split, spectrum).to(self.device)
        self.text, self.start = spectrum.E, self._spectrum()
        self.optimizer = optimisation.make(self.model, self.train["lr"], self.train["weight_decay"])
        self.average = optimisation.Average(self.model, self.train["ema"])
        self.items = torch.tensor(split.items, device=self.device)
        self.times = torch.tensor(split.seconds, device=self.device) if self.model.backbone.uses_time else None
        self.windows = Windows.of(split, self.train["max_len"])
        if not self.windows.targets:
            raise TrialFailed("no user has two events for training; choose another split")
        self.curve: list[float] = []
        self.users: list[user_scores.Scores] = []
        self.best: dict[str, Tensor] = {}
        self.keep_user_scores, self.parts, self.seconds = keep_user_scores, parts, 0.0

    @property
    def best_epoch(self) -> int:
        return int(np.argmax(self.curve)) if self.curve else -1

    @property
    def over(self) -> bool:
        done = len(self.curve)
        return done >= self.trial.epochs or done - 1 - self.best_epoch >= self.trial.patience > 0

    def epoch(self) -> float:
        """Train one epoch, validate, keep the weights if they are the best so far. Return validation NDCG@10.

        With `train.ema`, the averaged weights are validated and kept.
        """
        start, number = time.monotonic(), len(self.curve)
        seed = (self.trial.seed * 1_000_003 + number) % 2**63
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        self.model.train()
        total, step, done = torch.zeros((), device=self.device), 0, 0
        batches = self.windows.batches(self.train["batch_size"], np.random.default_rng(seed))
        for step, (starts, lengths) in enumerate(batches):
            targets = int(lengths.sum()) - len(lengths)
            progress = (number + (done + targets / 2) / self.windows.targets) / self.trial.epochs  # amid the step
            optimisation.set_rate(self.optimizer, self.train, progress)
            done += targets
            total += self.update(self.losses(starts, lengths, generator))
            self.beat()
            if step % CHECKED.get(self.device.type, 64) == 0:
                _check_finite(total, number, step)
        _check_finite(total, number, step)
        with self.average.in_use():
            value = self.validate()
        self.seconds += time.monotonic() - start
        return value

    def validate(self) -> float:
        """Append validation NDCG@10 under the current weights to the curve; keep them if they are the best so far."""
        valid_ranks, users = self.ranks(self.split.valid), self.split.valid.users
        value = round(means(valid_ranks, users)[HEADLINE], 8)  # the precision of the ledger
        self.curve.append(value)
        sampled = self.keep_user_scores
        self.users.append(user_scores.scores(valid_ranks, users, self.trial.inputs.data) if sampled else ())
        if self.best_epoch == len(self.curve) - 1:
            self.best = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return value

    def batch(self, starts: np.ndarray, lengths: np.ndarray) -> Batch:
        """Slices of the flat histories at `starts` with the given `lengths`."""
        users = np.searchsorted(self.split.offsets, starts, side="right") - 1
        times = None if self.times is None else gather(self.times, starts, lengths)
        items = gather(self.items, starts, lengths)
        users, places = (to_device(x, self.device) for x in (users, target_places(lengths)))
        return Batch(items, users, times, len(self.curve), places)

    def losses(self, starts: np.ndarray, lengths: np.ndarray, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the loss of a batch of windows or of its parts, each times its share of the targets."""
        self.model.in_parts = self.parts > 1
        for share, begin, size in pieces(starts, lengths, self.parts):
            loss = self.model.loss(self.batch(begin, size), generator)
            yield loss if share == 1 else share * loss

    def step(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Take one optimiser step on a whole batch; return the loss, shape (), detached."""
        return self.update([self.model.loss(batch, generator)])

    def update(self, losses: Iterable[Tensor]) -> Tensor:
        """Take one optimiser step on a sum of losses; return it, shape (), detached."""
        total = optimisation.step(self.model, self.optimizer, losses, self.train["clip_norm"])
        self.average.update()
        return total

    def ranks(self, queries: Queries) -> Ranks:
        """Ranks (queries,) of the targets under the current weights."""
        return self.ranks_and_lists(queries, 0)[0]

    @exact()
    @torch.no_grad()
    def ranks_and_lists(self, queries: Queries, k: int) -> tuple[Ranks, TopLists]:
        """Ranks (queries,) of the targets and top-k lists under the current weights."""
        self.model.eval()
        table, project = self.model.table(), self.model.project
        states = lambda block: project(self.last_states(block, table))  # noqa: E731
        seen = self.trial.protocol.filter_seen
        try:
            keys = project(self.model.scored(table[1:]))
            return ranks_and_lists(states, self.split, queries, k, filter_seen=seen, table=keys)
        except FloatingPointError as error:
            raise TrialFailed(f"{error} after epoch {len(self.curve)}") from error

    def last_states(self, queries: Queries, table: Tensor) -> Tensor:
        """States (q, k d) at the end of each query's history; only its last max_len events are read."""
        ends = self.split.offsets[queries.users] + queries.ends
        lengths = np.minimum(queries.ends, self.train["max_len"])
        rows = max(POSITIONS.get(self.device.type, 2**17) // lengths.max(), 1)
        last = []
        for start in range(0, len(lengths), rows):
            self.beat()
            at = slice(start, start + rows)
            starts, sizes = ends[at] - lengths[at], lengths[at]
            times = None if self.times is None else gather(self.times, starts, sizes + 1)
            last.append(self.model.last_states(gather(self.items, starts, sizes), table, times))
        return torch.cat(last)

    @exact()
    def finish(self, top_k: int = 0) -> tuple[TrialResult, TrialArtifacts]:
        """The result at the best epoch. Only a confirming trial ranks the test set; `top_k`: length of the lists that
        it keeps, 0 for none."""
        start = time.monotonic()
        self.model.load_state_dict(self.best, strict=False)
        result = TrialResult("done", best=max(self.curve), best_epoch=self.best_epoch, curve=self.curve)
        result.valid = means(self.ranks(self.split.valid), self.split.valid.users)
        artifacts, test, beyond = self._artifacts(), self.split.test, {}
        if self.trial.role == "confirm":
            if test is None:
                raise ValueError("a confirming trial needs the unsealed split")
            artifacts.ranks, lists = self.ranks_and_lists(test, max(top_k, list_scores.LEAST))
            artifacts.users, artifacts.lists = test.users, lists.cut(top_k) if top_k else None
            result.test = means(artifacts.ranks, artifacts.users)
            beyond = warm_and_cold(artifacts.ranks, self.split, test)
            beyond |= list_scores.scores(lists, self.split, self.text.numpy())
        result.info = self._info() | beyond | {"seconds": self.seconds + time.monotonic() - start}
        return result, artifacts

    @torch.no_grad()
    def _info(self) -> dict[str, float]:
        table = self.model.table
        info = diagnostics.collapse(table()[1:])
        if table.gain is not None:
            info |= {f"text_{name}": value for name, value in diagnostics.collapse(table.text()).items()}
        info["effective_rank_start"] = diagnostics.effective_rank(self.start)
        info |= self._directions() | self._text_use()
        info |= {f"adapter_{name}": value for name, value in table.adapter.diagnostics().items()}
        info["parameters"] = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        info |= {"epochs": len(self.curve)} | ({"accumulated": self.parts} if self.parts > 1 else {})
        return {name: float(value) for name, value in info.items() if math.isfinite(value)}

    @exact()
    @torch.no_grad()
    def _spectrum(self) -> Tensor:
        """Normalised singular values of the item table, float64 (d,), on the CPU."""
        self.model.eval()
        return diagnostics.spectrum(self.model.table()[1:]).cpu()

    def _text_use(self) -> dict[str, float]:
        """Variance shares of text and table beyond the d leading components of the text."""
        adapter = self.model.table.adapter
        if not adapter.uses_text:
            return {}
        text, table = adapter.spectrum, self.model.table()[1:].cpu()
        beyond = {"text_mass_beyond_d": diagnostics.mass_beyond(text.S, adapter.d)}
        return beyond | diagnostics.text_use(table, text.U, adapter.d)

    def _directions(self) -> dict[str, float]:
        """Alignment of validation states with the items that came next, and uniformity of the states."""
        queries = self.split.valid
        spread = slice(None, None, -(-len(queries.users) // diagnostics.SAMPLE))
        queries = Queries(queries.users[spread], queries.ends[spread])
        table, project = self.model.table(), self.model.project
        targets = self.items[torch.from_numpy(self.split.offsets[queries.users] + queries.ends).to(self.device)]
        states = project(self.last_states(queries, table))
        return {
            "alignment": diagnostics.alignment(states, project(self.model.scored(F.embedding(targets, table)))),
            "state_uniformity": diagnostics.uniformity(states),
        }

    @torch.no_grad()
    def _artifacts(self) -> TrialArtifacts:
        table = self.model.table()
        tensors = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        weights = safetensors.torch.save(
            {**tensors, "item_table": table.contiguous()}, {"trial": json.dumps(self.trial.to_json())}
        )
        return TrialArtifacts(spectra={"start": self.start.numpy(), "end": self._spectrum().numpy()}, weights=weights)

    def save(self) -> bytes:
        """Everything needed to resume after the last epoch, as safetensors bytes."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        tensors |= {f"average.{k}": v for k, v in self.average.weights.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in state.items()}
        meta = {"trial": self.trial.id, "curve": json.dumps(self.curve), "seconds": repr(self.seconds)}
        meta |= {"users": user_scores.packed(self.users)} if self.keep_user_scores else {}
        meta |= {"updates": str(self.average.updates)} if self.average.decay else {}
        meta |= {"parts": str(self.parts)} if self.parts > 1 else {}
        return safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, meta)

    def restore(self, saved: bytes) -> bool:
        """Resume from `save`. Return False and change nothing if the bytes are damaged or another trial's."""
        try:
            tensors = safetensors.torch.load(saved)
            header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])["__metadata__"]
        except (ValueError, KeyError, safetensors.SafetensorError):
            return False
        if header.get("trial") != self.trial.id:
            return False
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition(".")
            groups[group][rest] = tensor
        self.model.load_state_dict(groups["model"], strict=False)
        self.best = groups["best"]
        self.average.restore(groups["average"], int(header.get("updates", 0)))
        optimisation.load_state(self.optimizer, groups["optimizer"])
        self.parts = max(self.parts, int(header.get("parts", 1)))
        self.curve, self.seconds = json.loads(header["curve"]), float(header["seconds"])
        self.users = json.loads(header["users"]) if "users" in header else [()] * len(self.curve)
        return True


def run(
    trial: Trial, split: Split, spectrum: Spectrum, on_epoch: Callable[[int, float], None] = lambda *_: None
) -> tuple[TrialResult, TrialArtifacts]:
    """Run a whole trial in this process, without scheduler or pruning."""
    if trial.cell.is_baseline:
        return run_baseline(trial, split, spectrum)
    training = Training(trial, split, spectrum)
    while not training.over:
        on_epoch(len(training.curve), training.epoch())
    return training.finish()


def run_baseline(
    trial: Trial, split: Split, spectrum: Spectrum, beat: Callable[[], None] = lambda: None, top_k: int = 0
) -> tuple[TrialResult, TrialArtifacts]:
    """Rank a scorer that needs no training like every other row. beat: called at every block of ranks; top_k: as in
    `Training.finish`."""
    if split.test is None:
        raise ValueError("a confirming trial needs the unsealed split")
    start = time.monotonic()
    scorer = registry.load(registry.BASELINES, trial.cell.adapter)(split, spectrum)

    def scores(queries: Queries) -> Tensor:
        beat()
        return scorer.scores(queries)

    seen = trial.protocol.filter_seen
    valid = means(ranks(scores, split, split.valid, filter_seen=seen), split.valid.users)
    test, lists = ranks_and_lists(scores, split, split.test, max(top_k, list_scores.LEAST), filter_seen=seen)
    result = TrialResult("done", best=valid[HEADLINE], best_epoch=0, valid=valid, test=means(test, split.test.users))
    result.info = warm_and_cold(test, split, split.test) | list_scores.scores(lists, split, spectrum.E.numpy())
    result.info |= {"seconds": time.monotonic() - start, "parameters": 0.0}
    return result, TrialArtifacts(ranks=test, users=split.test.users, lists=lists.cut(top_k) if top_k else None)


def spectrum(arrays: dict[str, np.ndarray], n: int) -> Spectrum:
    """Wrap the arrays U, S, V, mean, E and, for several texts an item, variants in a `Spectrum` without copying;
    without arrays, n items without text."""
    if not arrays:
        return Spectrum.blank(n)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        U, S, V, mean, E = (torch.from_numpy(arrays[name]) for name in ("U", "S", "V", "mean", "E"))
        variants = torch.from_numpy(arrays["variants"]) if "variants" in arrays else None
        return Spectrum(U, S, V, mean, E, variants=variants)


def build(trial: Trial, split: Split, spectrum: Spectrum) -> SequenceModel:
    """Build the model of a trial, on the CPU.

    Raises ValueError if its components cannot be built with these parameters or need timestamps that are missing.
    """
    train, loss_params, text_params, adapter_params, backbone_params = (
        part(trial.params, prefix) for prefix in ("train", "loss", "text", "adapter", "backbone")
    )
    if train["precision"] not in PRECISIONS:
        raise ValueError(f"precision is '{train['precision']}'; it takes: {', '.join(PRECISIONS)}")
    make_adapter = registry.load(registry.ADAPTERS, registry.split_overrides(trial.cell.adapter)[0])
    make_backbone = registry.load(registry.BACKBONES, registry.split_overrides(trial.cell.backbone)[0])
    if make_backbone.uses_time and split.times is None:
        raise ValueError(f"{trial.cell.backbone} needs timestamps, but this data set has only the order of events")
    if make_backbone.uses_time and make_adapter.encodes:
        raise ValueError(
            f"{trial.cell.adapter} encodes sequences of other users, for which {trial.cell.backbone} needs timestamps"
        )
    if make_adapter.uses_interactions:
        spectrum = dataclasses.replace(spectrum, interactions=interactions(split))
    text_params = text_params or {"fusion": "none", "out_std": 1.0, "id_std": 0.0}
    adapter: Adapter = make_adapter(spectrum, widths(train["d"], text_params["fusion"])[0], **adapter_params)
    table = ItemTable(adapter, train["d"], **text_params)
    backbone: Backbone = make_backbone(train["d"], train["max_len"], **backbone_params)
    candidates = None if split.held_out is None else torch.from_numpy(np.flatnonzero(~split.held_out[1:]))
    compared = adapter.n if candidates is None else len(candidates)
    criterion: Loss = registry.load(registry.LOSSES, train["loss"])(compared, **loss_params)
    if criterion.needs_counts:
        counts = torch.bincount(interactions(split).items, minlength=adapter.n)
        criterion.observe(counts if candidates is None else counts[candidates])
    mixed = train["precision"] == "bfloat16"
    return SequenceModel(table, backbone, criterion, mixed, candidates, train.get("compile", "none"))


def _check_finite(total: Tensor, epoch: int, step: int) -> None:
    if not torch.isfinite(total):
        raise TrialFailed(f"loss is not finite at epoch {epoch}, step {step}")

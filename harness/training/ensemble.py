"""Rank with the summed scores of trained models. Torch only.

Source: EnsRec (2025, arXiv 2512.17820) adds the scores of an ID-only and a text-only model that were trained apart.
Here the scores of each model are standardised per query over the whole catalogue before they are added, so that no
model dominates by its scale; the weight of two different models is chosen on validation.

A model's score is state . key, so its standard deviation over the catalogue is sqrt(state^T C state) with C the
covariance of the keys, and the weighted sum of standardised scores orders the items as one dot product of concatenated
states and keys does. Ranking and ties are therefore those of every other row.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from adapters._base import Spectrum
from harness.data.splits import Queries, Split
from harness.metrics._all import HEADLINE, means
from harness.metrics._ties import Ranks
from harness.metrics.lists._base import TopLists
from harness.training import list_scores
from harness.training.precision import exact
from harness.training.ranking import ranks_and_lists, warm_and_cold
from harness.training.trial import Training, TrialArtifacts, TrialFailed
from harness.types import Trial, TrialResult

STEPS = 10  # the weight of the second of two models is one of 0, 1/STEPS, ..., 1


@dataclass(frozen=True)
class Settings:
    """How an ensemble runs. beat: called regularly to show that the trial is alive; top_k: length of stored lists."""

    device: str = "cpu"
    beat: Callable[[], None] = lambda: None
    top_k: int = 0


Part = tuple[Trial, bytes]  # a confirmed trial and its weights, safetensors


def run(
    trial: Trial,
    parts: Sequence[Part],
    split: Split,
    spectrum_of: Callable[[Trial], Spectrum],
    settings: Settings | None = None,
) -> tuple[TrialResult, TrialArtifacts]:
    """Rank validation and test with the models of the parts; spectrum_of: the text that a part's trial reads.

    Raises TrialFailed if weights do not fit the installed components, ValueError for a sealed split.
    """
    if split.test is None:
        raise ValueError("an ensemble needs the unsealed split")
    start, settings = time.monotonic(), settings or Settings()
    spectra = [spectrum_of(part) for part, _ in parts]
    models = [_load(*part, split, text, settings) for part, text in zip(parts, spectra, strict=True)]
    ensemble = Ensemble(models, split, trial.protocol.filter_seen)
    weights, validation = ensemble.choose(split.valid)
    test, lists = ensemble.ranks_and_lists(split.test, weights, max(settings.top_k, list_scores.LEAST))
    E = max((text.E for text in spectra), key=lambda E: E.shape[1])  # of a part that reads text, if there is one
    result = TrialResult("done", best=round(validation[HEADLINE], 8), best_epoch=0, valid=validation)
    result.test = means(test, split.test.users)
    result.info = warm_and_cold(test, split, split.test) | list_scores.scores(lists, split, E.numpy())
    result.info |= {
        "seconds": time.monotonic() - start,
        "parameters": float(sum(p.numel() for one in models for p in one.model.parameters() if p.requires_grad)),
        **({"weight": weights[-1]} if ensemble.weighted else {}),
    }
    kept = lists.cut(settings.top_k) if settings.top_k else None
    return result, TrialArtifacts(ranks=test, users=split.test.users, lists=kept)


def text_of(spectrum: Spectrum) -> Callable[[Trial], Spectrum]:
    """Return which text each part reads: `spectrum`, or none."""
    blank = Spectrum.blank(spectrum.n)
    return lambda part: spectrum if part.inputs.embedding else blank


def trial_of(weights: bytes) -> Trial:
    """Return the trial that weights belong to."""
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    return Trial.from_json(json.loads(header["__metadata__"]["trial"]))


def _load(trial: Trial, weights: bytes, split: Split, spectrum: Spectrum, settings: Settings) -> Training:
    """Return the trained model of a confirmed trial."""
    trained = Training(trial, split, spectrum, settings.device, settings.beat)
    tensors = safetensors.torch.load(weights)
    tensors.pop("item_table")
    try:
        trained.model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise TrialFailed(f"the weights of {trial.cell}, seed {trial.seed}, do not fit: {reason}") from error
    trained.model.eval()
    return trained


class Ensemble:
    """Models of the same catalogue. keys: (N, sum of widths), theirs side by side. weighted: two different models,
    whose weight is chosen."""

    @exact()
    @torch.no_grad()
    def __init__(self, models: Sequence[Training], split: Split, filter_seen: bool) -> None:
        self.models, self.split, self.filter_seen = models, split, filter_seen
        self.tables = [one.model.table() for one in models]
        keys = [one.model.project(one.model.scored(table[1:])) for one, table in zip(models, self.tables, strict=True)]
        self.keys = torch.cat(keys, 1)
        self.weighted = len({one.trial.cell for one in models}) == len(models) == 2
        self.covariances = [torch.cov(key.double().T, correction=0).reshape(key.shape[1], -1) for key in keys]

    def choose(self, valid: Queries) -> tuple[list[float], dict[str, float]]:
        """Return the weight of each model and the validation metrics.

        Two different models: the weights with the best validation NDCG@10, the most equal of equals. Otherwise all
        weights are equal.
        """
        equal = [1 / len(self.models)] * len(self.models)
        options = [equal]
        if self.weighted:
            steps = sorted(range(STEPS + 1), key=lambda step: abs(2 * step - STEPS))
            options = [[1 - step / STEPS, step / STEPS] for step in steps]
        states = self.states(valid)
        metrics = [means(self._rank(states, valid, weights, 0)[0], valid.users) for weights in options]
        best = max(range(len(options)), key=lambda i: (metrics[i][HEADLINE], -i))
        return options[best], metrics[best]

    def ranks_and_lists(self, queries: Queries, weights: Sequence[float], k: int) -> tuple[Ranks, TopLists]:
        """Ranks (queries,) of the targets, and top-k lists, by the weighted sum of standardised scores."""
        return self._rank(self.states(queries), queries, weights, k)

    @exact()
    @torch.no_grad()
    def states(self, queries: Queries) -> list[Tensor]:
        """States (queries, width) of each model, divided by the standard deviation of their scores."""
        states = []
        for one, table, covariance in zip(self.models, self.tables, self.covariances, strict=True):
            state = one.model.project(one.last_states(queries, table))
            wide = state.double()
            deviation = ((wide @ covariance) * wide).sum(1, keepdim=True).clamp_min(0).sqrt()
            states.append((wide / deviation.where(deviation > 0, torch.inf)).float())
        return states

    def _rank(
        self, states: Sequence[Tensor], queries: Queries, weights: Sequence[float], k: int
    ) -> tuple[Ranks, TopLists]:
        joined = torch.cat([weight * state for weight, state in zip(weights, states, strict=True)], 1)
        keys = _keys(queries)
        order = np.argsort(keys)

        def of(block: Queries) -> Tensor:
            return joined[torch.from_numpy(order[np.searchsorted(keys, _keys(block), sorter=order)])]

        try:
            return ranks_and_lists(of, self.split, queries, k, filter_seen=self.filter_seen, table=self.keys)
        except FloatingPointError as error:
            raise TrialFailed(str(error)) from error


def _keys(queries: Queries) -> np.ndarray:
    """A number for each query, int64 (queries,): users and ends together are unique."""
    return queries.users.astype(np.int64) << 32 | queries.ends.astype(np.int64)

"""Optuna's samplers and pruners by their command-line names, configured for searches of a few dozen trials.

Every draw uses a new sampler, seeded from (study, number), so that it depends only on the trials that ended before.
Parameters that a sampler cannot model (`plan.at_random`) are drawn independently at random from the same seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from harness.search.spaces import Space

STARTUP_TRIALS = 6  # random points before a model is used; constant, so that an extended search equals a longer one
GRACE = 0.3  # share of the epochs before a trial may be pruned, because some start slowly
HALVING = 2  # reduction factor: 1 of 2 trials passes a rung, and each rung has twice the epochs of the previous one


def _tpe(seed: int, space: Space) -> BaseSampler:
    """TPE over the joint distribution of the parameters; conditional ones are separate groups (`group`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP_TRIALS)


def _random(seed: int, space: Space) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


class _Gp(optuna.samplers.GPSampler):
    """A Gaussian process with logEI over the unconditional parameters, which also learns from pruned trials.

    Optuna's sampler ignores pruned trials. With the median pruner, four of six measured searches of 16 trials then had
    fewer finished trials than it needs and drew all of them at random (docs/decisions/0013-the-default-sampler.md).
    Here a pruned trial counts with its expected final value (`_expected`).
    """

    def __init__(self, seed: int, space: Space) -> None:
        self._shadow: optuna.Study | None = None  # the trials as this sampler sees them
        super().__init__(
            seed=seed,
            n_startup_trials=STARTUP_TRIALS,
            independent_sampler=_random(seed, space),
            warn_independent_sampling=False,
        )

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self._shadow = _without_pruned(study, trial)
        return super().infer_relative_search_space(self._shadow, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        assert self._shadow is not None
        self._shadow.ask()
        return super().sample_relative(self._shadow, self._shadow.get_trials(deepcopy=False)[-1], search_space)


def _without_pruned(study: optuna.Study, drawn: FrozenTrial) -> optuna.Study:
    """Return a copy of a study, except the trial being drawn, with pruned trials as finished ones."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.params and t.number != drawn.number]
    done = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    shadow = optuna.create_study(sampler=optuna.samplers.RandomSampler(0), directions=study.directions)
    for trial in trials:
        if trial.state is TrialState.PRUNED and trial.intermediate_values:
            trial = create_trial(params=trial.params, distributions=trial.distributions, value=_expected(trial, done))
        shadow.add_trial(trial)
    return shadow


def _expected(pruned: FrozenTrial, done: list[FrozenTrial]) -> float:
    """Best value of a pruned trial, times the factor by which finished trials rose after the epoch where it stopped."""
    last = max(pruned.intermediate_values)
    curves = [{epoch: v for epoch, v in trial.intermediate_values.items() if epoch <= last} for trial in done]
    risen = [(max(curve.values()), trial.value or 0.0) for curve, trial in zip(curves, done, strict=True) if curve]
    before, after = (sum(values) for values in zip(*risen, strict=True)) if risen else (0.0, 0.0)
    rise = after / before if before > 0 else 1.0
    return rise * max(pruned.intermediate_values.values())


class _CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES over a constant set of parameters.

    Optuna's sampler models the parameters that all trials so far have in common. In a space with conditions this set
    shrinks, and then it draws all parameters at random.
    """

    def __init__(self, seed: int, space: Space) -> None:
        self._modelled: dict[str, BaseDistribution] = {
            name: axis
            for name, axis in sorted(space.free().items())
            if not isinstance(axis, CategoricalDistribution) and not axis.single()
        }
        super().__init__(
            seed=seed,
            independent_sampler=_random(seed, space),
            warn_independent_sampling=False,
        )

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._modelled


SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _random,  # every trial is a point of `grids`, nothing is drawn
    "gp": _Gp,
    "cmaes": _CmaEs,
}


def grace(epochs: int) -> int:
    """Epochs in which no trial is pruned."""
    return max(2, math.ceil(GRACE * epochs))


PRUNERS: dict[str, Callable[[int], optuna.pruners.BasePruner]] = {
    "median": lambda epochs: optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=grace(epochs)),
    "halving": lambda epochs: optuna.pruners.SuccessiveHalvingPruner(
        min_resource=grace(epochs), reduction_factor=HALVING
    ),
    "hyperband": lambda epochs: optuna.pruners.HyperbandPruner(
        min_resource=grace(epochs), max_resource=max(epochs, grace(epochs)), reduction_factor=HALVING
    ),
    # `wilcoxon_pruner` decides, because an Optuna study cannot store scores by user
    "wilcoxon": lambda epochs: optuna.pruners.NopPruner(),
    "none": lambda epochs: optuna.pruners.NopPruner(),
}

# These keep state outside of Optuna's trials, which `add_trial` does not update: a resumed search replays all past
# trials with ask and tell.
REPLAYED = {"cmaes", "halving", "hyperband"}

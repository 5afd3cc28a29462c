"""Optuna's samplers and pruners under the names of the command line, each set up for searches of a few dozen trials.

A sampler is made anew for every draw, seeded from (study, number), so that a draw depends on what ended before it and
on nothing else. What a sampler cannot model (`plan.at_random`) it leaves to an independent random draw of that seed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler

from harness.search.spaces import Space

STARTUP_TRIALS = 6  # random points before a model; a constant, so that a grown search is the longer search
GRACE = 0.3  # share of the epochs before a trial may be pruned: slow starters
HALVING = 2  # of the trials at a rung one in so many goes on; rungs lie a factor of this apart


def _tpe(seed: int, space: Space) -> BaseSampler:
    """TPE over the joint distribution of the parameters, those of a condition apart (`group`)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=STARTUP_TRIALS)


def _random(seed: int, space: Space) -> BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


def _gp(seed: int, space: Space) -> BaseSampler:
    """A Gaussian process with logEI over what is searched at every point."""
    return optuna.samplers.GPSampler(
        seed=seed,
        n_startup_trials=STARTUP_TRIALS,
        independent_sampler=_random(seed, space),
        warn_independent_sampling=False,
    )


class _CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES over one set of parameters from the first draw to the last.

    Optuna's own takes what all trials so far have in common; once that shrinks, as it does in a space with conditions,
    it draws at random for good.
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

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._modelled


SAMPLERS: dict[str, Callable[[int, Space], BaseSampler]] = {
    "tpe": _tpe,
    "random": _random,
    "grid": _random,  # every trial is a point of `grids`; nothing is left to draw
    "gp": _gp,
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
    "wilcoxon": lambda epochs: (
        optuna.pruners.NopPruner()
    ),  # `wilcoxon_pruner` decides, out of what a study has no place for
    "none": lambda epochs: optuna.pruners.NopPruner(),
}

# These keep what they know beside the trials, where a trial that is added afterwards has nothing: a search that goes on
# asks and tells its whole past again.
REPLAYED = {"cmaes", "halving", "hyperband"}

"""Options of the training menu and learning-rate schedules. Standard library only: search spaces read it without torch.

A schedule is a function of training progress, not of a step count: the number of steps differs between epochs.
Progress is the share of the trial's max epochs that is done, so the horizon of a decay is known before training. A
trial that stops early does not reach the end of its decay.
"""

from __future__ import annotations

import math

from harness.types import Json

SCHEDULES = ("constant", "warmup_cosine", "one_cycle")
COMPILED = ("none", "kernels", "graphs")  # as harness/training/compiled.py has them
DEFAULTS: Json = {
    "schedule": "constant",
    "warmup": 0.05,  # share of the max epochs in which warmup_cosine rises; no other schedule reads it
    "ema": 0.0,  # decay per step of the moving average of the weights; 0: off
    "compile": "none",  # one of COMPILED
}
RISE, START, END = 0.3, 1 / 25, 1 / 25e4  # of one_cycle: share of the rise; first and last rate over the peak


def factor(schedule: str, progress: float, warmup: float = DEFAULTS["warmup"]) -> float:
    """Learning rate over its peak `train.lr`, in [0, 1], at a progress in [0, 1].

    `warmup_cosine`: linear from 0, then half a cosine to 0 (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5, without
    restarts). `one_cycle`: half a cosine from 1/25 up in the first 30 %, half a cosine down to 1/250,000 (Smith & Topin
    2018, arXiv 1708.07120, with the shape and the defaults of `torch.optim.lr_scheduler.OneCycleLR`; Adam's momentum
    is not cycled). Raises ValueError for an unknown schedule.

    >>> factor("warmup_cosine", 0.05), factor("one_cycle", 0.3), factor("constant", 0.3)
    (1.0, 1.0, 1.0)
    """
    if schedule == "constant":
        return 1.0
    if schedule == "warmup_cosine":
        if progress < warmup:
            return progress / warmup
        return _cosine(1.0, 0.0, (progress - warmup) / (1 - warmup))
    if schedule == "one_cycle":
        if progress < RISE:
            return _cosine(START, 1.0, progress / RISE)
        return _cosine(1.0, END, (progress - RISE) / (1 - RISE))
    raise ValueError(f"schedule is '{schedule}'; it takes: {', '.join(SCHEDULES)}")


def _cosine(start: float, end: float, share: float) -> float:
    """Value between `start` and `end` on half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
